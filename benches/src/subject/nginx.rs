//! nginx.

use std::{path::Path, process::Command};

use super::{Setup, peer::Hop, template::fill};
use crate::load::Traffic;

const HTTP: &str = include_str!("../../peers/nginx/http.conf");
const GRPC: &str = include_str!("../../peers/nginx/grpc.conf");
const TCP: &str = include_str!("../../peers/nginx/tcp.conf");

pub(super) fn cannot(program: &Path, setup: &Setup) -> Option<String> {
    match setup.traffic {
        Traffic::Http1 | Traffic::WebSocket | Traffic::Grpc | Traffic::GrpcStream => None,
        Traffic::Http2 => Some("nginx speaks HTTP/2 to the application for gRPC alone".into()),
        Traffic::Tcp | Traffic::TcpBulk if stream(program).is_some() => None,
        Traffic::Tcp | Traffic::TcpBulk => Some(
            "this nginx has no stream module: install it (Debian: `apt-get install libnginx-mod-stream`)"
                .into(),
        ),
    }
}

pub(super) fn file(hop: &Hop<'_>) -> String {
    let template = match hop.setup.traffic {
        Traffic::Grpc | Traffic::GrpcStream => GRPC,
        Traffic::Tcp | Traffic::TcpBulk => TCP,
        Traffic::Http1 | Traffic::Http2 | Traffic::WebSocket => HTTP,
    };
    let (mut values, mut conditions) = (hop.values(), hop.conditions());
    let module = if template == TCP { stream(hop.program) } else { None };
    conditions.push(("websocket", hop.setup.traffic == Traffic::WebSocket));
    values.push(("module", module.unwrap_or_default()));
    fill(template, &values, &conditions)
}

/// The line that loads the stream module: an empty one where it is built in. `None` where it is not there.
fn stream(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("-V").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut words = text.split_whitespace();
    match words.clone().find(|word| ["--with-stream", "--with-stream=dynamic"].contains(word))? {
        "--with-stream" => Some(String::new()),
        _ => {
            let folder = words.find_map(|word| word.strip_prefix("--modules-path="))?;
            let file = Path::new(folder).join("ngx_stream_module.so");
            file.is_file().then(|| format!("load_module {};", file.display()))
        }
    }
}

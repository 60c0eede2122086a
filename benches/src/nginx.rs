//! nginx as a plain reverse proxy with one worker, for comparison.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tokio::{net::TcpStream, time};

use crate::{
    caller::Protocol,
    path::{Environment, Subject},
    process::Process,
};

/// How long it may take until it listens.
const START: Duration = Duration::from_secs(10);

pub(crate) async fn start(environment: &Environment, dir: &Path) -> Result<Subject> {
    ensure!(
        environment.protocol == Protocol::H1,
        "nginx speaks HTTP/1.1 to what is behind it: use --protocol h1"
    );
    available()?;
    // nginx cannot tell which port the system chose for it, so the choice is made before it starts.
    let address =
        TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).context("no port is free")?;
    let file = dir.join("nginx.conf");
    fs::write(&file, configuration(address, environment.application))
        .with_context(|| format!("cannot write {}", file.display()))?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(dir).arg("-c").arg(&file).arg("-e").arg("stderr");
    let mut process = Process::start("nginx", command, environment.cpus, dir)?;
    let connected = time::timeout(START, async {
        while TcpStream::connect(address).await.is_err() {
            if process.ended() {
                bail!("nginx ended before it listened{}", process.complaint());
            }
            time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    });
    connected.await.with_context(|| format!("nginx did not listen on {address} within 10 s"))??;
    Ok(Subject { address, processes: vec![process] })
}

/// Whether there is an nginx to compare with.
///
/// # Errors
///
/// If there is none in PATH, saying how to get one.
pub fn available() -> Result<()> {
    Command::new("nginx").arg("-v").output().map(drop).context(
        "nginx is not in PATH: install it (Debian: `apt-get install nginx-light`), or leave --against out",
    )
}

fn configuration(listen: SocketAddr, application: SocketAddr) -> String {
    // As root, nginx would run its worker as a user who may not read this folder.
    let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
    format!(
        "{user}daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    upstream app {{
        server {application};
        keepalive 64;
        keepalive_requests 1000000000;
        keepalive_timeout 3600s;
    }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
        }}
    }}
}}
"
    )
}

//! Connections to an edge listener: a reverse proxy of its own.

use outrigger_config::listener::Protocol;
use outrigger_http::serve::Version;
use outrigger_net::detect::Detected;
use outrigger_telemetry::CallerTimeout;
use tokio::net::TcpStream;
use tracing::debug;

use crate::connection::{Connection, detect, http_version, patience, terminate};
use crate::plan::TcpPlan;
use crate::state::LiveListener;
use crate::tcp;

/// Serves a connection to its end.
pub(crate) async fn serve(connection: Connection, stream: TcpStream, live: &LiveListener) {
    match live.protocol {
        Some(Protocol::Tcp) => return tcp::relay(connection, stream).await,
        // Boxed, here and below, for every plain connection would have the room for it.
        Some(Protocol::Tls) => return Box::pin(tls(connection, stream, live)).await,
        Some(Protocol::Https) => return Box::pin(secure(connection, stream, live)).await,
        Some(Protocol::Http) | None => {}
    }
    let Some((connection, stream, detected)) = detect(connection, stream, live).await else { return };
    match (live.protocol, http_version(detected)) {
        (_, Some(version)) => connection.serve_http(stream, version).await,
        (None, None) if detected == Detected::Tls && live.tls.is_some() => {
            Box::pin(secure(connection, stream, live)).await;
        }
        (None, None) if detected == Detected::Tls && live.named => {
            Box::pin(tls(connection, stream, live)).await;
        }
        (None, None) => tcp::relay(connection, stream).await,
        // What is not HTTP is told so.
        (Some(_), None) => connection.serve_http(stream, Version::Http1).await,
    }
}

/// TLS that the name asked for may decide about. It is terminated, or goes on as it is, by the listener; where no route
/// takes it, the caller is told before either.
async fn tls(mut connection: Connection, stream: TcpStream, live: &LiveListener) {
    if (live.named || live.passthrough) && !connection.hear(&stream).await {
        return;
    }
    if live.tls.is_some() && TcpPlan::takes(&connection) {
        return secure(connection, stream, live).await;
    }
    tcp::relay(connection, stream).await;
}

/// Terminates TLS, and serves what is inside.
async fn secure(mut connection: Connection, stream: TcpStream, live: &LiveListener) {
    let Some(config) = live.tls.clone() else {
        debug!(listener = %connection.listener, "no certificate to terminate TLS with");
        return;
    };
    let Some(stream) = terminate(&connection, stream, config, live.handshake).await else { return };
    connection.secured();
    if live.protocol == Some(Protocol::Tls) {
        return tcp::relay(connection, stream).await;
    }
    match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => connection.serve_http(stream, Version::Http2).await,
        Some(_) => connection.serve_http(stream, Version::Http1).await,
        None => Box::pin(inside(connection, stream, live)).await,
    }
}

/// Serves what is inside TLS where the two sides did not agree on its name.
async fn inside(
    connection: Connection,
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    live: &LiveListener,
) {
    let patience = patience(live, None);
    let Ok((detected, stream)) = connection.opening(outrigger_net::detect::io(stream, patience)).await else {
        return;
    };
    match http_version(detected) {
        Some(version) => connection.serve_http(stream, version).await,
        None if live.protocol == Some(Protocol::Https) => {
            // Who has said nothing has rested for as long as it may.
            if detected == Detected::Silent {
                connection.timed_out(CallerTimeout::Idle);
            } else {
                connection.serve_http(stream, Version::Http1).await;
            }
        }
        None => tcp::relay(connection, stream).await,
    }
}

//! Connections from the application beside this proxy, captured or made to a listener of their own.

use std::net::IpAddr;

use outrigger_config::listener::Protocol;
use outrigger_http::serve::Version;
use outrigger_net::detect::Detected;
use outrigger_net::original;
use tokio::net::TcpStream;
use tracing::debug;

use crate::connection::{Connection, detect, http_version};
use crate::state::LiveListener;
use crate::tcp;

/// Serves a connection to its end.
pub(crate) async fn serve(mut connection: Connection, stream: TcpStream, live: &LiveListener) {
    connection.original = captured(&stream, live);
    if let Some(original) = connection.original
        && live.sockets.as_ref().is_some_and(|sockets| sockets.local.port() == original.port())
        && stream.local_addr().is_ok_and(|address| address.ip() == original.ip())
    {
        debug!(%original, "refused: it was addressed to this proxy, and would be captured for ever");
        return;
    }
    if live.private && connection.original.is_none() && !is_from_here(&stream, connection.peer.ip()) {
        debug!(peer = %connection.peer, "refused: another host has no business here, and would pass for this node");
        return;
    }
    if live.protocol == Some(Protocol::Tls) && live.named && !connection.hear(&stream).await {
        return;
    }
    if let Some(Protocol::Tcp | Protocol::Tls) = live.protocol {
        return tcp::relay(connection, stream).await;
    }
    let Some((mut connection, stream, detected)) = detect(connection, stream, live).await else { return };
    match (live.protocol, http_version(detected)) {
        (_, Some(version)) => connection.serve_http(stream, version).await,
        // The application's own TLS goes on as it is.
        (None, None) => {
            if detected == Detected::Tls && live.named && !connection.hear(&stream).await {
                return;
            }
            tcp::relay(connection, stream).await;
        }
        (Some(_), None) => connection.serve_http(stream, Version::Http1).await,
    }
}

/// Whether a connection that was not redirected comes from the host that it arrives at.
fn is_from_here(stream: &TcpStream, peer: IpAddr) -> bool {
    peer.is_loopback() || stream.local_addr().is_ok_and(|address| address.ip().to_canonical() == peer)
}

/// Where captured traffic was addressed to.
pub(crate) fn captured(stream: &TcpStream, live: &LiveListener) -> Option<std::net::SocketAddr> {
    let local = live.sockets.as_ref()?.local;
    original::destination(stream, stream.local_addr().unwrap_or(local))
}

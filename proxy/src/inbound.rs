//! Connections to the application beside this proxy, captured or made to a listener of their own: mutual TLS of the
//! mesh, and plain where the listener permits it.

use outrigger_certs::mesh;
use outrigger_config::listener::Protocol;
use outrigger_http::serve::Version;
use outrigger_http::{Error, Reason};
use outrigger_net::detect::Detected;
use outrigger_net::hello;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use crate::connection::{Connection, DETECT_TIMEOUT, FIRST_BYTE_TIMEOUT, detect, http_version, terminate};
use crate::state::LiveListener;
use crate::{outbound, tcp};

/// What the protocols of the mesh begin with (ALPN).
const MESH: &[u8] = b"outrigger/";

/// Serves a connection to its end.
pub(crate) async fn serve(mut connection: Connection, stream: TcpStream, live: &LiveListener) {
    connection.original = outbound::captured(&stream, live);
    let Some((connection, stream, detected)) = detect(connection, stream, live).await else { return };
    match detected {
        // Boxed, for every plain connection would have the room for it.
        Detected::Tls => Box::pin(tls(connection, stream, live)).await,
        _ if live.strict => refuse(connection, stream, detected).await,
        detected => clear(connection, stream, live, detected).await,
    }
}

/// TLS: the mesh's own is terminated; another is the application's, and goes on as it is where that is permitted.
async fn tls(mut connection: Connection, stream: TcpStream, live: &LiveListener) {
    let Ok(hello) = connection.opening(hello::peek(&stream, FIRST_BYTE_TIMEOUT)).await else { return };
    let mesh =
        hello.as_ref().is_some_and(|hello| hello.alpn.iter().any(|protocol| protocol.starts_with(MESH)));
    if !mesh && !live.strict {
        connection.hello = hello.filter(|_| live.named).map(Box::new);
        return tcp::relay(connection, stream).await;
    }
    let Some(config) = connection.worker.local().and_then(|local| local.live.node.mesh.clone()) else {
        warn!(listener = %connection.listener, peer = %connection.peer,
            "a caller wants mutual TLS, and this node has no identity yet");
        return;
    };
    if let Some(stream) = terminate(&connection, stream, config, live.handshake).await {
        member(connection, stream, live).await;
    }
}

/// Serves a caller that has proven who it is.
async fn member(mut connection: Connection, stream: TlsStream<TcpStream>, live: &LiveListener) {
    let session = stream.get_ref().1;
    connection.caller = mesh::peer_identity(session.peer_certificates());
    connection.secured();
    if connection.caller.is_none() {
        debug!(peer = %connection.peer, "the caller's certificate names no identity");
        return;
    }
    let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
    match protocol.as_deref() {
        _ if live.protocol == Some(Protocol::Tcp) => tcp::relay(connection, stream).await,
        Some(mesh::TCP) => tcp::relay(connection, stream).await,
        Some(mesh::HTTP1) => speaking(connection, stream, Version::Http1, Version::Http1).await,
        Some(mesh::HTTP1_OVER_HTTP2) => speaking(connection, stream, Version::Carried, Version::Http1).await,
        Some(mesh::HTTP2) => speaking(connection, stream, Version::Http2, Version::Http2).await,
        Some(b"h2") => connection.serve_http(stream, Version::Http2).await,
        Some(b"http/1.1") => connection.serve_http(stream, Version::Http1).await,
        _ => {
            let Ok((detected, stream)) =
                connection.opening(outrigger_net::detect::io(stream, DETECT_TIMEOUT)).await
            else {
                return;
            };
            clear(connection, stream, live, detected).await;
        }
    }
}

/// Serves HTTP of one version to an application that speaks another, or the same.
async fn speaking<IO>(mut connection: Connection, io: IO, version: Version, application: Version)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    connection.application = Some(application);
    connection.serve_http(io, version).await;
}

/// Serves what is not, or no longer, encrypted.
pub(crate) async fn clear<IO>(connection: Connection, io: IO, live: &LiveListener, detected: Detected)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match (live.protocol, http_version(detected)) {
        (Some(Protocol::Tcp | Protocol::Tls), _) | (None, None) => tcp::relay(connection, io).await,
        (_, Some(version)) => connection.serve_http(io, version).await,
        (Some(Protocol::Http | Protocol::Https), None) => connection.serve_http(io, Version::Http1).await,
    }
}

/// Tells a plain caller of a strict listener why it gets nothing, where it speaks HTTP.
async fn refuse(connection: Connection, stream: TcpStream, detected: Detected) {
    let (peer, listener) = (connection.peer, connection.listener.clone());
    debug!(%peer, %listener, "refused: the listener takes mutual TLS alone");
    let Some(version) = http_version(detected) else { return };
    let error = Error::unsent(Reason::HttpRequestDenied, "this listener takes mutual TLS alone");
    connection.serve_with(stream, version, Some(error)).await;
}

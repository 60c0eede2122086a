//! What nodes talk to: TLS, and over it signing and the control stream.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use outrigger_certs::mesh::peer_identity;
use outrigger_certs::rustls::ServerConfig;
use outrigger_config::SpiffeId;
use outrigger_control::message::{DEAD_AFTER, SIGN_PATH, STREAM_PATH};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::root::Server;
use crate::{Running, Shared};

mod session;
mod sign;

/// How long a TLS handshake, or the head of a request, may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may last whose caller has shown no certificate: all it can do is to ask for one.
const STRANGER: Duration = Duration::from_secs(30);
/// How long to wait before accepting again where the system has no descriptors or memory left.
const BREATH: Duration = Duration::from_millis(100);

/// An answer: whole, or a stream that stays open.
type Body = Either<Full<Bytes>, Channel<Bytes>>;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
struct Peer {
    address: SocketAddr,
    /// The identity of its certificate, verified, if it showed one.
    identity: Option<SpiffeId>,
}

/// Why a node was not served: the status, and the reason in words.
struct Refused(StatusCode, String);

impl Refused {
    /// The answer to whoever may not have what they asked for, with one line in the log.
    fn forbidden(peer: &Peer, what: &str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        // In quotes and escaped: a stranger's words may be among it, and must not pass for lines of their own.
        tracing::warn!(peer = %peer.address, ?reason, "{what} refused");
        Self(StatusCode::FORBIDDEN, reason)
    }
}

/// Accepts nodes until the control API stops.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, server: Server, mut running: Running) {
    let config = server.current();
    tokio::spawn(server.renew(shared.clone(), running.clone()));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = running.stopped() => return,
        };
        match accepted {
            Ok((socket, address)) => {
                let config = config.borrow().clone();
                tokio::spawn(connection(socket, address, config, shared.clone(), running.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

async fn connection(
    socket: TcpStream,
    address: SocketAddr,
    config: Arc<ServerConfig>,
    shared: Arc<Shared>,
    running: Running,
) {
    // Without it lines are only later, not lost.
    let _ = socket.set_nodelay(true);
    let tls = match tokio::time::timeout(PATIENCE, TlsAcceptor::from(config).accept(socket)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::warn!(peer = %address, %error, "TLS handshake failed"),
        Err(_) => return tracing::warn!(peer = %address, "TLS handshake took too long"),
    };
    let identity = peer_identity(tls.get_ref().1.peer_certificates());
    let is_stranger = identity.is_none();
    let served = requests(tls, Peer { address, identity }, shared, running);
    let ended = if is_stranger {
        tokio::time::timeout(STRANGER, served).await.unwrap_or(Ok(()))
    } else {
        served.await
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %address, %error, "connection ended");
    }
}

/// Serves the requests of one connection: HTTP/2 where it was agreed, or else HTTP/1.1, which is enough for signing.
async fn requests(
    tls: TlsStream<TcpStream>,
    peer: Peer,
    shared: Arc<Shared>,
    mut running: Running,
) -> hyper::Result<()> {
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let until = running.clone();
    let service = service_fn(move |request| {
        let (peer, shared, running) = (peer.clone(), shared.clone(), until.clone());
        async move { Ok::<_, Infallible>(answer(request, peer, shared, running).await) }
    });
    let io = TokioIo::new(tls);
    if http2 {
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(16)
            // A peer that vanished without a word is noticed even where it has no stream open.
            .keep_alive_interval(DEAD_AFTER)
            .keep_alive_timeout(PATIENCE)
            .serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            ended = &mut connection => return ended,
            () = running.stopped() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    } else {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            ended = &mut connection => return ended,
            () = running.stopped() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }
}

async fn answer(
    request: Request<Incoming>,
    peer: Peer,
    shared: Arc<Shared>,
    running: Running,
) -> Response<Body> {
    let outcome = match (request.method(), request.uri().path()) {
        (&Method::POST, SIGN_PATH) => sign::sign(request, &peer, &shared).await,
        (&Method::POST, STREAM_PATH) => session::open(request, peer, shared, running).await,
        (_, SIGN_PATH | STREAM_PATH) => {
            Err(Refused(StatusCode::METHOD_NOT_ALLOWED, "only POST is possible here".into()))
        }
        _ => Err(Refused(StatusCode::NOT_FOUND, format!("nodes use {SIGN_PATH} and {STREAM_PATH}"))),
    };
    outcome.unwrap_or_else(|Refused(status, error)| json(status, &serde_json::json!({ "error": error })))
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    // What is answered here is text and numbers, which JSON can always express.
    let text = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Either::Left(Full::new(text.into())));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn what_a_stranger_says_stays_within_its_line_of_the_log() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let writer = Mutex::new(File::create(log.path()).unwrap());
        let subscriber = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || {
            let peer = Peer { address: ([192, 0, 2, 1], 80).into(), identity: None };
            let _ = Refused::forbidden(&peer, "signing", "unknown `x\nINFO certificate signed \u{1b}[2J`");
        });
        let said = std::fs::read_to_string(log.path()).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("signing refused") && !said.contains('\u{1b}'), "{said}");
    }
}

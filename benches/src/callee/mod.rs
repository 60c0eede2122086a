//! The application behind whatever is measured: it answers everything with as many bytes as the load asks for.
//!
//! It runs on the thread of its callers, and costs as little as it can, so that the proxy between them is what is busy.

mod http1;
mod http2;
mod stream;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use outrigger_certs::{
    Authority,
    edge::{self, Certified},
    rustls::ServerConfig,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::load::{Load, Traffic};

/// How long the certificate is valid.
const LIFETIME: Duration = Duration::from_hours(24);

/// An application in the runtime of whoever starts it, on a port of 127.0.0.1 that the system chooses; it stops accepting
/// when dropped.
#[derive(Debug)]
pub struct Callee {
    address: SocketAddr,
    trust: Option<String>,
    seen: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Callee {
    /// Starts one for this load, without TLS: for a proxy, or for callers without TLS. What speaks HTTP/2 speaks HTTP/1.1 too, for
    /// proxies that do not speak HTTP/2 to applications.
    ///
    /// # Errors
    ///
    /// If no port can be bound.
    pub async fn start(load: &Load) -> io::Result<Self> {
        Self::start_on(load, None, None).await
    }

    /// Starts one that speaks TLS, for callers that speak to it directly; they need [`Callee::trust`].
    ///
    /// # Errors
    ///
    /// If no certificate can be made, or no port be bound.
    pub async fn start_with_tls(load: &Load) -> io::Result<Self> {
        let (config, trust) = tls().map_err(io::Error::other)?;
        Self::start_on(load, Some(config.into()), Some(trust)).await
    }

    /// One that lets no session be resumed.
    #[cfg(test)]
    pub(crate) async fn start_without_sessions(load: &Load) -> io::Result<Self> {
        let (config, trust) = tls().map_err(io::Error::other)?;
        let mut config = ServerConfig::clone(&config);
        config.send_tls13_tickets = 0;
        Self::start_on(load, Some(Arc::new(config).into()), Some(trust)).await
    }

    async fn start_on(load: &Load, tls: Option<TlsAcceptor>, trust: Option<String>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(AtomicU64::new(0));
        let application = Application::new(load, Arc::clone(&seen));
        let accepting = tokio::spawn(async move {
            loop {
                // A connection that failed before it was accepted is seen, and counted, by its caller.
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(accept(stream, tls.clone(), application.clone()));
            }
        });
        Ok(Self { address, trust, seen, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that its callers have to trust, in PEM, where it speaks TLS.
    pub fn trust(&self) -> Option<&str> {
        self.trust.as_deref()
    }

    /// How many requests, messages or (in bulk) MiB it has answered.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// TLS with a certificate of its own, and what has to be trusted for it.
fn tls() -> Result<(Arc<ServerConfig>, String), outrigger_certs::Error> {
    let authority = Authority::create("bench.local")?;
    let (issued, key) = authority.server_identity(&["bench.local".into()], LIFETIME, SystemTime::now())?;
    let certified = Certified::from_pem(issued.chain_pem.as_bytes(), key.expose().as_bytes())?;
    Ok((edge::server_config(&[Arc::new(certified)])?, authority.cert_pem()))
}

/// What each connection needs.
#[derive(Debug, Clone)]
struct Application {
    traffic: Traffic,
    http1: Arc<http1::Answers>,
    http2: Arc<http2::Answer>,
    stream: Arc<stream::Answer>,
    seen: Arc<AtomicU64>,
}

impl Application {
    fn new(load: &Load, seen: Arc<AtomicU64>) -> Self {
        Self {
            traffic: load.traffic,
            http1: Arc::new(http1::Answers::new(load.response_bytes)),
            http2: Arc::new(http2::Answer::new(load)),
            stream: Arc::new(stream::Answer::new(load)),
            seen,
        }
    }

    fn count(&self) {
        self.seen.fetch_add(1, Ordering::Relaxed);
    }
}

async fn accept(stream: TcpStream, tls: Option<TlsAcceptor>, application: Application) {
    let _ = stream.set_nodelay(true);
    // How a connection ends is seen by its caller.
    let Some(tls) = tls else {
        let speaks_http2 = application.traffic != Traffic::Http2 || begins_http2(&stream).await;
        return serve(stream, speaks_http2, application).await;
    };
    if let Ok(stream) = tls.accept(stream).await {
        let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        serve(stream, speaks_http2, application).await;
    }
}

/// Whether HTTP/2's preface begins with this (RFC 9113, section 3.4): no request of HTTP/1.1 begins with "PR" but those that we
/// do not send.
async fn begins_http2(stream: &TcpStream) -> bool {
    let mut first = [0; 2];
    stream.peek(&mut first).await.is_ok_and(|read| first.get(..read) == Some(b"PR"))
}

async fn serve<T>(stream: T, speaks_http2: bool, application: Application)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match application.traffic {
        Traffic::Http2 | Traffic::Grpc | Traffic::GrpcStream if speaks_http2 => {
            http2::serve(stream, application).await.ok()
        }
        Traffic::WebSocket => stream::websocket(stream, application).await.ok(),
        Traffic::Tcp => stream::messages(stream, application).await.ok(),
        Traffic::TcpBulk => stream::bulk(stream, application).await.ok(),
        Traffic::Http1 | Traffic::Http2 | Traffic::Grpc | Traffic::GrpcStream => {
            http1::serve(stream, application).await.ok()
        }
    };
}

//! Making a connection to an endpoint: TCP, then TLS where the endpoint asks for it, within one timeout.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use outrigger_certs::{Identity, mesh};
use outrigger_net::quiet::is_quiet;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service;

use crate::endpoint::{Endpoint, Security};
use crate::error::{Error, Reason};
use crate::memory::{Account, CONNECTION, Charge, Charged, Kind, TLS};
use crate::room::{Connections, Got, Place};

/// What is spoken on a connection to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, to an application that speaks it.
    Http2,
    /// HTTP/2 between two sidecars, with an application of HTTP/1.1 behind the second.
    Carried,
    /// Opaque bytes.
    Tcp,
}

impl Wire {
    /// What it is called when the mesh's TLS is agreed on: the callee's sidecar learns how its application wants to be
    /// spoken to.
    const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => mesh::HTTP1,
            Self::Http2 => mesh::HTTP2,
            Self::Carried => mesh::HTTP1_OVER_HTTP2,
            Self::Tcp => mesh::TCP,
        }
    }
}

/// A connection to an endpoint.
#[derive(Debug)]
pub enum Connection {
    /// To this proxy's own inbound listener, or to an application within it, without leaving the process.
    Own(DuplexStream),
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Own(stream) => stream.is_write_vectored(),
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_flush(cx),
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What a connection needs to be made.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where to.
    pub address: SocketAddr,
    /// TLS, and the name that is asked for.
    pub tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
}

/// This proxy's own inbound listeners: what is sent to them from within the process does not leave it.
pub trait OwnDoor: std::fmt::Debug {
    /// A connection to the listener that stands before `address`, or `None` if none does.
    fn open(&self, address: SocketAddr, wire: Wire) -> Option<DuplexStream>;

    /// Whether what is sent to `address` is for the application beside this proxy, whatever listens there.
    fn is_beside(&self, address: SocketAddr) -> bool;
}

/// How connections are made: what is the node's, and what is the backend's.
#[derive(Debug, Clone)]
pub struct Dialer {
    /// The node's identity, if it has one yet.
    pub identity: Option<Arc<Identity>>,
    /// The way to the application beside this proxy.
    pub own: Option<Rc<dyn OwnDoor>>,
    /// How long a connection may take to be made, TLS included.
    pub timeout: Duration,
    /// How much of that its TLS handshake may take.
    pub tls_timeout: Option<Duration>,
    /// How many connections the backend may have, where that is limited.
    pub room: Option<Arc<Connections>>,
    /// Is told of every connection.
    pub watch: Rc<dyn Watch>,
    /// Where what connections hold is counted.
    pub memory: Rc<Account>,
}

/// Is told of the connections to a backend's endpoints.
pub trait Watch: std::fmt::Debug {
    /// One was made, or could not be, for this reason.
    fn connected(&self, failed: Option<Reason>);
    /// One that was made has closed.
    fn closed(&self);
}

/// A connection that was made, and is watched until it is dropped.
#[derive(Debug)]
pub struct Opened {
    connection: Charged<Connection>,
    watch: Rc<dyn Watch>,
    /// What it takes by itself.
    _held: Charge,
    /// What it takes of the backend's connections.
    _place: Option<Place>,
}

impl Opened {
    /// Whether nothing has come on it that nobody has read yet, not even its end, as the kernel knows.
    pub(crate) fn is_quiet(&self) -> bool {
        match self.connection.get_ref() {
            Connection::Plain(stream) => is_quiet(stream),
            Connection::Tls(stream) => is_quiet(stream.get_ref().0),
            // Whoever asks it whether there is something to read knows as much.
            Connection::Own(_) => true,
        }
    }

    /// The connection of TCP, if there is nothing between.
    pub fn plain(&self) -> Option<&TcpStream> {
        match self.connection.get_ref() {
            Connection::Plain(stream) => Some(stream),
            Connection::Own(_) | Connection::Tls(_) => None,
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.watch.closed();
    }
}

impl Dialer {
    /// Room for one more connection, or what there is instead of it.
    ///
    /// # Errors
    /// Where the backend has as many as it may.
    pub(crate) async fn admit<T>(&self, instead: impl Future<Output = T>) -> Result<Got<T>, Error> {
        let Some(room) = &self.room else { return Ok(Got::Room(None)) };
        // Boxed, for every request would have the room for it.
        Box::pin(room.take(instead)).await
    }

    /// Tells the watch how an attempt to connect ended.
    pub(crate) fn note(
        &self,
        made: Result<Connection, Error>,
        place: Option<Place>,
    ) -> Result<Opened, Error> {
        self.watch.connected(made.as_ref().err().map(|error| error.reason));
        made.map(|connection| Opened {
            _held: self.memory.hold(Kind::Connections, self.confine(&connection)),
            connection: Charged::new(connection, &self.memory),
            watch: self.watch.clone(),
            _place: place,
        })
    }

    /// Has the kernel keep no more of a connection than the budget allows; how much it takes by itself, in bytes.
    fn confine(&self, connection: &Connection) -> usize {
        let (stream, bytes) = match connection {
            Connection::Own(_) => return CONNECTION,
            Connection::Plain(stream) => (stream, CONNECTION),
            Connection::Tls(stream) => (stream.get_ref().0, CONNECTION + TLS),
        };
        if let Some(budget) = self.memory.budget() {
            // What it does not take on it keeps as it was.
            let _ = outrigger_net::listen::confine(stream, budget.of_one_connection());
        }
        bytes
    }
}

impl AsyncRead for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(cx, buf)
    }
}

impl AsyncWrite for Opened {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

/// Connects to an endpoint, to speak `wire` there.
///
/// # Errors
/// The request that wants the connection was not sent: [`Error::reached`] is false.
pub async fn connect(endpoint: &Endpoint, wire: Wire, dialer: &Dialer) -> Result<Opened, Error> {
    let place = match dialer.admit(std::future::pending::<Infallible>()).await? {
        Got::Room(place) => place,
        Got::Instead(never) => match never {},
    };
    dialer.note(reach(endpoint, wire, dialer).await, place)
}

async fn reach(endpoint: &Endpoint, wire: Wire, dialer: &Dialer) -> Result<Connection, Error> {
    if let Some(own) = own(endpoint, wire, dialer) {
        return Ok(own);
    }
    to_target(target(endpoint, wire, dialer.identity.as_deref())?, dialer).await
}

/// The connection to an endpoint that is within this process, or this node's own application, if one of its listeners
/// stands before it. An endpoint with this node's identity need not be: others of the same service have it too.
pub(crate) fn own(endpoint: &Endpoint, wire: Wire, dialer: &Dialer) -> Option<Connection> {
    if let Security::Inside(application) = &endpoint.security {
        return Some(Connection::Own(application.open()));
    }
    let door = dialer.own.as_ref()?;
    let own = match &endpoint.security {
        Security::Own => true,
        Security::Mesh { expected } => {
            dialer.identity.as_ref().is_some_and(|identity| identity.id() == expected)
                && door.is_beside(endpoint.address)
        }
        Security::Plain | Security::Tls(_) | Security::Inside(_) => false,
    };
    if !own {
        return None;
    }
    door.open(endpoint.address, wire).map(Connection::Own)
}

/// Works out how `endpoint` is to be reached. For the mesh a TLS configuration is made, which takes some microseconds:
/// a pool keeps it.
pub(crate) fn target(endpoint: &Endpoint, wire: Wire, identity: Option<&Identity>) -> Result<Target, Error> {
    let address = endpoint.address;
    let tls = match &endpoint.security {
        Security::Plain | Security::Own | Security::Inside(_) => None,
        Security::Tls(origin) => {
            let config = if matches!(wire, Wire::Http2) { &origin.http2 } else { &origin.http1 };
            Some((origin.name.clone(), config.clone()))
        }
        Security::Mesh { expected } => {
            let Some(identity) = identity else {
                return Err(Error::unsent(
                    Reason::TlsCertificateError,
                    format!("{address} expects mutual TLS, and this node has no identity yet"),
                ));
            };
            let config = mesh::client_config(identity, expected, &[wire.alpn()]);
            Some((mesh::server_name(), config))
        }
    };
    Ok(Target { address, tls })
}

/// Connects to a target within the dialer's timeouts.
pub(crate) async fn to_target(target: Target, dialer: &Dialer) -> Result<Connection, Error> {
    let (address, timeout) = (target.address, dialer.timeout);
    let secure = Secure { inner: Dial, timeout: dialer.tls_timeout };
    let mut way = tower::timeout::Timeout::new(secure, timeout);
    way.call(target).await.map_err(|error| match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(_elapsed) => Error::unsent(
            Reason::ConnectionTimeout,
            format!("no connection to {address} within the connect timeout of {timeout:?}"),
        ),
    })
}

/// Connections are rare beside requests: here, and only here, futures are boxed.
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, Box<dyn std::error::Error + Send + Sync>>>>>;

/// Opens a TCP connection.
#[derive(Debug, Clone, Copy)]
struct Dial;

impl Service<SocketAddr> for Dial {
    type Response = TcpStream;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Connecting<TcpStream>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, address: SocketAddr) -> Self::Future {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await.map_err(|e| refused(address, &e))?;
            outrigger_net::listen::configure(&stream).map_err(|e| refused(address, &e))?;
            Ok(stream)
        })
    }
}

fn refused(address: SocketAddr, error: &io::Error) -> Error {
    let reason = match error.kind() {
        _ if outrigger_net::listen::is_exhausted(error) => Reason::ProxyInternalError,
        io::ErrorKind::TimedOut => Reason::ConnectionTimeout,
        _ => Reason::ConnectionRefused,
    };
    Error::unsent(reason, format!("{address}: {error}"))
}

/// Adds TLS where the target asks for it.
#[derive(Debug, Clone)]
struct Secure<S> {
    inner: S,
    /// For the handshake.
    timeout: Option<Duration>,
}

impl<S> Service<Target> for Secure<S>
where
    S: Service<SocketAddr, Response = TcpStream, Error = Box<dyn std::error::Error + Send + Sync>>,
    S::Future: 'static,
{
    type Response = Connection;
    type Error = S::Error;
    type Future = Connecting<Connection>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, target: Target) -> Self::Future {
        let dialed = self.inner.call(target.address);
        let timeout = self.timeout;
        Box::pin(async move {
            let stream = dialed.await?;
            let Some((name, config)) = target.tls else {
                return Ok(Connection::Plain(stream));
            };
            let wanted = config.alpn_protocols.clone();
            let shaking = TlsConnector::from(config).connect(name, stream);
            let shaken = match timeout {
                Some(limit) => {
                    tokio::time::timeout(limit, shaking).await.map_err(|_| late(target.address, limit))?
                }
                None => shaking.await,
            };
            let stream = shaken.map_err(|error| refused_tls(target.address, &error))?;
            agreed(target.address, &wanted, stream.get_ref().1.alpn_protocol())?;
            Ok(Connection::Tls(Box::new(stream)))
        })
    }
}

/// HTTP/2 and the mesh's own protocols must be agreed on; HTTP/1.1 needs no word for it.
fn agreed(address: SocketAddr, wanted: &[Vec<u8>], got: Option<&[u8]>) -> Result<(), Error> {
    let spoken = |w: &Vec<u8>| got == Some(w.as_slice()) || (got.is_none() && w == b"http/1.1");
    if wanted.is_empty() || wanted.iter().any(spoken) {
        return Ok(());
    }
    let names: Vec<_> = wanted.iter().map(|w| String::from_utf8_lossy(w)).collect();
    Err(Error::unsent(
        Reason::TlsProtocolError,
        format!("{address} does not speak {} (ALPN)", names.join(" or ")),
    ))
}

fn late(address: SocketAddr, limit: Duration) -> Error {
    let details = format!("no TLS with {address} within the tlsHandshake timeout of {limit:?}");
    Error::unsent(Reason::ConnectionTimeout, details)
}

fn refused_tls(address: SocketAddr, error: &io::Error) -> Error {
    if let Some(wrong) = mesh::wrong_identity(error) {
        return Error::unsent(Reason::TlsCertificateError, format!("{address}: {wrong}"));
    }
    let reason = match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Reason::TlsCertificateError
        }
        Some(rustls::Error::AlertReceived(alert)) if refuses_certificate(*alert) => {
            Reason::TlsCertificateError
        }
        Some(_) => Reason::TlsProtocolError,
        None => Reason::ConnectionTerminated,
    };
    Error::unsent(reason, format!("TLS with {address}: {error}"))
}

const fn refuses_certificate(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::CertificateRequired
            | Alert::AccessDenied
    )
}

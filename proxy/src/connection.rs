//! One accepted connection: what is known of it, and the way to whichever direction handles it.

use std::cell::{Cell, OnceCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::HeaderValue;
use outrigger_balance::Place;
use outrigger_config::Name;
use outrigger_config::SpiffeId;
use outrigger_config::listener::{Direction, Protocol};
use outrigger_http::memory::Charged;
use outrigger_http::serve::{Drain, Settings, TimedOut, UNSEEN_RESETS_OF_A_SIDECAR, Version};
use outrigger_http::{Error, Reason};
use outrigger_net::detect::{self, Detected};
use outrigger_net::hello::{self, Hello};
use outrigger_telemetry::CallerTimeout;
use rustls::ServerConfig;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::local::Local;
use crate::request::Serving;
use crate::state::LiveListener;
use crate::worker::{Open, Side, Worker};
use crate::{edge, inbound, outbound, tcp};

/// How long a caller may take to show what it speaks, where it could also be waiting for the application to speak
/// first: as long as such an application's first word is held back.
pub(crate) const DETECT_TIMEOUT: Duration = Duration::from_millis(100);
/// How long a caller may take to show what it speaks, where there is no other way to go.
pub(crate) const FIRST_BYTE_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a caller that has not shown what it speaks still may once its listener ends: its first bytes may be on
/// their way.
const LAST_WORD: Duration = Duration::from_millis(250);

/// The part of a connection's greatest age that is left to chance, so that those opened together do not end together.
const AGE_JITTER: f64 = 0.1;

/// What is known of a connection. Requests on it read this, and add nothing to it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) listener: Name,
    pub(crate) direction: Direction,
    /// Which of the worker's connections it is one of.
    pub(crate) side: Side,
    /// What its caller may do.
    pub(crate) settings: Arc<Settings>,
    /// Where the caller is.
    pub(crate) peer: SocketAddr,
    /// Where the caller meant to connect to, if its traffic was captured.
    pub(crate) original: Option<SocketAddr>,
    /// Who the caller has proven to be.
    pub(crate) caller: Option<SpiffeId>,
    /// Whether it came over TLS.
    pub(crate) secure: bool,
    /// What its TLS handshake began with, where that decides where it goes.
    pub(crate) hello: Option<Box<Hello>>,
    /// What the caller's sidecar says that the application is to be spoken to in.
    pub(crate) application: Option<Version>,
    pub(crate) drain: Rc<Drain>,
    /// How long it may be silent both ways where it is not HTTP.
    pub(crate) tcp_idle: Option<Duration>,
    /// Whether it is one more than its listener may have.
    over: bool,
    /// Where the listener stands in the table of a generation: looked up once for each table, not for each request.
    at: Cell<(u64, usize)>,
    /// The caller's address as text, once it is wanted.
    text: OnceCell<HeaderValue>,
    open: Open,
}

impl Connection {
    pub(crate) fn new(
        worker: &Rc<Worker>,
        live: &LiveListener,
        peer: SocketAddr,
        open: Open,
        drain: &Rc<Drain>,
    ) -> Self {
        Self {
            worker: worker.clone(),
            listener: live.name.clone(),
            direction: live.direction,
            side: open.side(),
            settings: live.settings.clone(),
            peer,
            original: None,
            caller: None,
            secure: false,
            hello: None,
            application: None,
            drain: drain.clone(),
            tcp_idle: live.tcp_idle,
            over: false,
            at: Cell::new((u64::MAX, 0)),
            text: OnceCell::new(),
            open,
        }
    }

    /// Has everything on it refused, because its listener has as many connections as it may. It ends soon.
    fn turn_away(&mut self) {
        let ending = Drain::counting(self.worker.memory.clone());
        ending.begin();
        self.drain = Rc::new(ending);
        self.over = true;
    }

    /// Notes that it comes over TLS.
    pub(crate) fn secured(&mut self) {
        self.secure = true;
        self.open.secured();
    }

    /// Counts it among those that a timeout ended.
    pub(crate) fn timed_out(&self, timeout: CallerTimeout) {
        self.open.timed_out(timeout);
    }

    /// Why it is turned away, if it is.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let refuse = || {
            let details = format!("listener {} has as many connections as it may", self.listener);
            Error::unsent(Reason::ConnectionLimitReached, details)
        };
        self.over.then(refuse)
    }

    /// A place for a request, where its listener limits them.
    ///
    /// # Errors
    /// None is free. That is 503 and not 429: they are limited for all callers together, and it is not this one that
    /// has sent too many.
    pub(crate) fn enter(&self, local: &Local) -> Result<Option<Place>, Error> {
        let live = self.at(local).and_then(|at| local.live.listeners.get(at));
        let Some(limit) = live.and_then(|live| live.requests.as_ref()) else { return Ok(None) };
        limit.try_take().map(Some).ok_or_else(|| {
            let (listener, most) = (&self.listener, limit.size());
            let details = format!("listener {listener} has as many requests in flight as it may, {most}");
            Error::unsent(Reason::HttpRequestLimitReached, details)
        })
    }

    /// The caller's address as a field's value.
    pub(crate) fn peer_text(&self) -> &HeaderValue {
        self.text.get_or_init(|| outrigger_http::forwarded::address(self.peer.ip()))
    }

    /// Where its listener stands in a table; `None` once the listener is gone from it.
    pub(crate) fn at(&self, local: &Local) -> Option<usize> {
        let live = &local.live;
        let (generation, at) = self.at.get();
        if generation == live.generation {
            return Some(at);
        }
        let at = live.listeners.iter().position(|listener| listener.name == self.listener)?;
        self.at.set((live.generation, at));
        Some(at)
    }

    /// Whether the caller itself speaks TLS. What sidecars have between them is not the caller's.
    pub(crate) fn is_https(&self) -> bool {
        self.secure && self.direction == Direction::Edge
    }

    /// The port that the caller connected to: where it meant to, if its traffic was captured.
    pub(crate) fn port(&self, local: &Local) -> Option<u16> {
        let listener =
            || local.live.listeners.get(self.at(local)?)?.sockets.as_ref().map(|it| it.local.port());
        self.original.map(|original| original.port()).or_else(listener)
    }

    /// Waits for what a caller says before anything is under way; a listener that ends does not wait for it.
    pub(crate) async fn opening<T>(&self, said: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let ending = async {
            self.drain.begun().await;
            tokio::time::sleep(LAST_WORD).await;
        };
        tokio::select! {
            biased;
            said = said => said,
            () = ending => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Looks at how the TLS of a caller begins, without taking it; false if it is none, or the caller has gone.
    pub(crate) async fn hear(&mut self, stream: &TcpStream) -> bool {
        let hello = self.opening(hello::peek(stream, FIRST_BYTE_TIMEOUT)).await;
        self.hello = hello.ok().flatten().map(Box::new);
        if self.hello.is_none() {
            debug!(peer = %self.peer, listener = %self.listener, "the caller did not begin with a TLS handshake");
        }
        self.hello.is_some()
    }

    /// Serves HTTP on it to its end.
    pub(crate) async fn serve_http<IO>(self, io: IO, version: Version)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let refusal = self.refusal();
        self.serve_with(io, version, refusal).await;
    }

    /// The same, where every request gets this refusal, if there is one.
    pub(crate) async fn serve_with<IO>(self, io: IO, version: Version, refusal: Option<Error>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let io = Charged::new(io, &self.worker.memory);
        let (mut settings, drain) = (self.settings.clone(), self.drain.clone());
        if self.application.is_some() && version != Version::Http1 {
            let settings = Arc::make_mut(&mut settings);
            (settings.unseen_resets, settings.many_callers) = (UNSEEN_RESETS_OF_A_SIDECAR, true);
            // It closes what rests itself. To be told GOAWAY would say that this sidecar is leaving.
            settings.idle_timeout = None;
        }
        if let Some(age) = settings.max_age {
            // Another sidecar sees to it itself, with what its own backend says.
            let ours = self.application.is_none() && self.caller.is_none();
            let part = 1.0 - AGE_JITTER * self.worker.random.borrow_mut().f64();
            Arc::make_mut(&mut settings).max_age = ours.then(|| age.mul_f64(part));
        }
        let connection = Rc::new(self);
        let serving = Serving { connection: connection.clone(), refusal };
        let served = outrigger_http::serve::connection(io, version, serving, settings, drain).await;
        let Self { peer, listener, .. } = &*connection;
        match served {
            Ok(None) => {}
            Ok(Some(timeout)) => connection.timed_out(match timeout {
                TimedOut::Header => CallerTimeout::Header,
                TimedOut::Idle => CallerTimeout::Idle,
                TimedOut::Age => CallerTimeout::MaxConnectionAge,
                TimedOut::Silence => CallerTimeout::Ping,
            }),
            Err(error) => debug!(%peer, %listener, %error, "connection from the caller ended"),
        }
    }
}

/// Serves an accepted connection to its end.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    open: Open,
    listener: Name,
    drain: Rc<Drain>,
) {
    // Of the table only the listener is kept: the connection may outlive many tables.
    let found =
        worker.local().and_then(|local| local.live.listeners.iter().find(|l| l.name == listener).cloned());
    let Some(live) = found else { return };
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let mut connection = Connection::new(&worker, &live, peer, open, &drain);
    connection.open.show(&live);
    if live.is_over() {
        connection.turn_away();
    }
    match live.direction {
        Direction::Edge => edge::serve(connection, stream, &live).await,
        Direction::Inbound => inbound::serve(connection, stream, &live).await,
        Direction::Outbound => outbound::serve(connection, stream, &live).await,
    }
}

/// Terminates TLS on a connection within a time, if there is a limit; `None`, having said why, if that fails.
pub(crate) async fn terminate(
    connection: &Connection,
    stream: TcpStream,
    config: Arc<ServerConfig>,
    limit: Option<Duration>,
) -> Option<TlsStream<TcpStream>> {
    let handshake = connection.opening(TlsAcceptor::from(config).accept(stream));
    let peer = connection.peer;
    let listener = &connection.listener;
    let limit = limit.unwrap_or(Duration::MAX);
    match tokio::time::timeout(limit, handshake).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            debug!(%peer, %listener, %error, "TLS with the caller failed");
            None
        }
        Err(_) => {
            debug!(%peer, %listener, "TLS with the caller took longer than {limit:?}");
            connection.timed_out(CallerTimeout::TlsHandshake);
            None
        }
    }
}

/// The version of HTTP that was detected; `None` if it is not HTTP.
pub(crate) const fn http_version(detected: Detected) -> Option<Version> {
    match detected {
        Detected::Http1 => Some(Version::Http1),
        Detected::Http2 => Some(Version::Http2),
        Detected::Tls | Detected::Opaque | Detected::Silent | Detected::Closed => None,
    }
}

/// What a caller speaks, by its first bytes. `None` once there is nothing left to do: it left, or it said nothing and
/// was relayed to an application that speaks first.
pub(crate) async fn detect(
    connection: Connection,
    stream: TcpStream,
    live: &LiveListener,
) -> Option<(Connection, TcpStream, Detected)> {
    let patience = patience(live, connection.original);
    let brief = patience == DETECT_TIMEOUT;
    match connection.opening(detect::tcp(&stream, patience)).await.ok()? {
        // Boxed, for it is rare and long, and every connection would have the room for it.
        Detected::Silent if brief => Box::pin(tcp::relay_silent(connection, stream)).await,
        // There is nobody to pass it to.
        Detected::Silent if live.strict || live.protocol.is_none() => {
            connection.timed_out(CallerTimeout::FirstBytes);
            Some((connection, stream, Detected::Silent))
        }
        // Elsewhere the application hears that the caller has nothing to say, and may yet say something itself.
        Detected::Closed if !brief => None,
        detected => Some((connection, stream, detected)),
    }
}

/// How long to wait for a caller's first bytes: briefly where opaque bytes have somewhere to go.
pub(crate) fn patience(live: &LiveListener, original: Option<SocketAddr>) -> Duration {
    let http = matches!(live.protocol, Some(Protocol::Http | Protocol::Https));
    let opaque = (original.is_some() || live.opaque) && !http && !live.strict;
    if opaque { DETECT_TIMEOUT } else { FIRST_BYTE_TIMEOUT }
}

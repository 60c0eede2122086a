//! Connections from one worker to one endpoint, kept open for the next request. Nothing here is shared between
//! threads, and nothing waits: a request takes a connection that is ready, or makes one.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use outrigger_balance::InFlight;
use outrigger_certs::Identity;
use tracing::debug;

use crate::Local;
use crate::body::RequestBody;
use crate::connect::{Connection, Dialer, Opened, Target, Wire, own, target, to_target};
use crate::endpoint::Endpoint;
use crate::error::{Error, Reason, chain};
use crate::filter::{to_http1, to_http2};
use crate::h1::{self, Limits, Unsent};
use crate::message::{Answered, Outgoing};

/// How long a connection is kept that nobody uses. Shorter than the 60 s and 75 s after which servers commonly close.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// How many unused connections are kept per worker and endpoint.
const MAX_IDLE: usize = 256;
/// How many requests share an HTTP/2 connection before another is made.
const STREAMS_PER_CONNECTION: u32 = 100;

/// The connections of one worker to one endpoint.
#[derive(Debug)]
pub struct Pool {
    endpoint: Arc<Endpoint>,
    idle: RefCell<Vec<Idle>>,
    http2: Shared,
    carried: Shared,
    /// How the endpoint is reached, per kind of wire, with the identity that was used to find out.
    targets: RefCell<Targets>,
}

#[derive(Debug, Default)]
struct Targets {
    identity: Option<Arc<Identity>>,
    known: Vec<(Wire, Target)>,
}

#[derive(Debug)]
struct Idle {
    sender: Http1,
    since: Instant,
}

/// Connections that several requests share.
#[derive(Debug, Default)]
struct Shared {
    open: RefCell<Vec<Multiplexed>>,
    /// Held while a connection is made, so that a burst of requests makes one.
    making: tokio::sync::Mutex<()>,
    /// How often none could be made, and why not, the last time.
    failed: RefCell<(u64, Option<Error>)>,
}

/// A connection of HTTP/1.
type Http1 = h1::Sender<Opened>;

/// A connection of HTTP/2, to be polled for as long as it lasts.
type Http2 = http2::Connection<TokioIo<Opened>, RequestBody, Local>;

#[derive(Debug, Clone)]
struct Multiplexed {
    sender: http2::SendRequest<RequestBody>,
    /// Asked how many requests the endpoint takes at a time, which it may change. `None` once it has ended.
    connection: Rc<RefCell<Option<Http2>>>,
    streams: Rc<Cell<u32>>,
    /// When it was last seen to be in use.
    used: Rc<Cell<Instant>>,
}

/// A connection in use by one request.
#[derive(Debug)]
pub struct Lease {
    pool: Rc<Pool>,
    held: Held,
    in_flight: Option<InFlight>,
}

#[derive(Debug)]
enum Held {
    Http1(Http1),
    Http2(Rc<Cell<u32>>),
    Nothing,
}

impl Lease {
    /// Gives the connection back: the response was read to its end.
    pub fn give_back(mut self, now: Instant) {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Http1(sender) => self.pool.keep(sender, now),
            // Its place is free again when the lease is dropped.
            held => self.held = held,
        }
    }

    /// Ties the endpoint's load to the lease: it ends when the response does.
    pub(crate) fn with_load(mut self, in_flight: InFlight) -> Self {
        self.in_flight = Some(in_flight);
        self
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match &self.held {
            Held::Http2(streams) => streams.set(streams.get().saturating_sub(1)),
            // Its response was not read to its end.
            Held::Http1(sender) => sender.close(),
            Held::Nothing => {}
        }
    }
}

/// An attempt that got no response.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: Error,
    /// How far it came.
    pub phase: Phase,
}

/// A request on its way: taken by the attempt that sends it, and put back if not a byte of it was sent.
pub type Slot = Option<Outgoing>;

impl Failed {
    /// A defect of ours: there was no request to send.
    fn nothing() -> Self {
        let error = Error::unsent(Reason::ProxyInternalError, "the request was sent already");
        Self { error, phase: Phase::New }
    }
}

/// How far an attempt came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No connection was made.
    Connect,
    /// On a new connection.
    New,
    /// On one that was used before: its end may have crossed the request on the way.
    Reused,
}

impl Pool {
    /// A pool without connections.
    pub fn new(endpoint: Arc<Endpoint>) -> Rc<Self> {
        Rc::new(Self {
            endpoint,
            idle: RefCell::default(),
            http2: Shared::default(),
            carried: Shared::default(),
            targets: RefCell::default(),
        })
    }

    /// Where its connections go.
    pub const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Sends the request in `slot`, and waits for the response's head. With `fresh`, HTTP/1.1 takes a connection of its
    /// own: after one kept connection had gone, the next may have gone with it.
    ///
    /// # Errors
    /// See [`Failed`]. Where the request is in its slot again, not a byte of it was sent.
    pub async fn send(
        self: &Rc<Self>,
        wire: Wire,
        slot: &mut Slot,
        dialer: &Dialer,
        limits: Limits,
        fresh: bool,
    ) -> Result<(Answered, Lease), Failed> {
        match wire {
            Wire::Http1 | Wire::Tcp => self.send_http1(slot, dialer, limits, fresh).await,
            Wire::Http2 => self.send_http2(wire, &self.http2, slot, dialer).await,
            Wire::Carried => self.send_http2(wire, &self.carried, slot, dialer).await,
        }
    }

    async fn send_http1(
        self: &Rc<Self>,
        slot: &mut Slot,
        dialer: &Dialer,
        limits: Limits,
        fresh: bool,
    ) -> Result<(Answered, Lease), Failed> {
        let mut phase = Phase::Reused;
        loop {
            let sender = if !fresh && let Some(sender) = self.take_idle() {
                sender
            } else {
                phase = Phase::New;
                let made = self.connect_http1(dialer).await;
                made.map_err(|error| Failed { error, phase: Phase::Connect })?
            };
            match sender.send(slot, limits).await {
                Ok(answered) => return Ok((answered, self.lease(Held::Http1(sender)))),
                Err((unsent, written)) => {
                    // If the connection ended before the request was put on it, take another, or make one.
                    if slot.is_none() || phase == Phase::New {
                        return Err(Failed { error: self.explain(unsent, limits, written), phase });
                    }
                }
            }
        }
    }

    async fn send_http2(
        self: &Rc<Self>,
        wire: Wire,
        shared: &Shared,
        slot: &mut Slot,
        dialer: &Dialer,
    ) -> Result<(Answered, Lease), Failed> {
        let found = self.multiplexed(wire, shared, dialer).await;
        let (mut connection, phase) = found.map_err(|error| Failed { error, phase: Phase::Connect })?;
        let Some(Outgoing { request, spelling, interim }) = slot.take() else {
            return Err(Failed::nothing());
        };
        connection.streams.set(connection.streams.get() + 1);
        let lease = self.lease(Held::Http2(connection.streams.clone()));
        match connection.sender.try_send_request(into_http2(request)).await {
            Ok(response) => Ok((received(response), lease)),
            Err(mut failed) => {
                let again = failed.take_message().map(into_http1);
                *slot = again.map(|request| Outgoing { request, spelling, interim });
                let error = self.describe(&failed.into_error(), slot.is_none());
                Err(Failed { error, phase })
            }
        }
    }

    fn lease(self: &Rc<Self>, held: Held) -> Lease {
        Lease { pool: self.clone(), held, in_flight: None }
    }

    /// The connection used last that is ready. What closed meanwhile is let go.
    fn take_idle(&self) -> Option<Http1> {
        let mut idle = self.idle.borrow_mut();
        std::iter::from_fn(|| idle.pop()).map(|idle| idle.sender).find(Http1::is_usable)
    }

    fn keep(&self, sender: Http1, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE && sender.is_usable() {
            idle.push(Idle { sender, since: now });
        }
    }

    /// Closes what nobody has used for [`IDLE_TIMEOUT`]. Called now and then by the worker.
    pub fn close_idle(&self, now: Instant) {
        self.idle
            .borrow_mut()
            .retain(|idle| now.duration_since(idle.since) < IDLE_TIMEOUT && idle.sender.is_usable());
        for shared in [&self.http2, &self.carried] {
            shared.open.borrow_mut().retain(|connection| {
                if connection.streams.get() > 0 {
                    connection.used.set(now);
                }
                let idle = now.saturating_duration_since(connection.used.get());
                !connection.sender.is_closed() && idle < IDLE_TIMEOUT
            });
        }
    }

    /// Whether no connection is open.
    pub fn is_empty(&self) -> bool {
        let none = |shared: &Shared| shared.open.borrow().is_empty();
        self.idle.borrow().is_empty() && none(&self.http2) && none(&self.carried)
    }

    async fn connect(&self, wire: Wire, dialer: &Dialer) -> Result<Opened, Error> {
        dialer.note(self.reach(wire, dialer).await)
    }

    async fn reach(&self, wire: Wire, dialer: &Dialer) -> Result<Connection, Error> {
        if let Some(own) = own(&self.endpoint, wire, dialer) {
            return Ok(own);
        }
        let target = self.target(wire, dialer)?;
        to_target(target, dialer.timeout).await
    }

    fn target(&self, wire: Wire, dialer: &Dialer) -> Result<Target, Error> {
        let mut targets = self.targets.borrow_mut();
        let same = match (&targets.identity, &dialer.identity) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        if !same {
            *targets = Targets { identity: dialer.identity.clone(), known: Vec::new() };
        }
        if let Some((_, target)) = targets.known.iter().find(|(known, _)| *known == wire) {
            return Ok(target.clone());
        }
        let target = target(&self.endpoint, wire, dialer.identity.as_deref())?;
        targets.known.push((wire, target.clone()));
        Ok(target)
    }

    async fn connect_http1(&self, dialer: &Dialer) -> Result<Http1, Error> {
        let opened = self.connect(Wire::Http1, dialer).await?;
        Ok(h1::Sender::new(opened, self.endpoint.address.to_string().into()))
    }

    async fn multiplexed(
        &self,
        wire: Wire,
        shared: &Shared,
        dialer: &Dialer,
    ) -> Result<(Multiplexed, Phase), Error> {
        if let Some(open) = shared.available() {
            return Ok((open, Phase::Reused));
        }
        let failures = shared.failed.borrow().0;
        let _making = shared.making.lock().await;
        if let Some(open) = shared.available() {
            return Ok((open, Phase::New));
        }
        // Who has waited for a connection that could not be made does not wait for another, each after the one before.
        if let (times, Some(error)) = &*shared.failed.borrow()
            && *times != failures
        {
            return Err(error.clone());
        }
        let made = self.connect_http2(wire, dialer).await;
        match &made {
            Ok(connection) => shared.open.borrow_mut().push(connection.clone()),
            Err(error) => {
                let mut failed = shared.failed.borrow_mut();
                *failed = (failed.0 + 1, Some(error.clone()));
            }
        }
        made.map(|connection| (connection, Phase::New))
    }

    async fn connect_http2(&self, wire: Wire, dialer: &Dialer) -> Result<Multiplexed, Error> {
        let opened = self.connect(wire, dialer).await?;
        let address = self.endpoint.address;
        let handshake = http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .max_header_list_size(64 * 1024)
            .keep_alive_interval(Some(Duration::from_secs(10)))
            .keep_alive_timeout(Duration::from_secs(10))
            .handshake::<_, RequestBody>(TokioIo::new(opened));
        let (sender, connection) = handshake.await.map_err(|error| self.describe(&error, false))?;
        let connection = Rc::new(RefCell::new(Some(connection)));
        let driven = connection.clone();
        tokio::task::spawn_local(async move {
            let ended = poll_fn(|cx| match &mut *driven.borrow_mut() {
                Some(connection) => Pin::new(connection).poll(cx),
                None => Poll::Ready(Ok(())),
            });
            if let Err(error) = ended.await {
                debug!(%address, error = chain(&error), "connection to the endpoint ended");
            }
            driven.take();
        });
        let used = Rc::new(Cell::new(Instant::now()));
        Ok(Multiplexed { sender, connection, streams: Rc::default(), used })
    }

    /// Why a request of HTTP/1 got no response.
    fn explain(&self, unsent: Unsent, limits: Limits, written: bool) -> Error {
        let address = self.endpoint.address;
        match unsent {
            Unsent::Wrong(wrong) => wrong.of_response(&limits, &address.to_string()),
            Unsent::Broke(error) if written => {
                Error::sent(Reason::ConnectionTerminated, format!("{address}: {error}"))
            }
            Unsent::Broke(error) => {
                Error::unsent(Reason::ConnectionTerminated, format!("{address}: {error}"))
            }
            Unsent::Body => {
                Error::sent(Reason::HttpRequestError, "the request's body is not as long as it says")
            }
        }
    }

    /// What hyper says, as an error of ours.
    fn describe(&self, error: &hyper::Error, sent: bool) -> Error {
        let text = format!("{}: {}", self.endpoint.address, chain(error));
        let h2 = h2_error(error);
        // A stream that is reset is an answer, if a poor one; its connection goes on.
        let answered = h2.is_some_and(|h2| h2.is_reset() && h2.is_remote());
        let reason = match error {
            _ if error.is_parse() || error.is_parse_too_large() || answered => Reason::HttpResponseIncomplete,
            _ => Reason::ConnectionTerminated,
        };
        let refused = h2.is_some_and(unprocessed);
        if sent && !refused { Error::sent(reason, text) } else { Error::unsent(reason, text) }
    }
}

impl Shared {
    /// An open connection with room.
    fn available(&self) -> Option<Multiplexed> {
        let mut open = self.open.borrow_mut();
        open.retain(|connection| !connection.sender.is_closed());
        open.iter().find(|connection| connection.has_room()).cloned()
    }
}

impl Multiplexed {
    /// Whether a request sent on it goes out at once. One beyond the endpoint's own limit would wait for another to end.
    fn has_room(&self) -> bool {
        let streams = self.streams.get();
        streams < STREAMS_PER_CONNECTION
            && self.sender.is_ready()
            && self
                .connection
                .borrow()
                .as_ref()
                .is_some_and(|c| (streams as usize) < c.current_max_send_streams())
    }
}

/// Whether HTTP/2 says that the application has not seen the request: its stream was refused, or lies beyond the
/// last one that the endpoint takes (RFC 9113, sections 8.7 and 6.8).
fn unprocessed(error: &h2::Error) -> bool {
    let graceful = error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR);
    graceful || (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// What HTTP/2 says, beneath what hyper says.
fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    std::iter::successors(std::error::Error::source(error), |cause| cause.source())
        .find_map(|cause| cause.downcast_ref())
}

fn received(response: Response<hyper::body::Incoming>) -> Answered {
    Answered { response: response.map(Into::into), spelling: None, upgrade: None }
}

fn into_http2(request: Request<RequestBody>) -> Request<RequestBody> {
    let (mut parts, body) = request.into_parts();
    to_http2(&mut parts.uri, &mut parts.version, &mut parts.headers);
    Request::from_parts(parts, body)
}

fn into_http1(request: Request<RequestBody>) -> Request<RequestBody> {
    let (mut parts, body) = request.into_parts();
    to_http1(&mut parts.uri, &mut parts.version, &mut parts.headers);
    Request::from_parts(parts, body)
}

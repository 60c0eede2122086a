//! Connections from one worker to one endpoint, kept open for the next request. Nothing here is shared between
//! threads, and nothing waits: a request takes a connection that is ready, or makes one.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::UPGRADE;
use http::uri::Scheme;
use outrigger_balance::InFlight;
use outrigger_certs::Identity;
use tracing::debug;

use crate::body::RequestBody;
use crate::connect::{Connection, Dialer, Opened, Target, Wire, own, target, to_target};
use crate::endpoint::{Endpoint, Security};
use crate::error::{Error, Reason};
use crate::h1::{self, Limits, Unsent};
use crate::h2;
use crate::message::{Answered, Outgoing};
use crate::verdict;

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
    /// Whether a connection was made that may not lead to a sidecar, although the endpoint is of the mesh.
    bare: Cell<bool>,
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
    open: RefCell<Vec<Rc<Http2>>>,
    /// Held while a connection is made, so that a burst of requests makes one.
    making: tokio::sync::Mutex<()>,
    /// How often none could be made, and why not, the last time.
    failed: RefCell<(u64, Option<Error>)>,
}

/// A connection of HTTP/1.
type Http1 = h1::Sender<Opened>;

/// A connection of HTTP/2.
type Http2 = h2::client::Connection;

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
    /// Its place is free again when the lease is dropped.
    Http2 {
        _place: h2::client::UnderWay,
    },
    Nothing,
}

impl Lease {
    /// Gives the connection back: the response was read to its end.
    pub fn give_back(mut self, now: Instant) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.success();
        }
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Http1(sender) => self.pool.keep(sender, now),
            held => self.held = held,
        }
    }

    /// The response broke off.
    pub(crate) fn broke(mut self, now: Instant) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.failure(now);
        }
    }

    /// The response ends with these trailers.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(in_flight) = &mut self.in_flight {
            verdict::ended(in_flight, trailers);
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
        // Its response was not read to its end.
        if let Held::Http1(sender) = &self.held {
            sender.close();
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

/// A request on its way: taken by the attempt that sends it, and put back if that can be had back.
pub type Slot = Option<Outgoing>;

/// How far an attempt came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No connection was made.
    Connect,
    /// On a new connection.
    New,
    /// On one that has answered before: its end may have crossed the request on the way.
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
            bare: Cell::new(false),
        })
    }

    /// Whether a sidecar with the identity expected is all that can answer: by mutual TLS, or within this process, through its
    /// own listener. Where none stands before this node's own application, that answers itself.
    pub(crate) fn is_of_sidecars(&self) -> bool {
        matches!(self.endpoint.security, Security::Mesh { .. } | Security::Own) && !self.bare.get()
    }

    /// Where its connections go.
    pub const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Sends the request in `slot`, and waits for the response's head. With `fresh`, HTTP/1.1 takes a connection of its
    /// own: after one kept connection had gone, the next may have gone with it.
    ///
    /// # Errors
    /// See [`Failed`]. Over HTTP/1.1 the request is in its slot again, its body spent if a part of it was taken; over HTTP/2,
    /// if not a byte of it was sent.
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
            Wire::Http2 => self.send_http2(wire, &self.http2, slot, dialer, limits).await,
            Wire::Carried => self.send_http2(wire, &self.carried, slot, dialer, limits).await,
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
                    let spent =
                        slot.as_ref().is_none_or(|out| matches!(out.request.body(), RequestBody::Spent));
                    // If the connection ended before the request was put on it, take another, or make one.
                    if written || spent || phase == Phase::New {
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
        limits: Limits,
    ) -> Result<(Answered, Lease), Failed> {
        let found = self.multiplexed(wire, shared, dialer).await;
        let (connection, phase) = found.map_err(|error| Failed { error, phase: Phase::Connect })?;
        let lease = self.lease(Held::Http2 { _place: connection.begin() });
        let upgrade = slot.as_ref().is_some_and(|out| out.request.headers().contains_key(UPGRADE));
        if upgrade && !connection.takes_upgrades().await {
            let text = format!("{} does not take extended CONNECT (RFC 8441)", self.endpoint.address);
            return Err(Failed { error: Error::unsent(Reason::HttpUpgradeFailed, text), phase });
        }
        match connection.send(slot, limits, upgrade).await {
            Ok(answered) => Ok((answered, lease)),
            Err(unsent) => Err(Failed { error: self.explain_http2(unsent, slot.is_none()), phase }),
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
        sender.rest();
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE && sender.is_usable() {
            sender.rest();
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
                if connection.streams() > 0 {
                    connection.used.set(now);
                }
                let idle = now.saturating_duration_since(connection.used.get());
                connection.is_open() && idle < IDLE_TIMEOUT
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
        self.bare.set(self.bare.get() || !matches!(self.endpoint.security, Security::Mesh { .. }));
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
    ) -> Result<(Rc<Http2>, Phase), Error> {
        if let Some(open) = shared.available() {
            let phase = if open.has_answered() { Phase::Reused } else { Phase::New };
            return Ok((open, phase));
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

    async fn connect_http2(&self, wire: Wire, dialer: &Dialer) -> Result<Rc<Http2>, Error> {
        let opened = self.connect(wire, dialer).await?;
        let address = self.endpoint.address;
        let (connection, driver) = h2::client::handshake(opened, self.scheme(), wire == Wire::Carried)
            .await
            .map_err(|error| self.explain_http2(h2::client::Unsent::Http2(error), false))?;
        tokio::task::spawn_local(async move {
            if let Err(error) = driver.await {
                debug!(%address, %error, "connection to the endpoint ended");
            }
        });
        Ok(Rc::new(connection))
    }

    /// What `:scheme` says there.
    fn scheme(&self) -> Scheme {
        match self.endpoint.security {
            Security::Tls(_) => Scheme::HTTPS,
            Security::Plain | Security::Own | Security::Mesh { .. } | Security::Inside(_) => Scheme::HTTP,
        }
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

    /// Why a request of HTTP/2 got no response.
    fn explain_http2(&self, unsent: h2::client::Unsent, sent: bool) -> Error {
        let address = self.endpoint.address;
        match unsent {
            h2::client::Unsent::Wrong(wrong, limits) => wrong.of_response(&limits, &address.to_string()),
            h2::client::Unsent::Unwritten(error) => {
                Error::unsent(Reason::ConnectionTerminated, format!("{address}: {error}"))
            }
            h2::client::Unsent::Http2(error) => {
                let text = format!("{address}: {error}");
                // A stream that is reset is an answer, if a poor one; its connection goes on.
                let reset = error.is_reset();
                let reason =
                    if reset { Reason::HttpResponseIncomplete } else { Reason::ConnectionTerminated };
                let seen = sent && !unprocessed(&error);
                if seen { Error::sent(reason, text) } else { Error::unsent(reason, text) }
            }
        }
    }
}

impl Shared {
    /// An open connection with room.
    fn available(&self) -> Option<Rc<Http2>> {
        let mut open = self.open.borrow_mut();
        open.retain(|connection| connection.is_open());
        open.iter().find(|connection| connection.has_room(STREAMS_PER_CONNECTION)).cloned()
    }
}

/// Whether HTTP/2 says that the application has not seen the request: its stream was refused, or lies beyond the
/// last one that the endpoint takes (RFC 9113, sections 8.7 and 6.8). `h2` fails with the endpoint's GOAWAY only the streams
/// beyond it, whatever it is for; those up to it go on, and fail, if at all, with their connection.
fn unprocessed(error: &::h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(::h2::Reason::REFUSED_STREAM);
    error.is_remote() && (error.is_go_away() || refused)
}

//! Connections from one worker to one endpoint, kept open for the next request. Nothing here is shared between
//! threads, and nothing waits: a request takes a connection that is ready, or makes one.

mod pools;
mod resting;
mod shared;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::UPGRADE;
use http::uri::Scheme;
use outrigger_balance::{InFlight, Place as RequestPlace};
use outrigger_certs::Identity;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tracing::debug;

use crate::body::RequestBody;
use crate::connect::{Connection, Dialer, Opened, Target, Wire, own, target, to_target};
use crate::endpoint::{Endpoint, Security};
use crate::error::{Error, Reason};
use crate::h1::{self, Limits, Unsent};
use crate::h2;
use crate::idle::IdleTime;
use crate::message::{Answered, Outgoing};
use crate::room::{Connections, Got, Place};
use crate::verdict;

pub use pools::Pools;
use resting::{Http1, LOOK_AFTER, Resting};
use shared::{Http2, Shared};

/// How long a connection is kept that nobody uses, where the backend does not say. Shorter than the 60 s and 75 s after
/// which servers commonly close.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// The part of a connection's greatest age that is left to chance.
const CHANCE: f32 = 0.1;

/// The connections of one worker to one endpoint.
#[derive(Debug)]
pub struct Pool {
    endpoint: Arc<Endpoint>,
    terms: RefCell<Rc<Terms>>,
    resting: Resting,
    /// Looks after those at rest.
    watcher: RefCell<Option<AbortHandle>>,
    /// How many requests wait for a part of what there is, since they may not make another connection.
    waiting: Cell<u32>,
    /// Told when there is such a part, if any waits.
    given_back: Notify,
    http2: Shared,
    carried: Shared,
    /// How the endpoint is reached, per kind of wire, with the identity that was used to find out.
    targets: RefCell<Targets>,
    /// Whether a connection was made that may not lead to a sidecar, although the endpoint is of the mesh.
    bare: Cell<bool>,
    /// Whether no connection is kept any more.
    retired: Cell<bool>,
}

/// How long the connections to a backend last, and how many there may be.
#[derive(Debug, Clone)]
pub struct Terms {
    /// How long a connection is kept that nobody uses.
    pub idle: Duration,
    /// After how long a connection gets no more requests; a tenth of it is left to chance.
    pub max_age: Option<Duration>,
    /// How many there may be, where that is limited.
    pub room: Option<Arc<Connections>>,
}

impl Default for Terms {
    fn default() -> Self {
        Self { idle: IDLE_TIMEOUT, max_age: None, room: None }
    }
}

impl Terms {
    /// How long a connection may have rested to be used again.
    fn usable(&self, idle: &IdleTime) -> Duration {
        idle.safe().map_or(self.idle, |safe| safe.min(self.idle))
    }

    /// Whether a connection of HTTP/2 has rested for longer than that.
    fn is_stale(&self, connection: &h2::client::Connection, now: Instant, idle: &IdleTime) -> bool {
        let Some(rested) = connection.rested(now) else { return false };
        let stale = rested >= self.usable(idle);
        if stale {
            idle.survived(rested);
        }
        stale
    }

    /// When a connection that is made now is too old.
    fn expiry(&self) -> Option<Instant> {
        let age = self.max_age?.mul_f32(1.0 - CHANCE * fastrand::f32());
        Instant::now().checked_add(age)
    }
}

#[derive(Debug, Default)]
struct Targets {
    identity: Option<Arc<Identity>>,
    known: Vec<(Wire, Target)>,
}

/// A connection in use by one request.
#[derive(Debug)]
pub struct Lease {
    pool: Rc<Pool>,
    held: Held,
    in_flight: Option<InFlight>,
    /// Its place among the requests of the backend, where those are limited.
    place: Option<RequestPlace>,
}

#[derive(Debug)]
enum Held {
    Http1(Http1),
    /// Its place is free again when the lease is dropped.
    Http2(h2::client::UnderWay),
    Nothing,
}

impl Lease {
    /// Gives the connection back: the response was read to its end.
    pub fn give_back(mut self, now: Instant) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.success();
        }
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Http1(connection) => self.pool.keep(connection, now),
            Held::Http2(mut under_way) => {
                under_way.ended(now);
                self.held = Held::Http2(under_way);
            }
            Held::Nothing => {}
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

    /// Ties the request's place at the backend to the lease.
    pub(crate) fn with_place(mut self, place: Option<RequestPlace>) -> Self {
        self.place = place;
        self
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            // Its response was not read to its end.
            Held::Http1(connection) => connection.sender.close(),
            Held::Http2(under_way) => {
                drop(under_way);
                self.pool.tell_waiting();
                self.pool.offer();
            }
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

/// A request on its way: taken by the attempt that sends it, and put back if that can be had back.
pub type Slot = Option<Outgoing>;

/// How a request is sent.
#[derive(Debug, Clone, Copy)]
pub struct Sending {
    /// How much header its response may have.
    pub limits: Limits,
    /// Whether it gets a connection of its own, over HTTP/1.1.
    pub fresh: bool,
    /// The time.
    pub now: Instant,
}

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
            terms: RefCell::default(),
            resting: Resting::default(),
            watcher: RefCell::default(),
            waiting: Cell::new(0),
            given_back: Notify::new(),
            http2: Shared::default(),
            carried: Shared::default(),
            targets: RefCell::default(),
            bare: Cell::new(false),
            retired: Cell::new(false),
        })
    }

    /// Whether a sidecar with the identity expected is all that can answer: by mutual TLS, or within this process, through its
    /// own listener. Where none stands before this node's own application, that answers itself.
    pub(crate) fn is_of_sidecars(&self) -> bool {
        pools::is_mesh(&self.endpoint.security) && !self.bare.get()
    }

    /// Where its connections go.
    pub const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// From now on on these terms.
    pub fn set_terms(&self, terms: Rc<Terms>) {
        self.terms.replace(terms);
        // There may be a limit now that was not there before.
        self.resting.wake_watcher();
    }

    /// Closes what nobody uses, and the rest once what is under way has ended: nobody has the endpoint any more, but for
    /// requests that began while somebody had.
    pub fn retire(&self) {
        self.retired.set(true);
        self.resting.close_all();
        [&self.http2, &self.carried].into_iter().for_each(Shared::close_all);
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
        Sending { limits, fresh, now }: Sending,
    ) -> Result<(Answered, Lease), Failed> {
        match wire {
            Wire::Http1 | Wire::Tcp => {
                let kept = if fresh { None } else { self.take_idle(now) };
                self.send_http1(kept, slot, dialer, limits).await
            }
            Wire::Http2 => self.send_http2(wire, &self.http2, slot, dialer, (limits, now)).await,
            Wire::Carried => self.send_http2(wire, &self.carried, slot, dialer, (limits, now)).await,
        }
    }

    async fn send_http1(
        self: &Rc<Self>,
        mut kept: Option<Http1>,
        slot: &mut Slot,
        dialer: &Dialer,
        limits: Limits,
    ) -> Result<(Answered, Lease), Failed> {
        let mut phase = Phase::Reused;
        loop {
            let connection = if let Some(kept) = kept.take() {
                kept
            } else {
                let made = self.connect_http1(dialer).await;
                let (made, how) = made.map_err(|error| Failed { error, phase: Phase::Connect })?;
                phase = how;
                made
            };
            match connection.sender.send(slot, limits).await {
                Ok(answered) => {
                    if phase == Phase::New {
                        self.endpoint.idle.hear(answered.response.headers());
                    }
                    return Ok((answered, self.lease(Held::Http1(connection))));
                }
                Err((unsent, written)) => {
                    let spent =
                        slot.as_ref().is_none_or(|out| matches!(out.request.body(), RequestBody::Spent));
                    // If the connection ended before the request was put on it, take another, or make one.
                    if written || spent || phase == Phase::New {
                        return Err(Failed { error: self.explain(unsent, limits, written), phase });
                    }
                    kept = self.take_idle(Instant::now());
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
        (limits, now): (Limits, Instant),
    ) -> Result<(Answered, Lease), Failed> {
        let found = self.multiplexed(wire, shared, dialer, now).await;
        let (http2, phase) = found.map_err(|error| Failed { error, phase: Phase::Connect })?;
        let connection = &http2.connection;
        let lease = self.lease(Held::Http2(connection.begin()));
        let upgrade = slot.as_ref().is_some_and(|out| out.request.headers().contains_key(UPGRADE));
        if upgrade && !connection.takes_upgrades().await {
            let text = format!("{} does not take extended CONNECT (RFC 8441)", self.endpoint.address);
            return Err(Failed { error: Error::unsent(Reason::HttpUpgradeFailed, text), phase });
        }
        match connection.send(slot, limits, upgrade).await {
            Ok(answered) => {
                if http2.trial.get() && !connection.is_told_to_leave() {
                    http2.trial.set(false);
                    self.endpoint.load.stays(Instant::now());
                }
                Ok((answered, lease))
            }
            Err(unsent) => Err(Failed { error: self.explain_http2(unsent, slot.is_none()), phase }),
        }
    }

    fn lease(self: &Rc<Self>, held: Held) -> Lease {
        Lease { pool: self.clone(), held, in_flight: None, place: None }
    }

    fn take_idle(&self, now: Instant) -> Option<Http1> {
        self.resting.take(now, &self.endpoint.idle, &self.terms.borrow())
    }

    fn keep(self: &Rc<Self>, connection: Http1, now: Instant) {
        connection.sender.rest();
        if self.is_wanted_elsewhere() || self.retired.get() {
            connection.sender.close();
            return;
        }
        self.resting.keep(connection, now, self.terms.borrow().room.as_ref());
        self.tell_waiting();
        self.look_after();
    }

    /// Whether what nobody here needs is to be closed, because somebody waits for its place.
    fn is_wanted_elsewhere(&self) -> bool {
        self.terms.borrow().room.as_ref().is_some_and(|room| self.waiting.get() == 0 && room.is_wanted())
    }

    /// Has what has come to rest closed if it is wanted elsewhere.
    fn offer(&self) {
        if self.is_wanted_elsewhere() {
            self.resting.wake_watcher();
        }
    }

    /// Has those who wait for a part of what there is look again.
    fn tell_waiting(&self) {
        if self.waiting.get() > 0 {
            self.given_back.notify_waiters();
        }
    }

    /// Has a task look after what rests, if none does yet.
    fn look_after(self: &Rc<Self>) {
        if self.watcher.borrow().is_some() {
            return;
        }
        let pool = Rc::downgrade(self);
        let task = tokio::task::spawn_local(poll_fn(move |cx| {
            let Some(pool) = pool.upgrade() else { return Poll::Ready(()) };
            pool.watch(cx);
            Poll::Pending
        }));
        self.watcher.replace(Some(task.abort_handle()));
    }

    /// Lets go of what its peer has closed while it rested, and of what is wanted elsewhere.
    fn watch(&self, cx: &mut Context<'_>) {
        self.resting.watch(cx, Instant::now(), &self.endpoint.idle);
        if let Some(room) = &self.terms.borrow().room {
            room.hold(cx.waker());
            while room.is_wanted() && (self.resting.close_one() || self.close_shared()) {}
        }
    }

    fn close_shared(&self) -> bool {
        [&self.http2, &self.carried].into_iter().any(Shared::close_one)
    }

    /// Closes what nobody has used for too long, and what is too old. Called now and then by the worker.
    pub fn close_idle(&self, now: Instant) {
        let terms = self.terms.borrow();
        self.resting.close_old(now, &self.endpoint.idle, &terms);
        for shared in [&self.http2, &self.carried] {
            shared.close_old(now, &terms);
        }
    }

    /// Closes what nobody uses now: memory is scarce.
    pub fn make_room(&self) {
        self.resting.close_all();
        while self.close_shared() {}
    }

    /// Whether no connection is open.
    pub fn is_empty(&self) -> bool {
        self.resting.is_empty() && self.http2.is_empty() && self.carried.is_empty()
    }

    async fn connect(&self, wire: Wire, dialer: &Dialer, place: Option<Place>) -> Result<Opened, Error> {
        let made = self.reach(wire, dialer).await;
        if made.as_ref().is_err_and(|error| error.reason == Reason::ConnectionRefused) {
            // It has closed its connections because it ended, not because nobody used them.
            self.endpoint.idle.forget();
        }
        dialer.note(made, place)
    }

    async fn reach(&self, wire: Wire, dialer: &Dialer) -> Result<Connection, Error> {
        if let Some(own) = own(&self.endpoint, wire, dialer) {
            return Ok(own);
        }
        self.bare.set(self.bare.get() || !self.endpoint.is_in_mesh());
        let target = self.target(wire, dialer)?;
        to_target(target, dialer).await
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

    /// A new connection; or, where the backend has as many as it may, one that comes to rest meanwhile.
    async fn connect_http1(self: &Rc<Self>, dialer: &Dialer) -> Result<(Http1, Phase), Error> {
        let place = match dialer.admit(self.wait_for(|| self.take_idle(Instant::now()))).await? {
            Got::Room(place) => place,
            Got::Instead(kept) => return Ok((kept, Phase::Reused)),
        };
        let opened = self.connect(Wire::Http1, dialer, place).await?;
        let sender = h1::Sender::new(opened, self.endpoint.address.to_string().into());
        Ok((Http1 { sender, expires: self.terms.borrow().expiry() }, Phase::New))
    }

    /// What `find` finds, once something was given back that it looks for.
    async fn wait_for<T>(&self, find: impl Fn() -> Option<T>) -> T {
        let _waiting = Waits::new(self);
        loop {
            let mut given_back = pin!(self.given_back.notified());
            given_back.as_mut().enable();
            if let Some(found) = find() {
                return found;
            }
            given_back.await;
        }
    }

    async fn multiplexed(
        self: &Rc<Self>,
        wire: Wire,
        shared: &Shared,
        dialer: &Dialer,
        now: Instant,
    ) -> Result<(Rc<Http2>, Phase), Error> {
        let available = |now| shared.available(now, &self.endpoint.idle, &self.terms.borrow());
        if let Some(open) = available(now) {
            if open.connection.rested(now).is_none_or(|rested| rested < LOOK_AFTER) {
                return Ok((open.clone(), reused(&open)));
            }
            // Its end, or the word that it comes, may have arrived: whoever reads it reads it first.
            tokio::task::yield_now().await;
            if let Some(open) = available(now) {
                return Ok((open.clone(), reused(&open)));
            }
        }
        let mut place = None;
        loop {
            let failures = shared.failed.borrow().0;
            let making = shared.making.lock().await;
            if let Some(open) = available(Instant::now()) {
                return Ok((open, Phase::New));
            }
            // Who has waited for a connection that could not be made does not wait for another, each after the one before.
            if let (times, Some(error)) = &*shared.failed.borrow()
                && *times != failures
            {
                return Err(error.clone());
            }
            place = place.or_else(|| dialer.room.as_ref()?.try_take());
            if place.is_some() || dialer.room.is_none() {
                // Boxed, for every request would have the room for it.
                let made = Box::pin(self.connect_http2(wire, shared, dialer, place)).await;
                shared.note(&made, self.retired.get());
                return made.map(|connection| (connection, Phase::New));
            }
            let crowded = || shared.crowded(Instant::now());
            if let Some(open) = crowded() {
                return Ok((open, Phase::Reused));
            }
            // Others make none either, but need not wait for that.
            drop(making);
            match dialer.admit(self.wait_for(crowded)).await? {
                Got::Room(room) => place = room,
                Got::Instead(open) => return Ok((open, Phase::Reused)),
            }
        }
    }

    async fn connect_http2(
        self: &Rc<Self>,
        wire: Wire,
        shared: &Shared,
        dialer: &Dialer,
        place: Option<Place>,
    ) -> Result<Rc<Http2>, Error> {
        let trial = self.endpoint.load.is_said_to_leave();
        let opened = self.connect(wire, dialer, place).await?;
        let terms = self.terms.borrow().clone();
        let callee = h2::client::Callee {
            scheme: self.scheme(),
            carried: wire == Wire::Carried,
            sidecar: self.endpoint.is_in_mesh(),
            streams: shared.streams.clone(),
            expires: terms.expiry(),
            room: terms.room.clone(),
        };
        let (connection, mut driver) = h2::client::handshake(opened, callee)
            .await
            .map_err(|error| self.explain_http2(h2::client::Unsent::Http2(error), false))?;
        let endpoint = self.endpoint.clone();
        if endpoint.is_in_mesh() {
            let leaving = endpoint.clone();
            driver.on_leaving(move || leaving.load.leaving(Instant::now()));
        }
        let http2 = Rc::new(Http2 { connection, trial: Cell::new(trial) });
        let kept = Rc::downgrade(&http2);
        tokio::task::spawn_local(async move {
            if let Err(error) = driver.await {
                debug!(address = %endpoint.address, %error, "connection to the endpoint ended");
            }
            let rested = kept.upgrade().and_then(|http2| http2.connection.rested_unwarned(Instant::now()));
            if let Some(rested) = rested {
                endpoint.idle.closed_after(rested);
            }
        });
        if terms.room.is_some() {
            self.look_after();
        }
        Ok(http2)
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

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.get_mut() {
            watcher.abort();
        }
    }
}

/// A request that waits for what another gives back, until it is dropped.
struct Waits<'a>(&'a Pool);

impl<'a> Waits<'a> {
    fn new(pool: &'a Pool) -> Self {
        pool.waiting.set(pool.waiting.get() + 1);
        Self(pool)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

/// Whether the end of a connection may have crossed the request on the way: it has answered before.
fn reused(open: &Http2) -> Phase {
    if open.connection.has_answered() { Phase::Reused } else { Phase::New }
}

/// Whether HTTP/2 says that the application has not seen the request: its stream was refused, or lies beyond the
/// last one that the endpoint takes (RFC 9113, sections 8.7 and 6.8). `h2` fails with the endpoint's GOAWAY only the streams
/// beyond it, whatever it is for; those up to it go on, and fail, if at all, with their connection.
fn unprocessed(error: &::h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(::h2::Reason::REFUSED_STREAM);
    error.is_remote() && (error.is_go_away() || refused)
}

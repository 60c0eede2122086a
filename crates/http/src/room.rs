//! How many connections a backend may have open, over all workers. Touched where one is made or closed, or comes to rest,
//! and only of a backend that has a limit.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use outrigger_config::backend::BackendLimits;
use tokio::sync::Notify;

use crate::error::{Error, Reason};

/// How long a request waits that may not, for a connection that rests to be closed in its favour.
const BRIEFLY: Duration = Duration::from_millis(250);
/// How long one waits that may, where the backend does not say.
const WAIT: Duration = Duration::from_secs(1);

/// The connections of a backend. Carried over from one configuration to the next.
#[derive(Debug)]
pub struct Connections {
    backend: Arc<str>,
    most: AtomicU32,
    open: AtomicU32,
    /// Those of them that rest.
    unused: AtomicU32,
    /// Requests that want one and cannot have it.
    waiting: AtomicU32,
    may_wait: AtomicU32,
    /// For how many milliseconds they wait.
    wait: AtomicU64,
    /// Told when one has closed and somebody waits.
    closed: Notify,
    /// Who has connections that rest, to close them when they are wanted elsewhere.
    holders: Mutex<Vec<Waker>>,
}

/// One connection that is open, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Connections>);

/// One connection that rests, until it is dropped.
#[derive(Debug)]
pub(crate) struct Unused(Arc<Connections>);

/// One request that waits, until it is dropped.
struct Waiting<'a>(&'a Connections);

/// What a request gets that wants a connection.
#[derive(Debug)]
pub(crate) enum Got<T> {
    /// It may make one, which has this place where they are limited.
    Room(Option<Place>),
    /// Another way has opened.
    Instead(T),
}

impl Connections {
    /// The connections of a backend that may have only so many; `None` if it may have any number.
    pub fn new(backend: Arc<str>, limits: &BackendLimits) -> Option<Arc<Self>> {
        limits.connections?;
        let connections = Self {
            backend,
            most: AtomicU32::new(0),
            open: AtomicU32::new(0),
            unused: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            may_wait: AtomicU32::new(0),
            wait: AtomicU64::new(0),
            closed: Notify::new(),
            holders: Mutex::default(),
        };
        connections.set(limits);
        Some(Arc::new(connections))
    }

    /// From now on with these limits. What is open beyond them stays.
    pub fn set(&self, limits: &BackendLimits) {
        self.most.store(limits.connections.unwrap_or(u32::MAX), SeqCst);
        self.may_wait.store(limits.waiting.unwrap_or(0), SeqCst);
        let wait = limits.wait_timeout.map_or(WAIT, outrigger_config::Duration::get);
        self.wait.store(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), SeqCst);
        // There may be room now.
        self.closed.notify_waiters();
    }

    /// For how long a request waits at most.
    pub(crate) fn patience(&self) -> Duration {
        if self.may_wait.load(SeqCst) == 0 { BRIEFLY } else { Duration::from_millis(self.wait.load(SeqCst)) }
    }

    /// How many are open.
    pub fn open(&self) -> u32 {
        self.open.load(SeqCst)
    }

    /// How many may be open.
    pub fn most(&self) -> u32 {
        self.most.load(SeqCst)
    }

    /// How many requests wait for one, and how many may. While there are connections that rest, for a moment one more for each.
    pub fn waiting(&self) -> (u32, u32) {
        (self.waiting.load(SeqCst), self.may_wait.load(SeqCst))
    }

    /// Whether there is no room for one more.
    pub(crate) fn is_full(&self) -> bool {
        self.open() >= self.most.load(SeqCst)
    }

    /// Room for one more, if there is any that nobody waits for.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Place> {
        if self.waiting.load(SeqCst) > 0 { None } else { self.grab() }
    }

    fn grab(self: &Arc<Self>) -> Option<Place> {
        let most = self.most.load(SeqCst);
        let taken = self.open.fetch_update(SeqCst, SeqCst, |open| (open < most).then_some(open + 1));
        taken.ok().map(|_| Place(self.clone()))
    }

    /// Room for one more. Where there is none, waits in turn: as long as the backend allows, or, while there are
    /// connections that rest, until one of them is closed for it; or until there is something else instead.
    ///
    /// # Errors
    /// Where none may wait, or none more, or one has waited for long enough.
    pub(crate) async fn take<T>(self: &Arc<Self>, instead: impl Future<Output = T>) -> Result<Got<T>, Error> {
        let place = self.try_take();
        if place.is_some() {
            return Ok(Got::Room(place));
        }
        let _waiting = self.queue().ok_or_else(|| self.full())?;
        let mut over = pin!(tokio::time::sleep(self.patience()));
        let mut instead = pin!(instead);
        loop {
            let mut closed = pin!(self.closed.notified());
            closed.as_mut().enable();
            let place = self.grab();
            if place.is_some() {
                return Ok(Got::Room(place));
            }
            self.call_for_unused();
            tokio::select! {
                biased;
                () = closed => {}
                got = &mut instead => return Ok(Got::Instead(got)),
                () = &mut over => return Err(self.full()),
            }
        }
    }

    /// One more that waits, if one more may, or a connection rests for each that does.
    fn queue(&self) -> Option<Waiting<'_>> {
        let most = self.may_wait.load(SeqCst).saturating_add(self.unused.load(SeqCst));
        let queued =
            self.waiting.fetch_update(SeqCst, SeqCst, |waiting| (waiting < most).then_some(waiting + 1));
        queued.ok().map(|_| Waiting(self))
    }

    fn full(&self) -> Error {
        let most = self.most.load(SeqCst);
        let details = format!("backend {} has {most} connections, as many as it may", self.backend);
        Error::unsent(Reason::ConnectionLimitReached, details)
    }

    fn call_for_unused(&self) {
        let holders = std::mem::take(&mut *self.holders.lock().unwrap_or_else(PoisonError::into_inner));
        holders.into_iter().for_each(Waker::wake);
    }

    /// Whether a connection that rests is to be closed, for somebody waits that it takes the place of.
    pub(crate) fn is_wanted(&self) -> bool {
        let waiting = self.waiting.load(SeqCst);
        waiting > 0 && self.most.load(SeqCst).saturating_sub(self.open()) < waiting
    }

    /// One of them rests.
    pub(crate) fn rest(self: &Arc<Self>) -> Unused {
        self.unused.fetch_add(1, SeqCst);
        Unused(self.clone())
    }

    /// Has `holder` woken, once, when connections that rest are wanted.
    pub(crate) fn hold(&self, holder: &Waker) {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if !holders.iter().any(|known| known.will_wake(holder)) {
            holders.push(holder.clone());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
        if self.0.waiting.load(SeqCst) > 0 {
            self.0.closed.notify_one();
        }
    }
}

impl Drop for Unused {
    fn drop(&mut self) {
        self.0.unused.fetch_sub(1, SeqCst);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn connections(limits: &str) -> Arc<Connections> {
        let limits: BackendLimits = serde_json::from_str(limits).unwrap();
        Connections::new("shop".into(), &limits).unwrap()
    }

    async fn place(connections: &Arc<Connections>) -> Result<Place, Error> {
        match connections.take(pending::<()>()).await? {
            Got::Room(place) => Ok(place.unwrap()),
            Got::Instead(()) => unreachable!("nothing came instead"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_beyond_the_limit_is_refused_at_once() {
        let connections = connections(r#"{ "connections": 2 }"#);
        let (first, _second) = (place(&connections).await.unwrap(), place(&connections).await.unwrap());
        let before = tokio::time::Instant::now();
        let error = place(&connections).await.unwrap_err();
        assert_eq!((error.reason, error.reached), (Reason::ConnectionLimitReached, false));
        assert_eq!(before.elapsed(), Duration::ZERO);
        drop(first);
        place(&connections).await.unwrap();
        assert_eq!(connections.open(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_wait_does_so_in_turn_and_not_for_ever() {
        let connections = connections(r#"{ "connections": 1, "waiting": 2, "waitTimeout": "3s" }"#);
        let first = place(&connections).await.unwrap();
        let (a, b) = (connections.clone(), connections.clone());
        let a = tokio::spawn(async move { place(&a).await });
        tokio::task::yield_now().await;
        let b = tokio::spawn(async move { place(&b).await });
        tokio::task::yield_now().await;
        assert!(place(&connections).await.is_err(), "two wait already");
        drop(first);
        assert!(connections.try_take().is_none(), "it is not the turn of who comes now");
        let second = a.await.unwrap().unwrap();
        assert!(b.await.unwrap().is_err(), "nothing came free for three seconds");
        drop(second);
        assert_eq!((connections.open(), connections.waiting.load(SeqCst)), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_hears_that_there_may_be_more() {
        let connections = connections(r#"{ "connections": 1, "waiting": 3, "waitTimeout": "3s" }"#);
        let _first = place(&connections).await.unwrap();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let connections = connections.clone();
                tokio::spawn(async move { place(&connections).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let before = tokio::time::Instant::now();
        connections.set(&serde_json::from_str(r#"{ "connections": 4, "waiting": 3 }"#).unwrap());
        let mut places = Vec::new();
        for one in waiting {
            places.push(one.await.unwrap().unwrap());
        }
        assert_eq!((connections.open(), before.elapsed()), (4, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_rests_is_called_for() {
        let connections = connections(r#"{ "connections": 1 }"#);
        let (held, rests) = (place(&connections).await.unwrap(), connections.rest());
        let holder = connections.clone();
        let closing = std::future::poll_fn(move |cx| {
            if holder.is_wanted() {
                return std::task::Poll::Ready(());
            }
            holder.hold(cx.waker());
            std::task::Poll::Pending
        });
        let closing = tokio::spawn(async move {
            closing.await;
            drop((held, rests));
        });
        tokio::task::yield_now().await;
        place(&connections).await.unwrap();
        closing.await.unwrap();
        assert_eq!((connections.open(), connections.unused.load(SeqCst)), (0, 0));
    }
}

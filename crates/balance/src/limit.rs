//! How much may be under way at a time: places that are taken and given back, and a bounded queue for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fastrand::Rng;
use outrigger_config::backend::BackendLimits;
use tokio::sync::Semaphore;

use crate::adaptive::Adaptive;

/// How long a request waits for a place where the configuration does not say.
const WAIT: Duration = Duration::from_secs(1);
/// More places than these are as good as any number, and fit into a semaphore everywhere.
const MOST: u32 = u32::MAX >> 4;

/// A number of places, shared by all workers. Who waits for one gets it in the order of coming, whichever worker it is
/// of; nobody takes a place past those who wait.
#[derive(Debug)]
pub struct Limit {
    free: Semaphore,
    size: AtomicU32,
    /// Places that are to go when they are given back: there are fewer now than when they were taken.
    owed: AtomicU32,
}

/// A place that is taken. Dropping it gives it back.
#[derive(Debug)]
#[must_use = "dropping it gives the place back"]
pub struct Place(Arc<Limit>);

impl Limit {
    /// So many places, all free.
    pub fn new(size: u32) -> Arc<Self> {
        let size = size.min(MOST);
        Arc::new(Self {
            free: Semaphore::new(size as usize),
            size: AtomicU32::new(size),
            owed: AtomicU32::new(0),
        })
    }

    /// How many places there are.
    pub fn size(&self) -> u32 {
        self.size.load(Relaxed)
    }

    /// How many are taken; for a moment after a change of their number, about so many.
    pub fn taken(&self) -> u32 {
        let free = u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX);
        (self.size() + self.owed.load(Relaxed)).saturating_sub(free)
    }

    /// A place, if one is free that nobody waits for.
    pub fn try_take(self: &Arc<Self>) -> Option<Place> {
        self.free.try_acquire().ok()?.forget();
        Some(Place(Arc::clone(self)))
    }

    /// Waits for a place. Whoever calls this bounds how many do, and for how long: see [`Queue`].
    pub async fn take(self: &Arc<Self>) -> Place {
        // The semaphore is never closed, which is all that can go wrong.
        if let Ok(permit) = self.free.acquire().await {
            permit.forget();
        }
        Place(Arc::clone(self))
    }

    /// Changes how many places there are. Those that are taken and should no longer be there go as they are given back.
    pub fn resize(&self, size: u32) {
        let size = size.min(MOST);
        let before = self.size.swap(size, Relaxed);
        if let Some(more) = size.checked_sub(before) {
            let kept = self.redeem(more);
            self.free.add_permits((more - kept) as usize);
        } else {
            let fewer = before - size;
            let gone = u32::try_from(self.free.forget_permits(fewer as usize)).unwrap_or(fewer);
            self.owed.fetch_add(fewer.saturating_sub(gone), Relaxed);
        }
    }

    /// Takes up to so many off what is owed; how many that were.
    fn redeem(&self, most: u32) -> u32 {
        let redeemed = self.owed.fetch_update(Relaxed, Relaxed, |owed| Some(owed - owed.min(most)));
        redeemed.unwrap_or_default().min(most)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.owed.load(Relaxed) == 0 || self.0.redeem(1) == 0 {
            self.0.free.add_permits(1);
        }
    }
}

/// How many may wait for a place, and for how long.
#[derive(Debug)]
pub struct Queue {
    most: u32,
    waiting: AtomicU32,
    patience: Duration,
}

/// One who waits, until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it leaves the queue"]
pub struct Waiting<'a>(&'a Queue);

impl Queue {
    /// A queue for so many, each for this long at most.
    pub const fn new(most: u32, patience: Duration) -> Self {
        Self { most, waiting: AtomicU32::new(0), patience }
    }

    /// Joins it, unless it is full.
    pub fn join(&self) -> Option<Waiting<'_>> {
        let room = |waiting| (waiting < self.most).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, room).ok()?;
        Some(Waiting(self))
    }

    /// Whether nobody ever may.
    pub const fn is_closed(&self) -> bool {
        self.most == 0
    }

    /// How many may wait.
    pub const fn most(&self) -> u32 {
        self.most
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    /// How long each may.
    pub const fn patience(&self) -> Duration {
        self.patience
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

/// The limit of one backend's requests. There is none where its configuration sets none.
#[derive(Debug)]
pub struct Limits {
    /// Requests in flight.
    pub requests: Arc<Limit>,
    /// What finds out how many those may be, where that is not a fixed number.
    pub adaptive: Option<Arc<Adaptive>>,
    /// For requests that wait for a place.
    pub queue: Queue,
}

impl Limits {
    /// The limit that is configured, if any is: the lower of a fixed number and of what is found out. What was under way
    /// under the limits `before` still counts.
    pub fn new(spec: &BackendLimits, before: Option<&Self>, now: Instant) -> Option<Self> {
        let adaptive = spec.adaptive.map(|adaptive| {
            let most = adaptive.max.min(spec.requests.unwrap_or(u32::MAX));
            let same = before.and_then(|before| before.adaptive.as_ref());
            let kept = same.filter(|same| same.is(&adaptive, most)).cloned();
            kept.unwrap_or_else(|| Arc::new(Adaptive::new(&adaptive, most, now, Rng::new())))
        });
        let size = adaptive.as_ref().map(|adaptive| adaptive.allowed()).or(spec.requests)?;
        let requests = before.map_or_else(|| Limit::new(size), |before| before.requests.clone());
        requests.resize(size);
        let patience = spec.wait_timeout.map_or(WAIT, outrigger_config::Duration::get);
        Some(Self { requests, adaptive, queue: Queue::new(spec.waiting.unwrap_or_default(), patience) })
    }
}

#[cfg(test)]
mod tests;

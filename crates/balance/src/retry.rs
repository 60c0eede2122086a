//! Whether and when a request is tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fastrand::Rng;
use outrigger_config::backend::RetryConstraint;

/// Into how many slots the interval of a budget is cut.
const SLOTS: u64 = 10;

/// How many of one backend's requests may be retries (Gateway API, `BackendTrafficPolicy.retryConstraint`). Shared by
/// all workers.
///
/// Within the interval, which moves on by a tenth at a time, retries are at most the given percentage of the requests.
/// Beyond that, a minimal rate is always granted, so that a backend with few requests can be retried at all; retries
/// are taken from that rate first.
#[derive(Debug)]
pub struct Budget {
    made: Instant,
    percent: u64,
    /// The length of a slot in nanoseconds.
    slot: u64,
    slots: [AtomicU64; SLOTS as usize],
    minimum: Rate,
    /// How many retries may be under way at a time.
    most: Option<u32>,
    under_way: AtomicU32,
}

/// Why a retry was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The share and the minimal rate are used up.
    Budget,
    /// As many retries as may be are under way.
    Limit,
}

/// A retry that was granted, with the wait before it. Dropping it says that it is over.
#[derive(Debug)]
#[must_use = "dropping it says that the retry is over"]
pub struct Granted {
    /// Where it has a place, if the places are limited.
    place: Option<Arc<Budget>>,
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some(budget) = &self.place {
            budget.under_way.fetch_sub(1, Relaxed);
        }
    }
}

impl Budget {
    /// The budget of a backend without requests so far.
    pub fn new(constraint: &RetryConstraint, now: Instant) -> Self {
        Self {
            made: now,
            percent: u64::from(constraint.budget.percent),
            slot: (nanos(constraint.budget.interval.get()) / SLOTS).max(1),
            slots: Default::default(),
            minimum: Rate::new(constraint.min_retry_rate.count, constraint.min_retry_rate.interval.get()),
            most: None,
            under_way: AtomicU32::new(0),
        }
    }

    /// The same, with at most so many retries under way at a time, their wait included. `None`: any number.
    #[must_use]
    pub const fn with_limit(self, most: Option<u32>) -> Self {
        Self { most, ..self }
    }

    /// How many retries are under way, and how many may be, where they are limited.
    pub fn under_way(&self) -> Option<(u32, u32)> {
        self.most.map(|most| (self.under_way.load(Relaxed), most))
    }

    /// Grants a retry and counts it, from now on, before the wait that may come first.
    ///
    /// # Errors
    /// Why it is not granted. Nothing was counted then.
    pub fn admit(self: &Arc<Self>, now: Instant) -> Result<Granted, Refused> {
        let granted = Granted { place: self.place()? };
        // Dropped, it gives its place back.
        if self.try_retry(now) { Ok(granted) } else { Err(Refused::Budget) }
    }

    /// A place among the retries under way; `Ok(None)` where they are not limited.
    fn place(self: &Arc<Self>) -> Result<Option<Arc<Self>>, Refused> {
        let Some(most) = self.most else { return Ok(None) };
        self.under_way
            .fetch_update(Relaxed, Relaxed, |count| (count < most).then_some(count + 1))
            .map(|_| Some(self.clone()))
            .map_err(|_| Refused::Limit)
    }

    /// Counts a request. Retries are not requests.
    pub fn request(&self, now: Instant) {
        if self.percent == 0 {
            return;
        }
        let tick = self.tick(now);
        let slot = self.slot(tick);
        let _ = slot.fetch_update(Relaxed, Relaxed, |packed| {
            let counts = Counts::unpack(packed, tick);
            Some(Counts { requests: counts.requests + 1, ..counts }.pack(tick))
        });
    }

    /// Whether a retry is granted; if so, it is counted.
    pub fn try_retry(&self, now: Instant) -> bool {
        let tick = self.tick(now);
        let minimal = self.minimum.take(nanos(now.saturating_duration_since(self.made)));
        let slot = self.slot(tick);
        slot.fetch_update(Relaxed, Relaxed, |packed| {
            let counts = Counts::unpack(packed, tick);
            (minimal || self.within_percentage(tick))
                .then(|| Counts { retries: counts.retries + 1, ..counts }.pack(tick))
        })
        .is_ok()
    }

    fn within_percentage(&self, tick: u64) -> bool {
        let (mut requests, mut retries) = (0, 0);
        for past in 0..SLOTS.min(tick + 1) {
            let counts = Counts::unpack(self.slot(tick - past).load(Relaxed), tick - past);
            requests += counts.requests;
            retries += counts.retries;
        }
        (retries + 1) * 100 <= requests * self.percent
    }

    fn tick(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.made)) / self.slot
    }

    fn slot(&self, tick: u64) -> &AtomicU64 {
        &self.slots[(tick % SLOTS) as usize]
    }
}

/// What was counted in one slot. It shares an atomic with the number of the slot, so that a slot is begun anew and
/// counted in at once: 16 bits of that number (a slot of exactly 65,536 slots ago would be mistaken for this one),
/// 28 bits of requests, 20 bits of retries.
#[derive(Clone, Copy)]
struct Counts {
    requests: u64,
    retries: u64,
}

const REQUEST_BITS: u32 = 28;
const RETRY_BITS: u32 = 20;

impl Counts {
    /// The counts, where they are of this slot; none where they are of an earlier one.
    fn unpack(packed: u64, tick: u64) -> Self {
        if packed >> (REQUEST_BITS + RETRY_BITS) != tick & 0xffff {
            return Self { requests: 0, retries: 0 };
        }
        Self { requests: packed >> RETRY_BITS & mask(REQUEST_BITS), retries: packed & mask(RETRY_BITS) }
    }

    fn pack(self, tick: u64) -> u64 {
        (tick & 0xffff) << (REQUEST_BITS + RETRY_BITS)
            | self.requests.min(mask(REQUEST_BITS)) << RETRY_BITS
            | self.retries.min(mask(RETRY_BITS))
    }
}

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// A rate, with bursts of as many as it grants in one interval: the generic cell rate algorithm (ITU-T I.371).
#[derive(Debug)]
struct Rate {
    /// Nanoseconds for one; 0 where none is ever granted.
    each: u64,
    /// How far ahead of the clock it may run, in nanoseconds.
    interval: u64,
    /// When all that was granted is worn off, in nanoseconds since the start.
    free: AtomicU64,
}

impl Rate {
    fn new(count: u32, interval: Duration) -> Self {
        let interval = nanos(interval);
        Self {
            each: interval.checked_div(u64::from(count)).map_or(0, |each| each.max(1)),
            interval,
            free: AtomicU64::new(0),
        }
    }

    fn take(&self, now: u64) -> bool {
        if self.each == 0 {
            return false;
        }
        self.free
            .fetch_update(Relaxed, Relaxed, |free| {
                let next = free.max(now).saturating_add(self.each);
                (next - now <= self.interval).then_some(next)
            })
            .is_ok()
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// How long to wait before retry number `attempt` (the first is 1). The Gateway API's `retry.backoff` is the least that may
/// be waited, so that much is, and above it the jitter is full: at random up to `base` doubled with each attempt, and
/// never more than `most` (or `base`, where that is more).
pub fn backoff(base: Duration, most: Duration, attempt: u32, rng: &mut Rng) -> Duration {
    let doubled = base.saturating_mul(2u32.saturating_pow(attempt));
    let room = doubled.min(most).saturating_sub(base);
    base + room.mul_f64(rng.f64())
}

#[cfg(test)]
mod tests;

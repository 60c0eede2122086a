//! What is known of one endpoint: how many requests it has, how fast it answers, whether it can be reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The time constant with which an estimate of latency falls, in seconds: after 10 s less than 1% of a peak is left.
const DECAY: f32 = 2.0;
/// What an endpoint counts as that was given a request and has never answered one, in seconds.
const UNKNOWN: f32 = 1.0;
/// The least that a failed request counts as, in seconds, since a refusal is often the quickest of answers.
const FAILURE: f32 = 0.1;
/// How long an endpoint is left alone after the first failure in a row, in milliseconds; each further one doubles it.
const FIRST_PAUSE: u32 = 1_000;
/// The longest that an endpoint is left alone, in milliseconds.
const LONGEST_PAUSE: u32 = 30_000;
/// How long an endpoint is left alone that says that it is leaving, in milliseconds.
const LEAVING: u32 = 30_000;
/// How long the one request that tries an endpoint after its pause keeps others away, in milliseconds.
const TRIAL: u32 = 1_000;

/// The load of one endpoint, shared by all workers.
///
/// The estimate of latency is a peak-sensitive moving average: a higher sample counts at once, lower ones pull it down
/// over 10 s. It falls in the same way while the endpoint gets no request, so that a slow endpoint is tried again
/// after some seconds; that one request restores the estimate until it is answered, so it is one and not many.
///
/// Times are kept as milliseconds since the load was made, in 32 bits: an endpoint of which nothing was heard for
/// exactly 49.7 days may be taken to be busy.
// Aligned so that no two endpoints share a cache line (or an adjacent pair, which processors fetch together).
#[derive(Debug)]
#[repr(align(128))]
pub struct Load {
    /// Requests at the endpoint whose `InFlight` lives.
    in_flight: AtomicU32,
    /// When a request was last given to it; `NEVER` before the first.
    picked: AtomicU32,
    /// The estimate in seconds (the bits of an `f32`) above the time of the last sample; `0` before the first.
    estimate: AtomicU64,
    /// Passive health, see [`Health`]; `0` is well.
    health: AtomicU64,
    /// The tick until which it is left alone because it says that it is leaving; `0` if it does not.
    leaving: AtomicU32,
    weight: u32,
    made: Instant,
}

/// The value of `picked` before the first request.
const NEVER: u32 = u32::MAX;

impl Load {
    /// The load of an endpoint that nothing is known of yet. A weight of 0 counts as 1.
    pub fn new(weight: u32, now: Instant) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            picked: AtomicU32::new(NEVER),
            estimate: AtomicU64::new(0),
            health: AtomicU64::new(0),
            leaving: AtomicU32::new(0),
            weight: weight.max(1),
            made: now,
        }
    }

    /// How many requests are at the endpoint.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// The endpoint's share among those of its backend.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// The time until the head of a response that is to be expected; zero while nothing is known.
    pub fn latency(&self, now: Instant) -> Duration {
        Duration::try_from_secs_f32(self.expected(now)).unwrap_or(Duration::MAX)
    }

    /// Counts a request as being at the endpoint until what is returned is dropped.
    pub fn start(self: &Arc<Self>, now: Instant) -> InFlight {
        let tick = self.tick(now);
        self.in_flight.fetch_add(1, Relaxed);
        self.picked.store(tick.min(NEVER - 1), Relaxed);
        if self.health.load(Relaxed) != 0 {
            self.change_health(|health| health.tried(tick));
        }
        InFlight { load: Arc::clone(self), started: now, answered: false }
    }

    /// Keeps requests away for a while after a failure to connect: 1 s, and twice as long with each failure in a row,
    /// up to 30 s. Failures during such a pause belong to the failure that began it. When the pause is over, one
    /// request at a time tries the endpoint, once a second, until [`succeeded`](Self::succeeded).
    pub fn failed(&self, now: Instant) {
        let tick = self.tick(now);
        self.change_health(|health| health.failed(tick));
    }

    /// Ends what [`failed`](Self::failed) began: the endpoint was reached.
    pub fn succeeded(&self) {
        if self.health.load(Relaxed) != 0 {
            self.health.store(0, Relaxed);
        }
    }

    /// Whether requests should go to the endpoint.
    pub fn available(&self, now: Instant) -> bool {
        let health = self.health.load(Relaxed);
        let well = health == 0 || !Health::unpack(health).paused(self.tick(now));
        well && !self.is_leaving(now)
    }

    /// Keeps requests away for 30 s, because the endpoint says that it is leaving. That is no failure, and what it still
    /// answers does not end it.
    pub fn leaving(&self, now: Instant) {
        self.leaving.store(self.tick(now).wrapping_add(LEAVING).max(1), Relaxed);
    }

    /// Ends what [`leaving`](Self::leaving) began: a connection made since was not told the same.
    pub fn stays(&self) {
        self.leaving.store(0, Relaxed);
    }

    /// Whether the endpoint has said, less than 30 s ago, that it is leaving.
    pub fn is_leaving(&self, now: Instant) -> bool {
        let until = self.leaving.load(Relaxed);
        until != 0 && until.wrapping_sub(self.tick(now)).wrapping_sub(1) < LEAVING
    }

    /// Whether the endpoint has said that it is leaving, however long ago, and has not been found to stay.
    pub fn has_said_leaving(&self) -> bool {
        self.leaving.load(Relaxed) != 0
    }

    /// The estimate in seconds by which the endpoint is chosen: it falls since the last sample or request.
    pub(crate) fn expected(&self, now: Instant) -> f32 {
        let picked = self.picked.load(Relaxed);
        if picked == NEVER {
            return 0.0;
        }
        let tick = self.tick(now);
        let packed = self.estimate.load(Relaxed);
        if packed == 0 {
            return UNKNOWN * remaining(since(tick, picked));
        }
        let (estimate, sampled) = unpack(packed);
        estimate * remaining(since(tick, picked).min(since(tick, sampled)))
    }

    /// Takes a sample of the latency, in seconds.
    fn sample(&self, seconds: f32, now: Instant) {
        let tick = self.tick(now);
        // A lost race loses one sample among many, which is cheaper than a loop.
        let packed = self.estimate.load(Relaxed);
        let (estimate, sampled) = unpack(packed);
        let next = if packed == 0 || seconds >= estimate {
            seconds
        } else {
            let elapsed = since(tick, sampled);
            if elapsed == 0 {
                return;
            }
            let kept = remaining(elapsed);
            estimate * kept + seconds * (1.0 - kept)
        };
        // A sample of nothing at the very first tick would read as "no sample".
        self.estimate.store(pack(next.max(f32::MIN_POSITIVE), tick), Relaxed);
    }

    fn change_health(&self, change: impl Fn(Health) -> Health) {
        let _ =
            self.health.fetch_update(Relaxed, Relaxed, |packed| Some(change(Health::unpack(packed)).pack()));
    }

    /// Milliseconds since the load was made.
    fn tick(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.made).as_millis() as u32
    }
}

/// Milliseconds between two ticks; none where another worker's tick is a little ahead of ours.
fn since(now: u32, then: u32) -> u32 {
    let elapsed = now.wrapping_sub(then);
    if then.wrapping_sub(now) < 1_000 { 0 } else { elapsed }
}

/// The share of an estimate that is left after so many milliseconds.
fn remaining(millis: u32) -> f32 {
    if millis == 0 { 1.0 } else { (-(millis as f32) / (1_000.0 * DECAY)).exp() }
}

fn pack(estimate: f32, tick: u32) -> u64 {
    u64::from(estimate.to_bits()) << 32 | u64::from(tick)
}

fn unpack(packed: u64) -> (f32, u32) {
    (f32::from_bits((packed >> 32) as u32), packed as u32)
}

/// Passive health: what was seen of attempts to connect.
#[derive(Debug, Clone, Copy)]
struct Health {
    /// Failures in a row, 0 to 16.
    failures: u16,
    /// Whether a request was let through after the pause, to try.
    trial: bool,
    /// The tick until which requests are kept away.
    until: u32,
}

impl Health {
    fn paused(self, tick: u32) -> bool {
        // The distance is at most a pause's length, so a wrapped clock is told apart.
        self.failures > 0 && self.until.wrapping_sub(tick).wrapping_sub(1) < LONGEST_PAUSE
    }

    fn failed(self, tick: u32) -> Self {
        if self.paused(tick) && !self.trial {
            return self;
        }
        let failures = (self.failures + 1).min(16);
        let pause = (FIRST_PAUSE << (failures - 1)).min(LONGEST_PAUSE);
        Self { failures, trial: false, until: tick.wrapping_add(pause) }
    }

    fn tried(self, tick: u32) -> Self {
        if self.failures == 0 || self.paused(tick) {
            return self;
        }
        Self { trial: true, until: tick.wrapping_add(TRIAL), ..self }
    }

    fn pack(self) -> u64 {
        u64::from(self.failures) << 48 | u64::from(self.trial) << 32 | u64::from(self.until)
    }

    fn unpack(packed: u64) -> Self {
        Self { failures: (packed >> 48) as u16, trial: packed >> 32 & 1 == 1, until: packed as u32 }
    }
}

/// One request at an endpoint. Dropping it counts the endpoint as free again.
#[derive(Debug)]
#[must_use = "dropping it says that the request is over"]
pub struct InFlight {
    load: Arc<Load>,
    started: Instant,
    answered: bool,
}

impl InFlight {
    /// The head of the response has come: the time since the start is a sample of the endpoint's latency. Only the
    /// first call counts.
    pub fn response(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.answered, true) {
            self.load.sample(self.elapsed(now), now);
        }
    }

    /// The request failed at the endpoint (no connection, reset, timed out): counts as a slow answer, however quick
    /// the failure was. May follow [`response`](Self::response), where the body broke.
    pub fn failure(&mut self, now: Instant) {
        self.answered = true;
        self.load.sample(self.elapsed(now).max(FAILURE), now);
    }

    /// The load of the endpoint that has the request.
    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }

    fn elapsed(&self, now: Instant) -> f32 {
        now.saturating_duration_since(self.started).as_secs_f32()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.load.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;

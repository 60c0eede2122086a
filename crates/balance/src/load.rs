//! What is known of one endpoint: how many requests it has, how fast it answers, whether it can be reached.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

mod health;
mod in_flight;

pub use self::health::{Cause, Standing, State};
use self::health::{Ejection, Health};
pub use self::in_flight::InFlight;

/// The time constant with which an estimate of latency falls, in seconds: after 10 s less than 1% of a peak is left.
const DECAY: f32 = 2.0;
/// The time constant of what is less, as a multiple of it: to try again what takes milliseconds costs milliseconds.
const PATIENCE: f32 = 5.0;
/// The shortest time constant, in seconds.
const SHORTEST_DECAY: f32 = 0.1;
/// How fast what is usual rises with each sample that is higher.
const RISE: f32 = 1.1;
/// What takes less than this, in seconds, makes no difference whether it falls or not.
const NEGLIGIBLE: f32 = 0.001;
/// A peak of this many seconds may be anybody's accident: a process that had to wait for its processor.
const ACCIDENT: f32 = 0.05;
/// What an endpoint counts as that was given a request and has never answered one, in seconds.
const UNKNOWN: f32 = 1.0;
/// How long an endpoint that says it is leaving is left alone, in milliseconds. Then it is looked at again.
const LEAVING: u32 = 30_000;

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
    /// What requests usually take at least, in seconds (the bits of an `f32`); `0` before the first sample. Peaks do not
    /// show in it.
    usual: AtomicU32,
    /// Why requests are kept away, see [`Health`]; `0`: nothing keeps them.
    health: AtomicU64,
    /// The last ejection, see [`Ejection`]; `0`: there was none.
    ejection: AtomicU64,
    /// When it was well again; `0`: since it was made.
    recovered: AtomicU32,
    /// When what keeps requests away began.
    turned: AtomicU32,
    /// Until when it is left alone because it is leaving.
    leaves: AtomicU32,
    weight: u32,
    made: Instant,
    /// What its backend's outlier detection counts; untouched where that is off.
    pub(crate) counts: Counts,
}

/// What outlier detection counts of one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Failures in a row.
    pub(crate) failures: AtomicU32,
    /// Connections in a row that could not be made.
    pub(crate) connect_failures: AtomicU32,
    /// Requests that went well since the last comparison.
    pub(crate) good: AtomicU32,
    /// Requests that failed since then.
    pub(crate) bad: AtomicU32,
    /// Heads of responses since then.
    pub(crate) answers: AtomicU32,
    /// What these took together, in microseconds.
    pub(crate) micros: AtomicU64,
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
            usual: AtomicU32::new(0),
            health: AtomicU64::new(0),
            ejection: AtomicU64::new(0),
            recovered: AtomicU32::new(0),
            turned: AtomicU32::new(0),
            leaves: AtomicU32::new(0),
            weight: weight.max(1),
            made: now,
            counts: Counts::default(),
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
            self.try_again(tick);
        }
        InFlight::new(Arc::clone(self), now)
    }

    /// Keeps requests away for a while after a failure to connect: 1 s, and twice as long with each failure in a row,
    /// up to 30 s. Failures during such a pause belong to the failure that began it. When the pause is over, one
    /// request at a time tries the endpoint, once a second, until [`succeeded`](Self::succeeded).
    pub fn failed(&self, now: Instant) {
        let tick = self.tick(now);
        self.turn(tick, |health| health.failed(tick));
    }

    /// Keeps requests away for 30 s at once, because another answers there than the one expected. The rest is as after
    /// [`failed`](Self::failed).
    pub fn met_stranger(&self, now: Instant) {
        let tick = self.tick(now);
        self.turn(tick, |health| health.met_stranger(tick));
    }

    /// Ends what [`failed`](Self::failed) or [`met_stranger`](Self::met_stranger) began: the endpoint was reached.
    pub fn succeeded(&self) {
        if self.health.load(Relaxed) != 0 {
            self.change_health(Health::succeeded);
        }
    }

    /// Keeps requests away for 30 s because the endpoint says that it is leaving. A request that succeeds there does not
    /// end this: [`stays`](Self::stays) does.
    pub fn leaving(&self, now: Instant) {
        let tick = self.tick(now);
        self.leaves.store(tick.wrapping_add(LEAVING), Relaxed);
        self.turn(tick, |health| Health { leaving: true, ..health });
    }

    /// Ends what [`leaving`](Self::leaving) began.
    pub fn stays(&self, now: Instant) {
        if self.health.load(Relaxed) != 0 {
            let was = self.change_health(|health| Health { leaving: false, ..health });
            self.recover(was.leaving, self.tick(now));
        }
    }

    /// Whether the endpoint has said that it is leaving, and was not found to stay since.
    pub fn is_said_to_leave(&self) -> bool {
        let health = self.health.load(Relaxed);
        health != 0 && Health::unpack(health).leaving
    }

    /// Notes what an active check found, once it is sure of it.
    pub fn checked(&self, well: bool, now: Instant) {
        let tick = self.tick(now);
        if !well {
            self.turn(tick, |health| Health { ill: true, ..health });
        } else if self.health.load(Relaxed) != 0 {
            let was = self.change_health(|health| Health { ill: false, ..health });
            self.recover(was.ill, tick);
        }
    }

    /// Keeps requests away for `base`, and twice as long with each ejection in a row, up to `most`. One such doubling is
    /// forgotten for each `base` that the endpoint was well since.
    pub(crate) fn eject(&self, cause: Cause, base: Duration, most: Duration, now: Instant) {
        let tick = self.tick(now);
        let before = Ejection::unpack(self.ejection.load(Relaxed));
        self.ejection.store(Ejection::next(before, cause, base, most, tick).pack(), Relaxed);
        self.turn(tick, |health| Health { ejected: true, ..health });
        self.counts.failures.store(0, Relaxed);
        self.counts.connect_failures.store(0, Relaxed);
    }

    /// Ends an ejection, if it was for one of these causes. `None`: whatever it was for.
    pub(crate) fn pardon(&self, only: Option<Cause>, now: Instant) {
        let tick = self.tick(now);
        let Some(ejection) = self.ejected(tick) else { return };
        if only.is_none_or(|cause| cause == ejection.cause) {
            self.ejection.store(Ejection { until: tick, ..ejection }.pack(), Relaxed);
            self.change_health(|health| Health { ejected: false, ..health });
        }
    }

    /// Whether it is ejected.
    pub(crate) fn is_ejected(&self, now: Instant) -> bool {
        self.health.load(Relaxed) != 0 && self.ejected(self.tick(now)).is_some()
    }

    /// Whether it was still ejected then, so that what was begun then says nothing new.
    pub(crate) fn was_ejected(&self, then: Instant) -> bool {
        self.ejection.load(Relaxed) != 0 && self.ejected(self.tick(then)).is_some()
    }

    /// Forgets that it was ejected once that is over: then it costs nothing any more.
    pub(crate) fn tidy(&self, base: Duration, now: Instant) {
        let tick = self.tick(now);
        let health = Health::unpack(self.health.load(Relaxed));
        let ejection = Ejection::unpack(self.ejection.load(Relaxed));
        if let Some(ejection) = ejection.filter(|ejection| !ahead(ejection.until, tick)) {
            if health.ejected {
                self.change_health(|health| Health { ejected: false, ..health });
                self.recover(true, ejection.until);
            }
            if ejection.is_forgiven(base, tick) {
                self.ejection.store(0, Relaxed);
            }
        }
    }

    /// Whether requests should go to the endpoint.
    pub fn available(&self, now: Instant) -> bool {
        let health = self.health.load(Relaxed);
        health == 0 || self.kept_away(Health::unpack(health), self.tick(now)).is_none()
    }

    /// Whether it could take a request where the judgement that it is not well may be wrong: it is there, as far as is
    /// known, and means to stay.
    pub fn reachable(&self, now: Instant) -> bool {
        let packed = self.health.load(Relaxed);
        let (health, tick) = (Health::unpack(packed), self.tick(now));
        let leaving = || health.leaving && ahead(self.leaves.load(Relaxed), tick);
        let out = || self.ejected(tick).is_some_and(|ejection| ejection.cause == Cause::ConnectFailures);
        packed == 0 || !(health.paused(tick) || leaving() || (health.ejected && out()))
    }

    /// For how long it has been well: since it was made, or since requests last could go there again.
    pub fn age_since_recovery(&self, now: Instant) -> Duration {
        let tick = self.tick(now);
        let ejection = Ejection::unpack(self.ejection.load(Relaxed));
        let since_ejection = ejection.map(|ejection| millis(since(tick, ejection.until)));
        let recovered = match self.recovered.load(Relaxed) {
            0 => now.saturating_duration_since(self.made),
            recovered => millis(since(tick, recovered)),
        };
        since_ejection.map_or(recovered, |ejected| ejected.min(recovered))
    }

    /// What an operator wants to know of it.
    pub fn standing(&self, now: Instant) -> Standing {
        let tick = self.tick(now);
        let health = Health::unpack(self.health.load(Relaxed));
        let Some(state) = self.kept_away(health, tick) else {
            let state = if health.failures > 0 { State::Trial } else { State::Well };
            return Standing { state, since: self.age_since_recovery(now), left: None };
        };
        let until = match state {
            State::Ejected(_) => self.ejected(tick).map(|ejection| ejection.until),
            State::Leaving => Some(self.leaves.load(Relaxed)),
            State::Unreachable | State::Stranger => Some(health.until),
            State::Ill | State::Trial | State::Well => None,
        };
        let left = until.map(|until| millis(until.wrapping_sub(tick)));
        Standing { state, since: millis(since(tick, self.turned.load(Relaxed))), left }
    }

    /// Why requests are kept away, if they are.
    fn kept_away(&self, health: Health, tick: u32) -> Option<State> {
        if health.ill {
            return Some(State::Ill);
        }
        if health.ejected
            && let Some(ejection) = self.ejected(tick)
        {
            return Some(State::Ejected(ejection.cause));
        }
        if health.paused(tick) {
            return Some(if health.stranger { State::Stranger } else { State::Unreachable });
        }
        (health.leaving && ahead(self.leaves.load(Relaxed), tick)).then_some(State::Leaving)
    }

    /// The ejection that it is in.
    fn ejected(&self, tick: u32) -> Option<Ejection> {
        Ejection::unpack(self.ejection.load(Relaxed)).filter(|ejection| ahead(ejection.until, tick))
    }

    /// A request is given to it although something was wrong.
    #[cold]
    fn try_again(&self, tick: u32) {
        let health = Health::unpack(self.health.load(Relaxed));
        if health.failures > 0 && !health.paused(tick) {
            self.change_health(|health| health.tried(tick));
            // Its age counts from the request that finds it well.
            self.recover(true, tick);
        }
    }

    fn recover(&self, really: bool, tick: u32) {
        if really {
            self.recovered.store(tick.max(1), Relaxed);
        }
    }

    /// The latency in seconds by which the endpoint is chosen: what its requests usually take, or a peak of late beyond what
    /// may be an accident. Equal endpoints so get the same, however noisy they are, and one that is slow gets little at once.
    pub(crate) fn felt(&self, now: Instant) -> f32 {
        let usual = f32::from_bits(self.usual.load(Relaxed));
        if usual <= 0.0 {
            return self.expected(now);
        }
        let (peak, _) = unpack(self.estimate.load(Relaxed));
        if usual.max(peak - ACCIDENT) <= NEGLIGIBLE {
            return usual;
        }
        let idle = since(self.tick(now), self.picked.load(Relaxed));
        let usual = usual * remaining(usual, idle);
        // It only falls.
        if peak <= ACCIDENT { usual } else { usual.max(self.expected(now) - ACCIDENT) }
    }

    /// The estimate of latency in seconds: it falls since the last sample or request.
    pub(crate) fn expected(&self, now: Instant) -> f32 {
        let picked = self.picked.load(Relaxed);
        if picked == NEVER {
            return 0.0;
        }
        let tick = self.tick(now);
        let packed = self.estimate.load(Relaxed);
        if packed == 0 {
            return UNKNOWN * remaining(UNKNOWN, since(tick, picked));
        }
        let (estimate, sampled) = unpack(packed);
        estimate * remaining(estimate, since(tick, picked).min(since(tick, sampled)))
    }

    /// Takes a sample of the latency, in seconds.
    fn sample(&self, seconds: f32, now: Instant) {
        let tick = self.tick(now);
        self.sample_usual(seconds, tick);
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
            let kept = remaining(estimate, elapsed);
            estimate * kept + seconds * (1.0 - kept)
        };
        // A sample of nothing at the very first tick would read as "no sample".
        self.estimate.store(pack(next.max(f32::MIN_POSITIVE), tick), Relaxed);
    }

    fn sample_usual(&self, seconds: f32, tick: u32) {
        let usual = f32::from_bits(self.usual.load(Relaxed));
        let (_, sampled) = unpack(self.estimate.load(Relaxed));
        let fallen = usual * remaining(usual, since(tick, sampled));
        let next = if usual <= 0.0 {
            seconds
        } else if seconds < fallen {
            f32::midpoint(fallen, seconds)
        } else {
            seconds.min(usual * RISE)
        };
        self.usual.store(next.max(f32::MIN_POSITIVE).to_bits(), Relaxed);
    }

    /// Changes what keeps requests away, and notes when that began.
    #[cold]
    fn turn(&self, tick: u32, change: impl Fn(Health) -> Health) {
        let was = self.change_health(change);
        if self.kept_away(was, tick).is_none() && was.failures == 0 {
            self.turned.store(tick, Relaxed);
        }
    }

    /// Changes what keeps requests away. What it was before.
    fn change_health(&self, change: impl Fn(Health) -> Health) -> Health {
        let change = |packed| Some(change(Health::unpack(packed)).pack());
        let (Ok(was) | Err(was)) = self.health.fetch_update(Relaxed, Relaxed, change);
        Health::unpack(was)
    }

    /// Milliseconds since the load was made.
    fn tick(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.made).as_millis() as u32
    }
}

const fn millis(millis: u32) -> Duration {
    Duration::from_millis(millis as u64)
}

/// Whether a tick is still to come; it is never more than 24 days ahead, so that a wrapped clock is told apart.
const fn ahead(then: u32, tick: u32) -> bool {
    then.wrapping_sub(tick).wrapping_sub(1) < u32::MAX / 2
}

/// Milliseconds between two ticks; none where another worker's tick is a little ahead of ours.
fn since(now: u32, then: u32) -> u32 {
    let elapsed = now.wrapping_sub(then);
    if then.wrapping_sub(now) < 1_000 { 0 } else { elapsed }
}

/// The share of an estimate, in seconds, that is left after so many milliseconds.
fn remaining(estimate: f32, millis: u32) -> f32 {
    if millis == 0 {
        return 1.0;
    }
    (-(millis as f32) / (1_000.0 * (estimate * PATIENCE).clamp(SHORTEST_DECAY, DECAY))).exp()
}

fn pack(estimate: f32, tick: u32) -> u64 {
    u64::from(estimate.to_bits()) << 32 | u64::from(tick)
}

fn unpack(packed: u64) -> (f32, u32) {
    (f32::from_bits((packed >> 32) as u32), packed as u32)
}

#[cfg(test)]
mod tests;

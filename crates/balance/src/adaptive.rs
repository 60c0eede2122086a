//! How many requests a backend can have in flight, found out from how long it takes to answer them.
//!
//! Like Netflix's Gradient2 (concurrency-limits, `Gradient2Limit`) and Envoy's adaptive concurrency filter this compares
//! the latency of now with that of an application that is not overloaded, and moves the limit by their ratio, with
//! the square root of the limit as headroom. What is different is where the second latency comes from:
//! - Gradient2 takes a long average, which under lasting overload rises to what it should be compared with. Envoy sets
//!   the limit to a few requests every minute in order to measure, and refuses the rest meanwhile.
//! - Here, now and then while the limit is reached, it is lowered for one window to a little less than keeps the
//!   application busy (Little's law: what is in flight, times the ratio of the two latencies), so that what was queued is
//!   worked off. An application that has no queue answers at its own pace, and hardly fewer requests in that window.
//! - Where fewer requests in flight are no quicker, it was no queue: the application has become slower, and that is its
//!   pace from then on. Otherwise a slow database would have the limit fall to its least.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fastrand::Rng;
use outrigger_config::backend::AdaptiveConcurrency;

/// The limit of a backend that nothing is known of yet, within its bounds.
const START: u32 = 20;
/// The least length of a window.
const WINDOW: Duration = Duration::from_millis(100);
/// The fewest answers in a window.
const SAMPLES: u32 = 50;
/// As many times the pace a latency counts as at most.
const LONGEST: f64 = 10.0;
/// How much of what keeps the application busy is left in flight in order to measure its pace.
const PROBE: f64 = 0.8;
/// After how many windows at the limit that is done at first, each time after twice as many, and from then on: so many, and
/// up to half as many more at random.
const FIRST_PROBE: u32 = 4;
const PROBE_EVERY: u32 = 32;
/// By which share of the way the pace follows a lower latency, a higher one under light load, and a higher one otherwise,
/// as long as it is tolerated.
const MEASURED: f64 = 0.5;
const FALL: f64 = 0.1;
const RISE_LIGHT: f64 = 0.1;
const RISE: f64 = 0.02;
/// A latency within this of the pace is the pace.
const SAME: f64 = 0.95;
/// How far what is in flight has to fall before it is seen whether the latency falls with it.
const TELLING: f64 = 0.5;
/// As far as it is the same load.
const SIMILAR: f64 = 0.9;
/// In how many windows one after the other it has not, until that is believed.
const TOLD: u32 = 2;

/// Finds out how many requests may be in flight. Shared by all workers: an answer adds to two atomics, and once in a
/// window one of the workers works out the limit.
#[derive(Debug)]
pub struct Adaptive {
    spec: AdaptiveConcurrency,
    most: u32,
    made: Instant,
    allowed: AtomicU32,
    /// When the window under way begins and when it may end, in microseconds since this was made.
    opens: AtomicU64,
    closes: AtomicU64,
    /// What a latency counts as at most, in microseconds: one that is very long does not outweigh all others.
    longest: AtomicU32,
    /// In microseconds.
    latencies: Mean,
    /// How many were in flight at each answer.
    loads: Mean,
    peak: AtomicU32,
    /// Nobody ever waits for it: it is the window's end that is claimed.
    course: Mutex<Course>,
}

impl Adaptive {
    /// A limit within the bounds of the configuration, and of `most`.
    pub fn new(spec: &AdaptiveConcurrency, most: u32, now: Instant, random: Rng) -> Self {
        let most = most.max(1);
        let least = spec.min.clamp(1, most);
        let start = START.clamp(least, most);
        let course = Course {
            least: f64::from(least),
            most: f64::from(most),
            tolerance: f64::from(spec.tolerance_percent) / 100.0,
            limit: f64::from(start),
            pace: None,
            crest: None,
            flat: 0,
            starting: true,
            probe: None,
            until_probe: FIRST_PROBE,
            interval: FIRST_PROBE,
            random,
        };
        Self {
            spec: *spec,
            most,
            made: now,
            allowed: AtomicU32::new(start),
            opens: AtomicU64::new(0),
            closes: AtomicU64::new(micros(WINDOW)),
            longest: AtomicU32::new(u32::MAX),
            latencies: Mean::default(),
            loads: Mean::default(),
            peak: AtomicU32::new(0),
            course: Mutex::new(course),
        }
    }

    /// Whether it was made of this configuration.
    pub(crate) fn is(&self, spec: &AdaptiveConcurrency, most: u32) -> bool {
        self.spec == *spec && self.most == most.max(1)
    }

    /// How many requests may be in flight.
    pub fn allowed(&self) -> u32 {
        self.allowed.load(Relaxed)
    }

    /// Takes note of an answer that came after `latency`, with so many in flight, itself among them. Returns how many may
    /// be from now on, where that has changed.
    pub fn answered(&self, latency: Duration, in_flight: u32, now: Instant) -> Option<u32> {
        let at = micros(now.saturating_duration_since(self.made));
        if at < self.opens.load(Relaxed) {
            return None;
        }
        let longest = self.longest.load(Relaxed);
        self.latencies.add(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX).min(longest));
        self.loads.add(in_flight);
        if in_flight > self.peak.load(Relaxed) {
            self.peak.fetch_max(in_flight, Relaxed);
        }
        if at < self.closes.load(Relaxed) || self.latencies.count() < SAMPLES {
            return None;
        }
        let mut course = self.course.try_lock().ok()?;
        if at < self.closes.load(Relaxed) {
            return None;
        }
        let window = Window {
            latency: self.latencies.take()?.max(1.0) / 1e6,
            load: self.loads.take()?,
            peak: f64::from(self.peak.swap(0, Relaxed)),
        };
        let allowed = course.step(&window).round() as u32;
        let longest = course.pace.map_or(f64::MAX, |pace| pace * LONGEST * 1e6);
        self.longest.store(longest as u32, Relaxed);
        // What is under way now was let in under the limit before: the next window begins when it is answered.
        let latency = Duration::try_from_secs_f64(window.latency).unwrap_or_default();
        let opens = at + micros(latency);
        self.opens.store(opens, Relaxed);
        self.closes.store(opens + micros(latency.max(WINDOW)), Relaxed);
        (self.allowed.swap(allowed, Relaxed) != allowed).then_some(allowed)
    }

    /// Takes note of a request that was given up after so long, if that is longer than an answer takes: while an
    /// application answers nobody in time, there is nothing else to go by.
    pub fn abandoned(&self, after: Duration, in_flight: u32, now: Instant) -> Option<u32> {
        let slow = self
            .course
            .try_lock()
            .is_ok_and(|course| course.pace.is_some_and(|pace| after.as_secs_f64() > pace));
        if slow { self.answered(after, in_flight, now) } else { None }
    }
}

/// What was seen in one window.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// The mean of the latencies, in seconds.
    latency: f64,
    /// How many were in flight on average.
    load: f64,
    /// How many were at most.
    peak: f64,
}

/// What is known, and what is tried.
#[derive(Debug)]
struct Course {
    least: f64,
    most: f64,
    tolerance: f64,
    limit: f64,
    /// The latency without a queue, in seconds.
    pace: Option<f64>,
    /// How many were in flight, and with which latency, when that was last too long.
    crest: Option<(f64, f64)>,
    /// For how many windows it has not become shorter although far fewer are in flight.
    flat: u32,
    /// Whether it has never been too long: then the limit doubles.
    starting: bool,
    /// While the pace is measured: the limit to go back to.
    probe: Option<f64>,
    /// Windows at the limit until it is measured again.
    until_probe: u32,
    /// How many those were the last time.
    interval: u32,
    random: Rng,
}

impl Course {
    /// The limit after a window.
    fn step(&mut self, window: &Window) -> f64 {
        let pace = *self.pace.get_or_insert(window.latency);
        let next = match self.probe.take() {
            Some(back) => self.measured(window, pace, back),
            None => self.steer(window, pace),
        };
        self.limit = next.clamp(self.least, self.most);
        self.limit
    }

    /// The pace was measured. Where it turns out to be quicker than it was taken for, there may be a queue still.
    fn measured(&mut self, window: &Window, pace: f64, back: f64) -> f64 {
        if window.latency < pace * SAME && window.load * PROBE >= self.least {
            self.pace = Some(window.latency);
            self.probe = Some(back);
            return window.load * PROBE;
        }
        self.follow(window.latency, if window.latency < pace { MEASURED } else { FALL });
        self.interval = (self.interval * 2).min(PROBE_EVERY);
        self.until_probe = self.interval + self.random.u32(..self.interval / 2);
        back
    }

    fn steer(&mut self, window: &Window, pace: f64) -> f64 {
        let limit = self.limit;
        if window.latency < pace {
            self.follow(window.latency, FALL);
        }
        let ratio = self.tolerance * pace / window.latency;
        if window.peak < limit / 4.0 || (window.peak < limit / 2.0 && ratio < 1.0) {
            // It is not the limit that matters, and nothing is queued that is ours.
            self.crest = None;
            self.follow(window.latency, RISE_LIGHT);
            return limit;
        }
        self.until_probe = self.until_probe.saturating_sub(1);
        if self.until_probe == 0 {
            self.probe = Some(limit);
            return window.load * (pace / window.latency).min(1.0) * PROBE;
        }
        if ratio >= 1.0 {
            self.crest = None;
            self.follow(window.latency, RISE);
            return limit + if self.starting { limit } else { limit.sqrt() };
        }
        self.starting = false;
        if self.is_slower_by_itself(window) {
            self.pace = Some(window.latency);
            return limit;
        }
        limit * ratio.max(0.5) + limit.sqrt()
    }

    /// Whether far fewer in flight are not answered much sooner.
    fn is_slower_by_itself(&mut self, window: &Window) -> bool {
        let now = (window.load, window.latency);
        let (load, latency) = *self.crest.get_or_insert(now);
        let left = window.load / load;
        if left > TELLING {
            if left > SIMILAR && window.latency > latency {
                (self.crest, self.flat) = (Some(now), 0);
            }
            return false;
        }
        // A queue would be shorter by as much.
        if window.latency < latency * f64::midpoint(1.0, left) {
            (self.crest, self.flat) = (Some(now), 0);
            return false;
        }
        self.flat += 1;
        if self.flat < TOLD {
            return false;
        }
        (self.crest, self.flat) = (None, 0);
        true
    }

    /// Moves the pace towards a latency.
    fn follow(&mut self, latency: f64, share: f64) {
        if let Some(pace) = &mut self.pace {
            *pace += (latency - *pace) * share;
        }
    }
}

/// A sum of values, 48 bits, below the number of them, so that both are added to at once.
#[derive(Debug, Default)]
struct Mean(AtomicU64);

const SUM: u32 = 48;

impl Mean {
    fn add(&self, value: u32) {
        // Room for those who have looked, and not added yet.
        if self.count() < 60_000 {
            self.0.fetch_add(1 << SUM | u64::from(value), Relaxed);
        }
    }

    fn count(&self) -> u32 {
        (self.0.load(Relaxed) >> SUM) as u32
    }

    /// The mean of what was added since it was last taken.
    fn take(&self) -> Option<f64> {
        let packed = self.0.swap(0, Relaxed);
        let count = packed >> SUM;
        let sum = packed & ((1 << SUM) - 1);
        (count > 0).then(|| sum as f64 / count as f64)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

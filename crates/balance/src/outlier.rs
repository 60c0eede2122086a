//! Outlier detection: which endpoints are kept out because of what they answer.
//!
//! Failures in a row eject at once, on whichever thread the last of them is seen. Rates and latencies are compared now
//! and then by whoever calls [`Outliers::tend`]. Only an ejection takes a lock, and the comparison.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use outrigger_config::backend::{LatencyOutlier, OutlierDetection, SuccessRate};

use crate::{Cause, Load};

/// The outlier detection of one backend, shared by all threads.
#[derive(Debug)]
pub struct Outliers {
    spec: OutlierDetection,
    loads: Box<[Arc<Load>]>,
    kept: Arc<Kept>,
}

/// What is carried over from one configuration to the next.
#[derive(Debug)]
struct Kept {
    /// When endpoints were last compared. Held while it is decided who is ejected, so that never too many are.
    compared: Mutex<Instant>,
    /// By the place of their cause in [`Cause::ALL`].
    ejections: [AtomicU64; 4],
}

impl Outliers {
    /// Detection among these endpoints, which goes on from where it was `before`.
    pub fn new(spec: &OutlierDetection, loads: &[Arc<Load>], before: Option<&Self>, now: Instant) -> Self {
        let kept = before.map_or_else(
            || Arc::new(Kept { compared: Mutex::new(now), ejections: [const { AtomicU64::new(0) }; 4] }),
            |before| before.kept.clone(),
        );
        Self { spec: *spec, loads: loads.into(), kept }
    }

    /// How often endpoints were ejected for this cause.
    pub fn ejections(&self, cause: Cause) -> u64 {
        self.kept.ejections.get(cause as usize).map_or(0, |count| count.load(Relaxed))
    }

    /// Ends every ejection, because there is no detection any more.
    pub fn pardon(&self, now: Instant) {
        let _deciding = self.deciding();
        self.loads.iter().for_each(|load| load.pardon(None, now));
    }

    /// The endpoint can be connected to, as an active check shows: ends an ejection because it could not.
    pub fn reached(&self, load: &Load, now: Instant) {
        load.counts.connect_failures.store(0, Relaxed);
        load.pardon(Some(Cause::ConnectFailures), now);
    }

    /// Compares the endpoints with each other, if it is time to. To be called every now and then, from any thread.
    pub fn tend(&self, now: Instant) {
        let mut compared = self.deciding();
        let base = self.spec.base_ejection_time.get();
        self.loads.iter().for_each(|load| load.tidy(base, now));
        if now.saturating_duration_since(*compared) < self.spec.interval.get() {
            return;
        }
        *compared = now;
        let heard: Vec<Heard<'_>> = self.loads.iter().map(Heard::take).collect();
        if let Some(spec) = &self.spec.success_rate {
            for load in rarely_successful(spec, &heard) {
                self.eject(load, Cause::SuccessRate, now);
            }
        }
        if let Some(spec) = &self.spec.latency {
            for load in slow(spec, &heard) {
                self.eject(load, Cause::Latency, now);
            }
        }
    }

    /// The head of a response came after so long.
    pub(crate) fn answered(&self, load: &Load, latency: Duration) {
        if load.counts.connect_failures.load(Relaxed) != 0 {
            load.counts.connect_failures.store(0, Relaxed);
        }
        if self.spec.latency.is_some() {
            load.counts.answers.fetch_add(1, Relaxed);
            load.counts.micros.fetch_add(latency.as_micros() as u64, Relaxed);
        }
    }

    /// A request that was begun then went well.
    pub(crate) fn succeeded(&self, load: &Load, started: Instant) {
        if load.counts.failures.load(Relaxed) != 0 && !load.was_ejected(started) {
            load.counts.failures.store(0, Relaxed);
        }
        if self.spec.success_rate.is_some() {
            load.counts.good.fetch_add(1, Relaxed);
        }
    }

    /// A request that was begun then failed. What was begun before an ejection was over is a part of what led to it.
    pub fn failed(&self, load: &Load, started: Instant, now: Instant) {
        if load.was_ejected(started) {
            return;
        }
        if self.spec.success_rate.is_some() {
            load.counts.bad.fetch_add(1, Relaxed);
        }
        let (row, most) = (&load.counts.failures, self.spec.consecutive_failures);
        self.judge(row, most, load, Cause::Failures, now);
    }

    /// No connection could be made for a request that was begun then.
    pub(crate) fn unconnected(&self, load: &Load, started: Instant, now: Instant) {
        if load.was_ejected(started) {
            return;
        }
        let (row, most) = (&load.counts.connect_failures, self.spec.consecutive_connect_failures);
        self.judge(row, most, load, Cause::ConnectFailures, now);
    }

    /// Counts one more of a row of failures, and ejects the endpoint once they are as many as may be.
    fn judge(&self, row: &AtomicU32, most: u32, load: &Load, cause: Cause, now: Instant) {
        let failures = row.fetch_add(1, Relaxed) + 1;
        if most == 0 || failures < most {
            return;
        }
        let _deciding = self.deciding();
        if !self.eject(load, cause, now) {
            // As many more are needed before it is asked again whether one more may be ejected.
            row.store(0, Relaxed);
        }
    }

    /// Ejects an endpoint, unless too many are ejected by then; whoever calls this decides alone. Whether it is ejected.
    fn eject(&self, load: &Load, cause: Cause, now: Instant) -> bool {
        if load.is_ejected(now) {
            return true;
        }
        let ejected = self.loads.iter().filter(|load| load.is_ejected(now)).count();
        if ejected >= self.most() {
            return false;
        }
        load.eject(cause, self.spec.base_ejection_time.get(), self.spec.max_ejection_time.get(), now);
        if let Some(count) = self.kept.ejections.get(cause as usize) {
            count.fetch_add(1, Relaxed);
        }
        true
    }

    /// How many may be ejected at a time.
    fn most(&self) -> usize {
        let share = self.loads.len() * self.spec.max_ejection_percent.min(100) as usize / 100;
        if self.loads.len() > 1 { share.max(1) } else { 0 }
    }

    fn deciding(&self) -> MutexGuard<'_, Instant> {
        self.kept.compared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was counted of an endpoint since it was last compared.
struct Heard<'a> {
    load: &'a Load,
    good: u32,
    bad: u32,
    answers: u32,
    micros: u64,
}

impl<'a> Heard<'a> {
    fn take(load: &'a Arc<Load>) -> Self {
        let counts = &load.counts;
        Self {
            load,
            good: counts.good.swap(0, Relaxed),
            bad: counts.bad.swap(0, Relaxed),
            answers: counts.answers.swap(0, Relaxed),
            micros: counts.micros.swap(0, Relaxed),
        }
    }
}

/// Those whose share of successes is far below the others', the worst first.
fn rarely_successful<'a>(spec: &SuccessRate, heard: &[Heard<'a>]) -> Vec<&'a Load> {
    let mut rates: Vec<(f64, &Load)> = heard
        .iter()
        .map(|heard| (f64::from(heard.good), f64::from(heard.good) + f64::from(heard.bad), heard.load))
        .filter(|(_, all, _)| *all >= f64::from(spec.min_requests.max(1)))
        .map(|(good, all, load)| (good / all, load))
        .collect();
    if rates.len() < spec.min_endpoints as usize {
        return Vec::new();
    }
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(rate, _)| rate).sum::<f64>() / count;
    let variance = rates.iter().map(|(rate, _)| (rate - mean).powi(2)).sum::<f64>() / count;
    let least = mean - variance.sqrt() * f64::from(spec.stdev_factor) / 1000.0;
    rates.retain(|(rate, _)| *rate < least);
    rates.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    rates.into_iter().map(|(_, load)| load).collect()
}

/// Those that are far slower than the others, the slowest first.
fn slow<'a>(spec: &LatencyOutlier, heard: &[Heard<'a>]) -> Vec<&'a Load> {
    let mut means: Vec<(f64, &Load)> = heard
        .iter()
        .filter(|heard| heard.answers >= spec.min_requests.max(1))
        .map(|heard| (heard.micros as f64 / f64::from(heard.answers), heard.load))
        .collect();
    if means.len() < (spec.min_endpoints as usize).max(2) {
        return Vec::new();
    }
    means.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    let outlier = |&(at, &(mean, _)): &(usize, &(f64, &Load))| {
        mean * 100.0 >= median_of_others(&means, at) * f64::from(spec.factor_percent) && mean > 0.0
    };
    means.iter().enumerate().filter(outlier).map(|(_, (_, load))| *load).rev().collect()
}

/// The median of sorted means but the one at this place.
fn median_of_others(means: &[(f64, &Load)], at: usize) -> f64 {
    let other =
        |place: usize| means.get(place + usize::from(place >= at)).map_or(f64::MAX, |(mean, _)| *mean);
    let others = means.len().saturating_sub(1);
    if others % 2 == 1 { other(others / 2) } else { f64::midpoint(other(others / 2 - 1), other(others / 2)) }
}

#[cfg(test)]
mod tests;

//! What was seen in a sample, and whether it may be believed.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::Load;

/// By how much the achieved rate may miss the one that was asked for.
const TOLERANCE: f64 = 0.01;

/// What was seen in one sample: one load on one subject for some seconds.
#[derive(Debug, Clone)]
pub struct Measured {
    /// From when a request was due until its whole answer was there, in nanoseconds; of those that were answered.
    pub latency: Histogram<u64>,
    /// What the generator itself was late by, in nanoseconds: from when a request was due until it was handed to a
    /// connection or, where none was free, until the generator knew that it was due. Of all that fell due; none where
    /// the load was saturated.
    pub lag: Histogram<u64>,
    /// Requests that fell due.
    pub due: u64,
    /// Requests that were answered as they should be.
    pub answered: u64,
    /// Those of them that were answered in time: by [`Measured::time`] after the start and the shortest latency seen,
    /// since an answer that takes as long as any comes as much later than its request, and is not missing from the rate.
    pub in_time: u64,
    /// Requests that were not.
    pub errors: u64,
    /// What went wrong first.
    pub first_error: Option<String>,
    /// For how long requests were to fall due.
    pub time: Duration,
    /// From the start to the last answer.
    pub elapsed: Duration,
}

impl Measured {
    /// Nothing, yet.
    pub fn empty() -> Self {
        // Up to 60 s, three digits: the bounds are constants that hdrhistogram accepts.
        let histogram =
            || Histogram::new_with_bounds(10, 60_000_000_000, 3).unwrap_or_else(|_| unreachable!());
        Self {
            latency: histogram(),
            lag: histogram(),
            due: 0,
            answered: 0,
            in_time: 0,
            errors: 0,
            first_error: None,
            time: Duration::ZERO,
            elapsed: Duration::ZERO,
        }
    }

    /// Adds what another sample of the same load saw.
    pub fn merge(&mut self, other: &Self) {
        // The bounds are the same, so nothing is out of range.
        let _ = self.latency.add(&other.latency);
        let _ = self.lag.add(&other.lag);
        self.due += other.due;
        self.answered += other.answered;
        self.in_time += other.in_time;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or_else(|| other.first_error.clone());
        self.time += other.time;
        self.elapsed += other.elapsed;
    }

    /// The rate that was achieved: answers in time, in a second.
    pub fn rate(&self) -> f64 {
        if self.time.is_zero() { 0.0 } else { self.in_time as f64 / self.time.as_secs_f64() }
    }

    /// Why this does not count, if it does not: requests failed; or the rate misses the asked one by more than 1% (and by
    /// more than one request); or half the requests, or one of 100, lagged by more than what is measured. Since latency
    /// has the lag in it, that is so where a quantile of the lag is over half of the same quantile of latency.
    pub fn rejected(&self, load: &Load) -> Option<String> {
        if self.errors > 0 {
            let first = self.first_error.as_deref().unwrap_or("no reason is known");
            return Some(format!("{} of {} requests failed, the first: {first}", self.errors, self.due));
        }
        if self.answered == 0 {
            return Some("nothing was answered".into());
        }
        let asked = load.arrivals.rate()?;
        let missing = (asked * self.time.as_secs_f64() - self.in_time as f64).abs();
        if missing > 1.0 && self.rate() < asked * (1.0 - TOLERANCE) || self.rate() > asked * (1.0 + TOLERANCE)
        {
            return Some(format!(
                "{:.0} requests a second were answered, not {asked:.0}: off by more than 1%",
                self.rate()
            ));
        }
        [0.5, 0.99].into_iter().find_map(|quantile| {
            let lag = self.lag.value_at_quantile(quantile);
            let latency = self.latency.value_at_quantile(quantile);
            (lag > latency - latency.min(lag)).then(|| {
                format!(
                    "the generator lagged by {:.0} µs in {:.0} µs of latency (p{:.0}): more than half of it is its own",
                    lag as f64 / 1e3,
                    latency as f64 / 1e3,
                    quantile * 100.0
                )
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Arrivals, tests::load};

    fn measured(answered: u64, latency: u64, lag: u64) -> Measured {
        let mut measured = Measured::empty();
        measured.latency.record_n(latency, answered).unwrap();
        measured.lag.record_n(lag, answered).unwrap();
        (measured.due, measured.answered, measured.in_time) = (answered, answered, answered);
        measured.time = Duration::from_secs(1);
        measured
    }

    #[test]
    fn what_went_well_counts() {
        let load = load(Arrivals::Poisson { rate: 1000.0 });
        assert_eq!(measured(1000, 100_000, 20_000).rejected(&load), None);
        assert_eq!(measured(991, 100_000, 20_000).rejected(&load), None);
    }

    #[test]
    fn a_rate_that_is_missed_does_not() {
        let asked = load(Arrivals::Fixed { rate: 1000.0 });
        let why = measured(980, 100_000, 20_000).rejected(&asked).unwrap();
        assert_eq!(why, "980 requests a second were answered, not 1000: off by more than 1%");
        measured(1020, 100_000, 20_000).rejected(&asked).unwrap();
        assert_eq!(measured(980, 100_000, 0).rejected(&load(Arrivals::Saturated)), None);
        // One request of a few is no rate that was missed.
        assert_eq!(measured(49, 100_000, 20_000).rejected(&load(Arrivals::Fixed { rate: 50.0 })), None);
    }

    #[test]
    fn a_generator_that_lags_more_than_what_it_measures_does_not() {
        let load = load(Arrivals::Poisson { rate: 1000.0 });
        let why = measured(1000, 100_000, 60_000).rejected(&load).unwrap();
        assert!(why.starts_with("the generator lagged by 60 µs in 100 µs of latency (p50)"), "{why}");
        let mut tail = measured(980, 100_000, 1_000);
        tail.latency.record_n(1_000_000, 20).unwrap();
        tail.lag.record_n(900_000, 20).unwrap();
        tail.in_time = 1000;
        let why = tail.rejected(&load).unwrap();
        assert!(why.contains("(p99)"), "{why}");
    }

    #[test]
    fn errors_do_not_and_the_first_is_told() {
        let mut failed = measured(999, 100_000, 0);
        (failed.due, failed.errors, failed.first_error) = (1000, 1, Some("the answer was 503".into()));
        let why = failed.rejected(&load(Arrivals::Saturated)).unwrap();
        assert_eq!(why, "1 of 1000 requests failed, the first: the answer was 503");
        let why = Measured::empty().rejected(&load(Arrivals::Saturated)).unwrap();
        assert_eq!(why, "nothing was answered");
    }

    #[test]
    fn samples_add_up() {
        let mut sum = measured(10, 1000, 1);
        sum.merge(&measured(20, 2000, 1));
        assert_eq!((sum.answered, sum.latency.len(), sum.time), (30, 30, Duration::from_secs(2)));
        assert!((sum.rate() - 15.0).abs() < 1e-9);
    }
}

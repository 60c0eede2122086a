//! When requests are due: decided before the first of them is sent, and whatever becomes of it.

use std::time::Duration;

use super::Arrivals;

/// The times at which requests are due, from the start on, in order. There are rate · time of them exactly.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    kind: Kind,
    /// In seconds.
    time: f64,
    requests: u64,
    next: u64,
}

#[derive(Debug, Clone)]
enum Kind {
    Poisson { random: fastrand::Rng, last: f64 },
    Fixed { rate: f64 },
}

impl Schedule {
    /// `None` where requests are due whenever a connection is free.
    pub(super) fn new(arrivals: Arrivals, time: Duration, seed: u64) -> Option<Self> {
        let rate = arrivals.rate()?;
        let kind = match arrivals {
            Arrivals::Poisson { .. } => Kind::Poisson { random: fastrand::Rng::with_seed(seed), last: 0.0 },
            Arrivals::Fixed { .. } | Arrivals::Saturated => Kind::Fixed { rate },
        };
        let time = time.as_secs_f64();
        Some(Self { kind, time, requests: (rate * time).round() as u64, next: 0 })
    }

    /// How many are left.
    pub(super) fn left(&self) -> u64 {
        self.requests - self.next
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.next == self.requests {
            return None;
        }
        let due = match &mut self.kind {
            Kind::Fixed { rate } => self.next as f64 / *rate,
            // A Poisson process of which it is known how many arrive is as many times drawn evenly from the whole, in order
            // (so each sample has the rate that was asked for, not one that is within 1.4% of it at 5000 requests). The
            // least of n such draws from what is left is 1 - u^(1/n).
            Kind::Poisson { random, last } => {
                let left = (self.requests - self.next) as f64;
                let share = -((1.0 - random.f64()).ln() / left).exp_m1();
                *last += (self.time - *last) * share;
                *last
            }
        };
        self.next += 1;
        Some(Duration::from_secs_f64(due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn dues(arrivals: Arrivals, time: Duration, seed: u64) -> Vec<f64> {
        Schedule::new(arrivals, time, seed).unwrap().map(|due| due.as_secs_f64()).collect()
    }

    #[test]
    fn fixed_times_are_exact() {
        let dues = dues(Arrivals::Fixed { rate: 250.0 }, SECOND * 2, 1);
        assert_eq!(dues.len(), 500);
        for (index, due) in dues.iter().enumerate() {
            assert!((due - index as f64 / 250.0).abs() < 1e-9, "{index}: {due}");
        }
    }

    #[test]
    fn poisson_times_between_requests_are_exponential() {
        let dues = dues(Arrivals::Poisson { rate: 1000.0 }, SECOND * 100, 7);
        assert_eq!(dues.len(), 100_000);
        assert!(dues.is_sorted() && dues.iter().all(|due| (0.0..100.0).contains(due)));
        let mut gaps: Vec<f64> = dues.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((mean * 1000.0 - 1.0).abs() < 0.01, "{mean}");
        // Kolmogorov and Smirnov's distance from 1 - e^(-x/mean): under 1.63 / √n for 99 of 100 seeds.
        gaps.sort_by(f64::total_cmp);
        let far = gaps.iter().enumerate().map(|(index, gap)| {
            let expected = 1.0 - (-gap * 1000.0).exp();
            (expected - index as f64 / gaps.len() as f64).abs()
        });
        let far = far.fold(0.0, f64::max);
        assert!(far < 1.63 / (gaps.len() as f64).sqrt(), "{far}");
    }

    #[test]
    fn poisson_counts_in_a_window_vary_as_they_must() {
        // Requests in each of 1000 windows of 100 ms: mean 100, variance 100 (a fixed schedule has none).
        let dues = dues(Arrivals::Poisson { rate: 1000.0 }, SECOND * 100, 3);
        let mut windows = vec![0.0_f64; 1000];
        for due in &dues {
            windows[(due * 10.0) as usize] += 1.0;
        }
        let variance = windows.iter().map(|count| (count - 100.0).powi(2)).sum::<f64>() / 1000.0;
        assert!((85.0..115.0).contains(&variance), "{variance}");
    }

    #[test]
    fn a_seed_gives_the_same_again_and_another_gives_others() {
        let poisson = Arrivals::Poisson { rate: 100.0 };
        assert_eq!(dues(poisson, SECOND, 1), dues(poisson, SECOND, 1));
        assert_ne!(dues(poisson, SECOND, 1), dues(poisson, SECOND, 2));
    }

    #[test]
    fn saturation_has_no_schedule() {
        assert!(Schedule::new(Arrivals::Saturated, SECOND, 1).is_none());
        assert_eq!(dues(Arrivals::Fixed { rate: 0.1 }, SECOND, 1).len(), 0);
    }
}

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use outrigger_config::backend::{RetryBudget, RetryConstraint, RetryRate};
use proptest::prelude::*;

use crate::{Budget, Refused, backoff};

fn constraint(percent: u32, interval: u64, count: u32) -> RetryConstraint {
    RetryConstraint {
        budget: RetryBudget { percent, interval: outrigger_config::Duration::from_secs(interval) },
        min_retry_rate: RetryRate { count, interval: outrigger_config::Duration::from_secs(1) },
    }
}

#[test]
fn a_fifth_of_the_requests_may_be_retries() {
    let start = Instant::now();
    let budget = Budget::new(&constraint(20, 10, 0), start);
    assert!(!budget.try_retry(start), "nothing was requested");
    (0..100).for_each(|_| budget.request(start));
    assert_eq!((0..100).filter(|_| budget.try_retry(start)).count(), 20);
    (0..5).for_each(|_| budget.request(start));
    assert!(budget.try_retry(start) && !budget.try_retry(start));
}

#[test]
fn requests_are_forgotten_after_the_interval() {
    let start = Instant::now();
    let budget = Budget::new(&constraint(20, 10, 0), start);
    (0..100).for_each(|_| budget.request(start));
    assert!(budget.try_retry(start + Duration::from_secs(9)));
    assert!(!budget.try_retry(start + Duration::from_secs(10)));
    assert!(!budget.try_retry(start + Duration::from_secs(100_000)));
}

#[test]
fn a_minimal_rate_is_granted_without_requests() {
    let start = Instant::now();
    let budget = Budget::new(&RetryConstraint::default(), start);
    let granted = |at| (0..100).filter(|_| budget.try_retry(at)).count();
    assert_eq!(granted(start), 10);
    assert_eq!(granted(start + Duration::from_millis(500)), 5);
    assert_eq!(granted(start + Duration::from_mins(1)), 10);
}

#[test]
fn retries_of_the_minimal_rate_are_not_granted_again_as_a_share() {
    let start = Instant::now();
    let budget = Budget::new(&constraint(20, 10, 10), start);
    (0..100).for_each(|_| budget.request(start));
    assert_eq!((0..100).filter(|_| budget.try_retry(start)).count(), 20);
}

#[test]
fn nothing_granted_means_nothing() {
    let start = Instant::now();
    let budget = Budget::new(&constraint(0, 10, 0), start);
    (0..1_000).for_each(|_| budget.request(start));
    assert!(!budget.try_retry(start));
    let instant = Budget::new(&constraint(100, 0, 0), start);
    instant.request(start);
    assert!(instant.try_retry(start), "an interval of nothing is taken as the shortest");
}

/// Pauses in milliseconds, each followed by so many requests and so many attempts to retry.
fn steps() -> impl Strategy<Value = Vec<(u64, usize, usize)>> {
    proptest::collection::vec((0..2_500u64, 0..30usize, 0..30usize), 1..60)
}

proptest! {
    /// Whenever a retry is granted, those of the interval that ends then are at most the percentage of its requests.
    #[test]
    fn the_percentage_is_never_exceeded(percent in 0..=100u32, steps in steps()) {
        let start = Instant::now();
        let budget = Budget::new(&constraint(percent, 10, 0), start);
        let (mut millis, mut seconds) = (0, vec![(0, 0); 200]);
        for (pause, requests, retries) in steps {
            millis += pause;
            let now = start + Duration::from_millis(millis);
            let second = (millis / 1_000) as usize;
            (0..requests).for_each(|_| budget.request(now));
            seconds[second].0 += requests;
            let granted = (0..retries).filter(|_| budget.try_retry(now)).count();
            seconds[second].1 += granted;
            let interval = &seconds[second.saturating_sub(9)..=second];
            let requests: usize = interval.iter().map(|second| second.0).sum();
            let retries: usize = interval.iter().map(|second| second.1).sum();
            prop_assert!(granted == 0 || retries * 100 <= requests * percent as usize, "{requests} {retries}");
        }
    }

    /// The minimal rate adds what it says and no more.
    #[test]
    fn the_minimal_rate_is_never_exceeded(percent in 0..=100u32, minimum in 0..5u32, steps in steps()) {
        let start = Instant::now();
        let budget = Budget::new(&constraint(percent, 10, minimum), start);
        let (mut millis, mut requested, mut granted) = (0, 0, 0);
        for (pause, requests, retries) in steps {
            millis += pause;
            let now = start + Duration::from_millis(millis);
            (0..requests).for_each(|_| budget.request(now));
            requested += requests;
            granted += (0..retries).filter(|_| budget.try_retry(now)).count();
            let minimal = (1 + millis as usize / 1_000 + 1) * minimum as usize;
            prop_assert!(granted * 100 <= requested * percent as usize + minimal * 100, "{requested} {granted}");
        }
    }

    #[test]
    fn a_back_off_is_within_its_bounds(base in 0..10_000u64, most in 0..100_000u64, attempt: u32, seed: u64) {
        let (base, most) = (Duration::from_millis(base), Duration::from_millis(most));
        let wait = backoff(base, most, attempt, &mut Rng::with_seed(seed));
        let doubled = base.saturating_mul(2u32.saturating_pow(attempt));
        prop_assert!(base <= wait && wait <= doubled.min(most).max(base), "{wait:?}");
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However long it fails, and whoever asks: the load beyond the requests is a fifth of them and ten a second.
    #[test]
    fn a_backend_that_always_fails_gets_a_fifth_more_and_ten_a_second(
        rate in 1..300u64,
        attempts in 1..10u32,
        seed: u64,
    ) {
        let start = Instant::now();
        let budget = Arc::new(Budget::new(&RetryConstraint::default(), start));
        let mut rng = Rng::with_seed(seed);
        // When each attempt is made: a request with its number of retries so far. The earliest is at the end.
        let mut due: BTreeMap<(Duration, u64), u32> = BTreeMap::new();
        let (seconds, mut number) = (20, 0);
        let (mut requests, mut extra) = (0, 0);
        for request in 0..rate * seconds {
            due.insert((Duration::from_secs_f64(request as f64 / rate as f64), number), 0);
            number += 1;
        }
        while let Some(((at, _), retries)) = due.pop_first() {
            let now = start + at;
            if retries == 0 {
                budget.request(now);
                requests += 1;
            } else {
                extra += 1;
            }
            // It failed, as all do.
            if retries < attempts && budget.admit(now).is_ok() {
                let wait = backoff(Duration::from_millis(25), Duration::from_millis(250), retries + 1, &mut rng);
                due.insert((at + wait, number), retries + 1);
                number += 1;
            }
        }
        let (share, least) = (requests / 5, 10 * seconds);
        prop_assert!(extra <= share + least + 10, "{extra} beyond {requests} requests");
        let wanted = share.max(least).min(requests * u64::from(attempts));
        prop_assert!(extra * 10 >= wanted * 8, "what is granted is used: {extra} of {wanted}");
    }
}

#[test]
fn back_offs_are_spread() {
    let mut rng = Rng::with_seed(3);
    let base = Duration::from_millis(25);
    let waits: Vec<_> = (0..1_000).map(|_| backoff(base, base * 10, 2, &mut rng)).collect();
    let mean = waits.iter().sum::<Duration>() / 1_000;
    assert!(mean.abs_diff(Duration::from_micros(62_500)) < Duration::from_millis(2), "{mean:?}");
}

#[test]
fn retries_under_way_are_limited_until_they_are_over() {
    let start = Instant::now();
    let budget = Arc::new(Budget::new(&constraint(0, 10, 5), start).with_limit(Some(2)));
    let first = budget.admit(start).expect("there is room");
    let _second = budget.admit(start).expect("there is room");
    assert_eq!(budget.admit(start).err(), Some(Refused::Limit));
    drop(first);
    let _third = budget.admit(start).expect("there is room again");
    assert_eq!(budget.admit(start).err(), Some(Refused::Limit));
    // What is refused for the one reason costs nothing of the other: two of the rate of five are left.
    let free = Arc::new(Budget::new(&constraint(0, 10, 1), start).with_limit(Some(2)));
    drop(free.admit(start).expect("one"));
    assert_eq!(free.admit(start).err(), Some(Refused::Budget));
    assert_eq!(free.admit(start + Duration::from_secs(1)).map(drop), Ok(()));
    let none = Arc::new(Budget::new(&constraint(100, 10, 5), start).with_limit(Some(0)));
    assert_eq!(none.admit(start).err(), Some(Refused::Limit));
}

#[test]
fn counts_do_not_run_into_each_other() {
    let start = Instant::now();
    let budget = Budget::new(&constraint(100, 10, 0), start);
    let requests = 300_000;
    (0..requests).for_each(|_| budget.request(start));
    assert_eq!((0..requests + 10).filter(|_| budget.try_retry(start)).count(), requests);
}

#[test]
fn workers_share_a_budget() {
    let start = Instant::now();
    let budget = Budget::new(&constraint(50, 10, 0), start);
    let granted: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..2_000).for_each(|_| budget.request(start));
                    (0..4_000).filter(|_| budget.try_retry(start)).count()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker ends")).sum()
    });
    let rest = (0..8_000).filter(|_| budget.try_retry(start)).count();
    assert_eq!(granted + rest, 4_000);
}

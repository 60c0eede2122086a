use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use outrigger_config::backend::{LatencyOutlier, OutlierDetection, SuccessRate};
use proptest::prelude::*;

use crate::{Cause, Load, Outliers, State};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A detection among so many endpoints.
fn detection(count: usize, spec: OutlierDetection, now: Instant) -> (Vec<Arc<Load>>, Arc<Outliers>) {
    let loads: Vec<_> = (0..count).map(|_| Arc::new(Load::new(1, now))).collect();
    let outliers = Arc::new(Outliers::new(&spec, &loads, None, now));
    (loads, outliers)
}

fn request(load: &Arc<Load>, outliers: &Arc<Outliers>, good: bool, latency: Duration, now: Instant) {
    let mut request = load.start(now).watched(Some(outliers));
    request.response(now + latency);
    if good { request.success() } else { request.refused(now + latency) }
}

fn ejected(loads: &[Arc<Load>], now: Instant) -> usize {
    loads.iter().filter(|load| load.is_ejected(now)).count()
}

#[test]
fn the_nth_failure_in_a_row_ejects_on_whichever_thread_it_is_seen() {
    for round in 0..50 {
        let now = Instant::now();
        let spec = OutlierDetection { consecutive_failures: 40, ..OutlierDetection::default() };
        let (loads, outliers) = detection(4, spec, now);
        let fail = |times: usize| {
            let start = Arc::new(Barrier::new(4));
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    let (load, outliers, start) = (loads[0].clone(), outliers.clone(), start.clone());
                    thread::spawn(move || {
                        start.wait();
                        (0..times).for_each(|_| request(&load, &outliers, false, Duration::ZERO, now));
                    })
                })
                .collect();
            for worker in workers {
                worker.join().unwrap();
            }
        };
        fail(9);
        (0..3).for_each(|_| request(&loads[0], &outliers, false, Duration::ZERO, now));
        assert!(loads[0].available(now), "39 are not enough, round {round}");
        request(&loads[0], &outliers, false, Duration::ZERO, now);
        assert!(!loads[0].available(now), "40 are, round {round}");
        fail(25);
        assert_eq!(outliers.ejections(Cause::Failures), 1, "once, whatever still comes, round {round}");
        assert_eq!(loads[0].standing(now).left, Some(millis(30_000)));
    }
}

#[test]
fn what_was_begun_before_the_ejection_was_over_does_not_count() {
    let now = Instant::now();
    let spec = OutlierDetection { consecutive_failures: 2, ..OutlierDetection::default() };
    let (loads, outliers) = detection(2, spec, now);
    let mut slow: Vec<_> = (0..3).map(|_| loads[0].start(now).watched(Some(&outliers))).collect();
    (0..2).for_each(|_| request(&loads[0], &outliers, false, Duration::ZERO, now));
    let later = now + millis(30_000);
    for request in &mut slow {
        request.failure(later);
    }
    assert!(loads[0].available(later));
    request(&loads[0], &outliers, false, Duration::ZERO, later);
    assert!(loads[0].available(later), "one");
    request(&loads[0], &outliers, false, Duration::ZERO, later);
    assert!(!loads[0].available(later + millis(59_999)), "two, for twice as long");
    assert!(loads[0].available(later + millis(60_000)));
}

#[test]
fn connections_that_fail_are_told_apart_from_answers() {
    let now = Instant::now();
    let spec = OutlierDetection {
        consecutive_failures: 2,
        consecutive_connect_failures: 3,
        ..OutlierDetection::default()
    };
    let (loads, outliers) = detection(2, spec, now);
    let unconnected = || loads[0].start(now).watched(Some(&outliers)).unconnected(now);
    unconnected();
    unconnected();
    request(&loads[0], &outliers, false, Duration::ZERO, now);
    assert!(loads[0].available(now), "it was reached between, and failed but once");
    (0..3).for_each(|_| unconnected());
    assert_eq!(loads[0].standing(now).state, State::Ejected(Cause::ConnectFailures));
    outliers.reached(&loads[0], now);
    assert!(loads[0].available(now), "a check shows that it is back");
    assert_eq!((outliers.ejections(Cause::ConnectFailures), outliers.ejections(Cause::Failures)), (1, 0));
}

#[test]
fn zero_failures_never_eject_and_neither_is_the_only_endpoint_ejected() {
    let now = Instant::now();
    let spec = OutlierDetection { consecutive_failures: 0, ..OutlierDetection::default() };
    let (loads, outliers) = detection(2, spec, now);
    (0..100).for_each(|_| request(&loads[0], &outliers, false, Duration::ZERO, now));
    let (only, alone) = detection(1, OutlierDetection::default(), now);
    (0..100).for_each(|_| request(&only[0], &alone, false, Duration::ZERO, now));
    assert_eq!(ejected(&loads, now) + ejected(&only, now), 0);
}

#[test]
fn who_succeeds_far_more_rarely_than_the_others_is_ejected() {
    let start = Instant::now();
    let success_rate = Some(SuccessRate { min_requests: 50, min_endpoints: 5, stdev_factor: 1900 });
    let spec = OutlierDetection { consecutive_failures: 0, success_rate, ..OutlierDetection::default() };
    for (count, requests, rate, expected) in
        [(5, 100, 80, 1), (4, 100, 80, 0), (5, 49, 10, 0), (5, 100, 100, 0), (20, 100, 90, 1)]
    {
        let (loads, outliers) = detection(count, spec, start);
        for turn in 0..requests {
            for (at, load) in loads.iter().enumerate() {
                request(load, &outliers, at != 2 || turn < rate, millis(1), start);
            }
        }
        outliers.tend(start + millis(9_999));
        assert_eq!(ejected(&loads, start + millis(9_999)), 0, "not before the interval is over");
        let now = start + millis(10_000);
        outliers.tend(now);
        assert_eq!(ejected(&loads, now), expected, "{count} endpoints, {requests} requests, {rate}%");
        assert_eq!(loads[2].is_ejected(now), expected == 1);
        // What was counted is forgotten with the interval.
        outliers.tend(now + millis(40_000));
        assert_eq!(ejected(&loads, now + millis(40_000)), 0);
    }
}

#[test]
fn who_is_far_slower_than_the_others_is_ejected() {
    let start = Instant::now();
    let latency = Some(LatencyOutlier { min_requests: 10, min_endpoints: 3, factor_percent: 300 });
    let spec = OutlierDetection { latency, ..OutlierDetection::default() };
    for (latencies, slow) in [
        (vec![10, 10, 29], vec![]),
        (vec![10, 10, 30], vec![2]),
        (vec![10, 900], vec![]),
        (vec![12, 900, 10, 800, 11, 10], vec![1, 3]),
        (vec![0, 0, 0], vec![]),
    ] {
        let (loads, outliers) = detection(latencies.len(), spec, start);
        for _ in 0..10 {
            for (load, latency) in loads.iter().zip(&latencies) {
                request(load, &outliers, true, millis(*latency), start);
            }
        }
        let now = start + millis(10_000);
        outliers.tend(now);
        let found: Vec<_> = (0..loads.len()).filter(|at| loads[*at].is_ejected(now)).collect();
        assert_eq!(found, slow, "{latencies:?}");
    }
}

#[test]
fn a_new_configuration_goes_on_from_where_the_old_one_was() {
    let now = Instant::now();
    let spec = OutlierDetection { consecutive_failures: 3, ..OutlierDetection::default() };
    let (loads, outliers) = detection(3, spec, now);
    (0..3).for_each(|_| request(&loads[0], &outliers, false, Duration::ZERO, now));
    (0..2).for_each(|_| request(&loads[1], &outliers, false, Duration::ZERO, now));
    let next = Arc::new(Outliers::new(&spec, &loads[..2], Some(&outliers), now));
    assert!(loads[0].is_ejected(now));
    request(&loads[1], &next, false, Duration::ZERO, now);
    assert!(!loads[1].is_ejected(now), "one of two is as many as may be");
    assert_eq!(next.ejections(Cause::Failures), 1);
    next.pardon(now);
    assert_eq!(ejected(&loads, now), 0);
}

/// A step of a story: an endpoint, what becomes of a request there, and how long it takes.
fn step() -> impl Strategy<Value = (usize, u8, u64)> {
    (0..12_usize, 0..5_u8, prop_oneof![3 => 0..20_u64, 1 => 0..40_000_u64])
}

proptest! {
    #[test]
    fn never_are_more_ejected_than_may_be_and_it_is_always_the_nth(
        count in 1..12_usize,
        percent in 0..=100_u32,
        after in 1..6_u32,
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let start = Instant::now();
        let spec = OutlierDetection {
            consecutive_failures: after,
            consecutive_connect_failures: after + 1,
            max_ejection_percent: percent,
            success_rate: Some(SuccessRate { min_requests: 3, min_endpoints: 2, stdev_factor: 500 }),
            latency: Some(LatencyOutlier { min_requests: 3, min_endpoints: 2, factor_percent: 150 }),
            ..OutlierDetection::default()
        };
        let most = if count == 1 { 0 } else { (count * percent as usize / 100).max(1) };
        let run = || {
            let (loads, outliers) = detection(count, spec, start);
            let mut now = start;
            let mut rows = vec![0; count];
            let mut story = Vec::new();
            for (at, what, wait) in &steps {
                now += millis(*wait);
                let at = at % count;
                let (load, before) = (&loads[at], ejected(&loads, now));
                let (was, causes) = (load.is_ejected(now), outliers.ejections(Cause::Failures));
                match what {
                    0 => outliers.tend(now),
                    1 => load.start(now).watched(Some(&outliers)).unconnected(now),
                    2 => request(load, &outliers, true, Duration::ZERO, now),
                    _ => request(load, &outliers, false, Duration::ZERO, now),
                }
                if *what == 2 {
                    rows[at] = 0;
                } else if *what > 2 && !was {
                    rows[at] += 1;
                    let due = rows[at] >= after;
                    let fell = outliers.ejections(Cause::Failures) > causes;
                    assert_eq!(fell, due && before < most, "after {} of {after} in a row", rows[at]);
                    if due {
                        rows[at] = 0;
                    }
                }
                if *what < 2 {
                    // An ejection for another cause ends the row.
                    (0..count).filter(|at| loads[*at].is_ejected(now)).for_each(|at| rows[at] = 0);
                }
                prop_assert!(ejected(&loads, now) <= most.max(before.min(most)));
                story.push(loads.iter().map(|load| load.standing(now).state).collect::<Vec<_>>());
            }
            Ok(story)
        };
        prop_assert_eq!(run()?, run()?, "the same again");
    }
}

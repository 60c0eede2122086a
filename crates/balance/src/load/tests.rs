use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Load;

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// An endpoint, and a request at it that was answered after so long.
fn answered(latency: Duration) -> (Arc<Load>, Instant) {
    let start = Instant::now();
    let load = Arc::new(Load::new(1, start));
    answer(&load, start, latency);
    (load, start + latency)
}

fn answer(load: &Arc<Load>, start: Instant, latency: Duration) {
    load.start(start).response(start + latency);
}

fn close(is: Duration, should: Duration) -> bool {
    is.abs_diff(should) <= should / 100 + Duration::from_micros(1)
}

#[test]
fn a_request_is_in_flight_until_it_is_dropped() {
    let now = Instant::now();
    let load = Arc::new(Load::new(3, now));
    let first = load.start(now);
    let mut second = load.start(now);
    assert_eq!(load.in_flight(), 2);
    second.response(now + millis(1));
    assert_eq!(load.in_flight(), 2, "its body is still on its way");
    drop(second);
    drop(first);
    assert_eq!(load.in_flight(), 0);
}

#[test]
fn a_peak_counts_at_once_and_is_forgotten_over_ten_seconds() {
    let (load, now) = answered(millis(5));
    assert!(close(load.latency(now), millis(5)));
    answer(&load, now, millis(800));
    let mut now = now + millis(800);
    assert!(close(load.latency(now), millis(800)), "{:?}", load.latency(now));
    for _ in 0..1_000 {
        answer(&load, now, millis(5));
        now += millis(10);
    }
    assert!(load.latency(now) < millis(12), "{:?}", load.latency(now));
    assert!(load.latency(now) >= millis(4), "{:?}", load.latency(now));
}

#[test]
fn only_the_head_of_a_response_is_a_sample() {
    let now = Instant::now();
    let load = Arc::new(Load::new(1, now));
    let mut request = load.start(now);
    request.response(now + millis(5));
    request.response(now + millis(5_000));
    assert!(close(load.latency(now + millis(5)), millis(5)));
}

#[test]
fn an_idle_estimate_falls_until_a_request_looks_again() {
    let (load, now) = answered(millis(1_000));
    let later = now + millis(8_000);
    assert!(load.latency(later) < millis(20), "{:?}", load.latency(later));
    let mut looking = load.start(later);
    assert!(close(load.latency(later), millis(1_000)), "others keep away: {:?}", load.latency(later));
    looking.response(later + millis(5));
    assert!(load.latency(later + millis(5)) < millis(30), "it is fast again");
}

#[test]
fn a_failure_counts_as_slow_however_quick_it_was() {
    let (load, now) = answered(millis(1));
    load.start(now).failure(now);
    assert!(close(load.latency(now), millis(100)));
    // It does not make an endpoint look quicker than it was.
    let (load, now) = answered(millis(900));
    load.start(now).failure(now);
    assert!(close(load.latency(now), millis(900)));
}

#[test]
fn nothing_is_expected_of_an_endpoint_that_was_never_asked() {
    let now = Instant::now();
    let load = Arc::new(Load::new(1, now));
    assert_eq!(load.latency(now), Duration::ZERO);
    let _first = load.start(now);
    assert!(load.latency(now) >= millis(900), "one request finds out, not many");
}

#[test]
fn failures_to_connect_keep_requests_away_for_longer_and_longer() {
    let mut now = Instant::now();
    let load = Load::new(1, now);
    for pause in [1, 2, 4, 8, 16, 30, 30] {
        assert!(load.available(now));
        load.failed(now);
        load.failed(now); // requests that were on their way when it failed
        assert!(!load.available(now));
        now += millis(pause * 1_000 - 1);
        assert!(!load.available(now), "{pause} s are not over");
        now += millis(1);
    }
    load.failed(now);
    load.succeeded();
    assert!(load.available(now));
    load.failed(now);
    assert!(load.available(now + millis(1_000)), "after a success it begins again at one second");
}

#[test]
fn one_request_at_a_time_tries_an_endpoint_after_its_pause() {
    let start = Instant::now();
    let load = Arc::new(Load::new(1, start));
    load.failed(start);
    let now = start + millis(1_000);
    assert!(load.available(now));
    let trial = load.start(now);
    assert!(!load.available(now), "one tries");
    assert!(load.available(now + millis(1_000)), "it may hang, so another tries after a second");
    load.failed(now + millis(10));
    drop(trial);
    assert!(!load.available(now + millis(2_009)), "it failed: twice the pause");
    assert!(load.available(now + millis(2_010)));
}

#[test]
fn a_clock_behind_that_of_another_worker_is_harmless() {
    let (load, now) = answered(millis(5));
    let earlier = now.checked_sub(millis(3)).unwrap();
    assert!(close(load.latency(earlier), millis(5)));
    answer(&load, earlier, millis(1));
    load.failed(now);
    assert!(!load.available(earlier));
}

#[test]
fn nothing_breaks_after_months() {
    let start = Instant::now();
    let load = Arc::new(Load::new(1, start));
    for days in [1, 30, 49, 50, 100, 400] {
        let now = start + Duration::from_secs(days * 86_400);
        answer(&load, now, millis(7));
        assert!(load.latency(now + millis(7)) >= millis(6), "after {days} days");
        load.failed(now);
        assert!(!load.available(now + millis(999)));
        assert!(load.available(now + millis(1_000)));
        load.succeeded();
    }
}

#[test]
fn an_endpoint_that_leaves_is_left_alone_until_it_is_found_to_stay() {
    let (load, now) = answered(millis(5));
    load.leaving(now);
    assert!(!load.available(now) && load.is_leaving(now));
    answer(&load, now, millis(5));
    load.succeeded();
    assert!(!load.available(now), "that it answers what is under way does not keep it");
    assert!(load.available(now + millis(30_001)), "it is tried again");
    assert!(load.has_said_leaving());
    load.leaving(now + millis(30_001));
    assert!(!load.available(now + millis(60_000)), "and was told the same");
    load.stays();
    assert!(load.available(now + millis(60_000)) && !load.has_said_leaving());
}

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Cause;
use crate::{Load, State};

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
fn an_endpoint_is_no_larger_than_two_cache_lines() {
    assert_eq!(size_of::<Load>(), 128);
}

#[test]
fn a_stranger_is_left_alone_for_thirty_seconds_at_once() {
    let start = Instant::now();
    let load = Arc::new(Load::new(1, start));
    load.failed(start);
    load.met_stranger(start);
    let standing = load.standing(start);
    assert_eq!((standing.state, standing.left), (State::Stranger, Some(millis(30_000))));
    assert!(!load.available(start + millis(29_999)));
    let later = start + millis(30_000);
    assert!(load.available(later));
    let _trial = load.start(later);
    load.met_stranger(later);
    assert!(!load.available(later + millis(29_999)));
    load.succeeded();
    assert!(load.available(later));
    assert_eq!(load.standing(later).state, State::Well);
}

#[test]
fn who_is_leaving_is_left_alone_until_it_stays() {
    let now = Instant::now();
    let load = Arc::new(Load::new(1, now));
    load.leaving(now);
    load.succeeded();
    assert!(!load.available(now + millis(29_999)), "what is under way there still succeeds");
    assert_eq!(load.standing(now).state, State::Leaving);
    assert!(load.available(now + millis(30_000)), "it is looked at again");
    load.leaving(now);
    load.stays(now + millis(5_000));
    assert!(load.available(now + millis(5_000)));
    assert_eq!(load.age_since_recovery(now + millis(6_000)), millis(1_000));
}

#[test]
fn checks_keep_requests_away_and_let_them_return() {
    let now = Instant::now();
    let load = Load::new(1, now);
    assert_eq!(load.age_since_recovery(now + millis(70)), millis(70));
    load.checked(false, now + millis(100));
    load.succeeded();
    assert!(!load.available(now + millis(1_000_000)));
    assert_eq!(load.standing(now + millis(300)).since, millis(200));
    load.checked(true, now + millis(1_000));
    load.checked(true, now + millis(3_000));
    assert!(load.available(now + millis(3_000)));
    assert_eq!(load.age_since_recovery(now + millis(4_000)), millis(3_000), "it was well from the first on");
}

#[test]
fn its_age_counts_anew_from_the_request_that_finds_it_well() {
    let start = Instant::now();
    let load = Arc::new(Load::new(1, start));
    load.failed(start + millis(10_000));
    let now = start + millis(12_000);
    drop(load.start(now));
    load.succeeded();
    assert_eq!(load.age_since_recovery(now + millis(500)), millis(500));
}

#[test]
fn ejections_in_a_row_double_up_to_the_longest_and_are_forgotten_in_time() {
    let (base, most) = (millis(1_000), millis(5_000));
    let mut now = Instant::now();
    let load = Load::new(1, now);
    let eject = |now, time| {
        load.eject(Cause::Latency, base, most, now);
        assert_eq!(load.standing(now).state, State::Ejected(Cause::Latency));
        assert!(!load.available(now + millis(time - 1)), "{time}");
        assert!(load.available(now + millis(time)), "{time}");
        now + millis(time)
    };
    for time in [1_000, 2_000, 4_000, 5_000, 5_000] {
        now = eject(now, time);
    }
    // Five in a row: four of the base are forgiven.
    now = eject(now + millis(4_000), 2_000);
    assert_eq!(load.age_since_recovery(now + millis(300)), millis(300));
    load.tidy(base, now);
    eject(now + millis(60_000), 1_000);
}

#[test]
fn an_ejection_is_ended_early_only_for_its_own_cause() {
    let now = Instant::now();
    let load = Load::new(1, now);
    load.eject(Cause::Failures, millis(1_000), millis(1_000), now);
    load.pardon(Some(Cause::ConnectFailures), now);
    load.tidy(millis(1_000), now);
    assert!(!load.available(now) && load.is_ejected(now));
    load.pardon(None, now);
    assert!(load.available(now) && !load.is_ejected(now));
}

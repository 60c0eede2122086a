use std::time::Duration;

use fastrand::Rng;
use proptest::prelude::*;

use super::*;
use crate::{
    load::{Arrivals, Connect, Load, Measured, Tls, Traffic},
    subject::Kind,
};

/// Normally distributed (Box and Muller).
fn normal(random: &mut Rng) -> f64 {
    let (a, b) = (random.f64().max(1e-12), random.f64());
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

fn sample(repetition: u32, rate: f64) -> Sample {
    Sample { rate, ..Sample::idle(repetition, 0.0, 1.0, None) }
}

#[expect(clippy::unnecessary_wraps, reason = "this is what is asked of a sample")]
fn rate(sample: &Sample) -> Option<f64> {
    Some(sample.rate)
}

fn subject(rates: impl IntoIterator<Item = f64>) -> SubjectResult {
    let mut series = Series::new("direct", Kind::Direct, None);
    for (repetition, rate) in (0..).zip(rates) {
        series.push(sample(repetition, rate), None);
    }
    series.result
}

/// A subject whose latencies are `micros`, one list for each repetition.
fn series(repetitions: impl IntoIterator<Item = Vec<u64>>) -> Series {
    let load = Load {
        traffic: Traffic::Http1,
        arrivals: Arrivals::Saturated,
        connections: 1,
        streams: 1,
        request_bytes: 0,
        response_bytes: 2,
        connect: Connect::Keep,
        tls: Tls::Off,
        seed: 1,
    };
    let mut series = Series::new("direct", Kind::Direct, None);
    for (repetition, micros) in (0..).zip(repetitions) {
        let mut latency = Histogram::new(3).unwrap();
        for micros in micros {
            latency.record(micros * 1000).unwrap();
        }
        let measured = Measured {
            due: latency.len(),
            answered: latency.len(),
            in_time: latency.len(),
            lag: Histogram::new(3).unwrap(),
            latency,
            errors: 0,
            first_error: None,
            time: Duration::from_secs(1),
            elapsed: Duration::from_secs(1),
        };
        series.push(Sample::new(repetition, 0.0, &load, &measured, None, None), Some(&measured));
    }
    series
}

/// How often the interval of a ratio holds the truth, over many runs of `repetitions` whose machine drifts, whose noise is
/// of some percent, and one of whose repetitions in ten is disturbed.
fn coverage(repetitions: usize, truth: f64) -> f64 {
    const RUNS: u32 = 200;
    let mut random = Rng::with_seed(7);
    let mut covered = 0;
    for _ in 0..RUNS {
        let drift: Vec<f64> = (0..repetitions).map(|turn| 10.0 * (1.0 + 0.05 * turn as f64)).collect();
        let mut side = |factor: f64| {
            let noisy = drift.iter().map(|drift| {
                let disturbed = if random.f64() < 0.1 { 1.3 } else { 1.0 };
                drift * factor * disturbed * (0.02 * normal(&mut random)).exp()
            });
            subject(noisy.collect::<Vec<_>>())
        };
        let (of, to) = (side(truth), side(1.0));
        let (low, high) = ratio(&of, &to, rate).unwrap().interval.unwrap();
        covered += u32::from((low..=high).contains(&truth));
    }
    f64::from(covered) / f64::from(RUNS)
}

#[test]
fn intervals_hold_the_truth_as_often_as_so_many_repetitions_allow() {
    for (repetitions, least, most) in [(3, 0.66, 0.84), (4, 0.80, 0.95), (6, 0.92, 1.0), (12, 0.91, 1.0)] {
        let covered = coverage(repetitions, 0.8);
        assert!((least..=most).contains(&covered), "{repetitions} repetitions: {covered}");
    }
}

#[test]
fn the_same_against_itself_is_one() {
    assert!(coverage(6, 1.0) > 0.92);
}

#[test]
fn a_disturbed_repetition_and_a_drift_do_not_move_a_ratio() {
    let to = subject([10.0, 11.0, 12.0, 13.0, 14.0, 15.0]);
    let of = subject([8.0, 8.8, 9.6, 30.0, 11.2, 12.0]);
    let ratio = ratio(&of, &to, rate).unwrap();
    assert!((ratio.value - 0.8).abs() < 1e-9, "{ratio:?}");
    let difference = difference(&of, &to, rate).unwrap();
    assert!((difference.value + 2.3).abs() < 1e-9, "{difference:?}");
}

#[test]
fn only_what_counts_and_what_both_have_is_compared() {
    let mut of = subject([1.0, 2.0, 4.0]);
    let to = subject([1.0, 1.0]);
    of.samples[0].rejected = Some("lagged".into());
    let ratio = ratio(&of, &to, rate).unwrap();
    assert_eq!((ratio.value, ratio.repetitions, ratio.interval), (2.0, 1, None));
    of.samples.clear();
    assert_eq!(super::ratio(&of, &to, rate), None);
    assert_eq!(level(&of, rate), None);
}

#[test]
fn there_and_back_are_one_repetition() {
    let mut of = subject([1.0, 2.0]);
    of.samples.push(sample(1, 4.0));
    assert_eq!(of.by_repetition(rate).into_values().collect::<Vec<_>>(), [1.0, 3.0]);
}

#[test]
fn added_latency_is_of_merged_histograms() {
    // In each repetition, 10 of 1000 requests are late, in one of them 40 are: the 99th percentile of all is late.
    let micros = |late: usize, base: u64| {
        (0..1000).map(move |request| if request < late { base + 1000 } else { base }).collect::<Vec<_>>()
    };
    let direct = series((0..6).map(|_| micros(0, 50)));
    let proxy = series((0..6).map(|repetition| micros(if repetition == 3 { 40 } else { 10 }, 80)));
    let p50 = added(&proxy, &direct, 0.5).unwrap();
    assert!((p50.value - 30.0).abs() < 0.2, "{p50:?}");
    assert!(p50.interval.is_some_and(|(low, high)| high - low < 0.1), "{p50:?}");
    let p99 = added(&proxy, &direct, 0.99).unwrap();
    assert!((p99.value - 1030.0).abs() < 2.0, "{p99:?}");
    // Without that repetition they are not, which a third of the draws are: the interval says so.
    assert!(p99.interval.is_some_and(|(low, high)| low < 31.0 && high > 1028.0), "{p99:?}");
    let none = added(&direct, &direct, 0.99).unwrap();
    assert_eq!((none.value, none.interval), (0.0, Some((0.0, 0.0))));
    assert_eq!(latency(&direct.result, &direct.log, 0.5).unwrap().interval, Some((50.015, 50.015)));
}

proptest! {
    #[test]
    fn quantiles_are_those_of_the_merged_histogram(
        lists in prop::collection::vec(prop::collection::vec(1_u64..2_000_000, 1..50), 1..6),
        quantile in 0.0..=1.0_f64,
    ) {
        let series = series(lists);
        let all = merged(&series.result, &series.log).unwrap();
        let is = latency(&series.result, &series.log, quantile).unwrap().value;
        let merged = all.value_at_quantile(quantile);
        // Quantiles just below a step may be rounded to either side of it.
        let near = [merged, all.value_at_quantile((quantile - 1e-9).max(0.0))];
        let is = (is * 1e3).round() as u64;
        prop_assert!(near.iter().any(|near| all.equivalent(*near, is)), "{is} is not {merged}");
    }

    #[test]
    fn the_value_lies_within_its_interval_and_scales_with_it(values in prop::collection::vec(0.1..1e6_f64, 3..20)) {
        let estimate = Estimate::of(&values).unwrap();
        let (low, high) = estimate.interval.unwrap();
        prop_assert!(low <= estimate.value && estimate.value <= high);
        let negative = estimate.scaled(-2.0);
        prop_assert_eq!(negative.interval, Some((-2.0 * high, -2.0 * low)));
        let none = estimate.minus(estimate);
        prop_assert!(none.interval.is_some_and(|(low, high)| low <= 0.0 && 0.0 <= high));
    }
}

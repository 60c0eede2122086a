//! What policy costs each request: the count of its backend's retry budget, its place among those under way, what outlier
//! detection notes of it; and what a retry costs: `cargo bench -p outrigger-balance --bench policy`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use outrigger_balance::{Budget, Limits, Load, Outliers};
use outrigger_config::backend::{
    AdaptiveConcurrency, BackendLimits, LatencyOutlier, OutlierDetection, RetryConstraint, SuccessRate,
};

/// The time between two requests.
const STEP: Duration = Duration::from_micros(10);

fn budget(c: &mut Criterion) {
    let mut group = c.benchmark_group("retry budget");
    let start = Instant::now();
    let budget = Arc::new(Budget::new(&RetryConstraint::default(), start).with_limit(Some(100)));
    let mut now = start;
    group.bench_function("a request is counted", |bencher| {
        bencher.iter(|| {
            now += STEP;
            budget.request(now);
        });
    });
    group.bench_function("a retry is asked for", |bencher| {
        bencher.iter(|| {
            now += STEP;
            budget.admit(now)
        });
    });
    group.finish();
}

fn limits(c: &mut Criterion) {
    let mut group = c.benchmark_group("requests under way");
    let start = Instant::now();
    let fixed = BackendLimits { requests: Some(100), ..BackendLimits::default() };
    let fixed = Limits::new(&fixed, None, start).unwrap();
    group.bench_function("a place is taken and given back", |bencher| {
        bencher.iter(|| fixed.requests.try_take().unwrap());
    });
    let adaptive =
        BackendLimits { adaptive: Some(AdaptiveConcurrency::default()), ..BackendLimits::default() };
    let limits = Limits::new(&adaptive, None, start).unwrap();
    let adaptive = limits.adaptive.as_ref().unwrap();
    let mut now = start;
    group.bench_function("the same, and the limit hears of the answer", |bencher| {
        bencher.iter(|| {
            now += STEP;
            let _place = limits.requests.try_take().unwrap();
            adaptive.answered(Duration::from_millis(1), limits.requests.taken(), now)
        });
    });
    group.finish();
}

fn outliers(c: &mut Criterion) {
    let mut group = c.benchmark_group("an endpoint's request");
    let start = Instant::now();
    let loads: Vec<_> = (0..10).map(|_| Arc::new(Load::new(1, start))).collect();
    let rows = OutlierDetection::default();
    let all = OutlierDetection {
        success_rate: Some(SuccessRate::default()),
        latency: Some(LatencyOutlier::default()),
        ..rows
    };
    let detections = [
        ("without outlier detection", None),
        ("with failures in a row", Some(rows)),
        ("with all of it", Some(all)),
    ];
    for (name, spec) in detections {
        let outliers = spec.map(|spec| Arc::new(Outliers::new(&spec, &loads, None, start)));
        let (mut now, mut next) = (start, loads.iter().cycle());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                now += STEP;
                let mut in_flight = next.next().unwrap().start(now).watched(outliers.as_ref());
                in_flight.response(now + STEP);
                in_flight.success();
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    // 0.4 s each: enough to see a tenth.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    targets = budget, limits, outliers
}
criterion_main!(benches);

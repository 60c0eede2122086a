//! What one choice of an endpoint costs, with the count of the request that follows it, and what a balancer costs to
//! build: `cargo bench -p outrigger-balance --bench pick`.
#![allow(missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fastrand::Rng;
use outrigger_balance::{Balancer, Load, Member, Wish};
use outrigger_config::backend::{Balance, BalanceKind};

/// Few, as most backends have, and many.
const ENDPOINTS: [u64; 3] = [3, 100, 10_000];

fn members(endpoints: u64) -> Vec<Member> {
    (0..endpoints)
        .map(|at| Member { key: at.wrapping_mul(0x9E37_79B9_7F4A_7C15), ..Member::new(1) })
        .collect()
}

fn pick(c: &mut Criterion) {
    for kind in BalanceKind::ALL {
        let mut group = c.benchmark_group(format!("pick: {kind:?}"));
        for endpoints in ENDPOINTS {
            let members = members(endpoints);
            let start = Instant::now();
            let balancer = Balancer::new(&Balance { kind, ..Balance::default() }, &members, start);
            // Every endpoint has answered something before.
            let loads: Vec<_> = members
                .iter()
                .map(|_| {
                    let load = Arc::new(Load::new(1, start));
                    load.start(start).response(start + Duration::from_millis(1));
                    load
                })
                .collect();
            let (mut rng, mut now) = (Rng::with_seed(1), start);
            group.bench_function(BenchmarkId::from_parameter(endpoints), |bencher| {
                bencher.iter(|| {
                    now += Duration::from_micros(10);
                    let hash = kind.is_by_hash().then(|| rng.u64(..));
                    let pick = balancer.pick(&loads, Wish { tried: &[], hash }, now, &mut rng)?;
                    loads.get(pick.at).map(|load| load.start(now))
                });
            });
        }
        group.finish();
    }
}

fn build(c: &mut Criterion) {
    let mut group = c.benchmark_group("build a balancer of 10,000");
    let (members, now) = (members(10_000), Instant::now());
    for kind in BalanceKind::ALL {
        group.bench_function(format!("{kind:?}"), |bencher| {
            bencher.iter(|| Balancer::new(&Balance { kind, ..Balance::default() }, &members, now));
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
    targets = pick, build
}
criterion_main!(benches);

//! What one choice of an endpoint costs: `cargo bench -p outrigger-balance`. Prints nanoseconds for a choice with the
//! count of the request that follows it, the least of several rounds, by balancer and number of endpoints.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use outrigger_balance::{Balancer, Load, Member, Wish};
use outrigger_config::backend::{Balance, BalanceKind};

const ROUNDS: usize = 15;
const PICKS: u32 = 200_000;

fn main() {
    println!("{:14} {:>9} {:>10} {:>12}", "balancer", "endpoints", "ns/choice", "built in");
    for kind in BalanceKind::ALL {
        for endpoints in [1, 3, 10, 1_000, 10_000] {
            measure(kind, endpoints);
        }
    }
}

fn measure(kind: BalanceKind, endpoints: u64) {
    let start = Instant::now();
    let members: Vec<_> = (0..endpoints)
        .map(|at| Member { key: at.wrapping_mul(0x9E37_79B9_7F4A_7C15), ..Member::new(1) })
        .collect();
    let loads: Vec<_> = members.iter().map(|_| Arc::new(Load::new(1, start))).collect();
    let built = Instant::now();
    let balancer = Balancer::new(&Balance { kind, ..Balance::default() }, &members, start);
    let built = built.elapsed();
    let mut rng = Rng::with_seed(1);
    let mut now = start;
    // Every endpoint has answered something before.
    for load in &loads {
        load.start(now).response(now + Duration::from_millis(1));
    }
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..PICKS {
            now += Duration::from_micros(10);
            let hash = kind.is_by_hash().then(|| rng.u64(..));
            let picked = balancer.pick(&loads, Wish { tried: &[], hash }, now, &mut rng);
            if let Some(load) = picked.and_then(|pick| loads.get(pick.at)) {
                drop(black_box(load.start(now)));
            }
        }
        best = best.min(begun.elapsed().as_nanos() as f64 / f64::from(PICKS));
    }
    println!("{:14} {endpoints:>9} {best:>10.1} {built:>12.1?}", format!("{kind:?}"));
}

//! The simulation of the example, in short, held to what each balancer promises. `cargo run --release -p outrigger-balance
//! --example simulation -- --seed 7 --endpoints 5000` prints the whole.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use outrigger_config::backend::BalanceKind::{
    self, LeastRequest, Maglev, PeakEwma, Random, RingHash, RoundRobin,
};
use world::{Outcome, SCENARIOS, simulate};

#[path = "../examples/simulation/world.rs"]
mod world;

fn all(name: &str, each: usize, check: impl Fn(BalanceKind, Outcome)) {
    let scenario = SCENARIOS.into_iter().find(|it| it.name == name).expect("a scenario of this name");
    for (seed, kind) in (1..).zip(BalanceKind::ALL) {
        check(kind, simulate(kind, scenario, 200, each, seed));
    }
}

#[test]
fn requests_are_spread_as_each_balancer_can() {
    for name in ["all well", "weights 1 and 2", "stalls of 50 ms"] {
        all(name, 100, |kind, it| {
            let spread = match kind {
                RoundRobin => 0.98..1.03,
                PeakEwma | LeastRequest => 0.85..1.15,
                // What chance does to a hundred requests, and a ring's shares.
                Random | Maglev => 0.55..1.5,
                RingHash => 0.5..1.7,
            };
            assert!(spread.contains(&it.most) && spread.contains(&it.least), "{name}, {kind:?}: {it:?}");
        });
    }
}

#[test]
fn slow_endpoints_get_little_where_latency_or_queues_decide() {
    all("5% x10 slow", 100, |kind, it| match kind {
        PeakEwma => assert!(it.slow < 0.01 && it.p99.as_millis() < 100, "{it:?}"),
        LeastRequest => assert!(it.slow < 0.03, "{it:?}"),
        RoundRobin | Random | RingHash | Maglev => {
            assert!((0.02..0.12).contains(&it.slow), "{kind:?}: {it:?}");
        }
    });
}

#[test]
fn endpoints_that_refuse_are_met_rarely_and_the_others_share_what_was_theirs() {
    all("20% refuse", 100, |kind, it| {
        assert!(it.astray < 0.015, "{kind:?}: {it:?}");
        assert!(it.most < if kind == RingHash { 1.8 } else { 1.5 }, "{kind:?}: {it:?}");
    });
}

#[test]
fn this_zone_comes_first_and_no_endpoint_gets_more_than_one_and_a_half_times_the_mean() {
    for name in ["a third is near", "near, 20% refuse"] {
        all(name, 300, |kind, it| match kind {
            RingHash | Maglev => assert!((0.25..0.45).contains(&it.near), "{kind:?}: {it:?}"),
            _ => {
                assert!(it.most <= 1.5, "{kind:?}: {it:?}");
                assert!((0.33..0.66).contains(&it.near), "{kind:?}: {it:?}");
            }
        });
    }
}

#[test]
fn those_that_stand_by_take_what_the_others_cannot() {
    // Half of the first are well, which is taken to be enough for 70%.
    all("standby, 50% refuse", 100, |kind, it| {
        assert!((0.15..0.45).contains(&it.standby), "{kind:?}: {it:?}");
    });
}

#[test]
fn the_same_seed_gives_the_same() {
    for kind in BalanceKind::ALL {
        let run = || simulate(kind, SCENARIOS[6], 100, 50, 3);
        assert_eq!(run(), run(), "{kind:?}");
    }
}

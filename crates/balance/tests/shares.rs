//! Which part of the requests goes where: endpoints that warm up, zones, priorities, panic.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use outrigger_balance::{Balancer, InFlight, Load, Member, Wish};
use outrigger_config::backend::BalanceKind::{LeastRequest, PeakEwma, Random, RoundRobin};
use outrigger_config::backend::{Balance, BalanceKind};
use proptest::prelude::*;

const KINDS: [BalanceKind; 4] = [PeakEwma, LeastRequest, RoundRobin, Random];

struct Backend {
    balancer: Balancer,
    loads: Vec<Arc<Load>>,
    now: Instant,
    rng: Rng,
    panicked: usize,
}

impl Backend {
    fn new(balance: &Balance, members: &[Member], loads: Vec<Arc<Load>>, now: Instant) -> Self {
        let balancer = Balancer::new(balance, members, now);
        Self { balancer, loads, now, rng: Rng::with_seed(5), panicked: 0 }
    }

    fn of(balance: &Balance, members: &[Member]) -> Self {
        let now = Instant::now();
        let loads = members.iter().map(|member| Arc::new(Load::new(member.weight, now))).collect();
        Self::new(balance, members, loads, now)
    }

    /// So many requests, a millisecond apart, each of which takes 5 ms. How many each endpoint gets.
    fn run(&mut self, requests: usize) -> Vec<f64> {
        let mut got = vec![0.0; self.loads.len()];
        let mut under_way: std::collections::VecDeque<InFlight> = std::collections::VecDeque::new();
        self.panicked = 0;
        for _ in 0..requests {
            self.now += Duration::from_millis(1);
            if under_way.len() >= 5
                && let Some(mut done) = under_way.pop_front()
            {
                done.response(self.now);
            }
            let pick = self.balancer.pick(&self.loads, Wish::default(), self.now, &mut self.rng);
            let pick = pick.expect("an endpoint");
            self.panicked += usize::from(pick.panic);
            got[pick.at] += 1.0;
            under_way.push_back(self.loads[pick.at].start(self.now));
        }
        got
    }
}

fn near(weight: u32, near: bool) -> Member {
    Member { near, ..Member::new(weight) }
}

fn prior(priority: u32) -> Member {
    Member { priority, ..Member::new(1) }
}

#[test]
fn a_new_endpoint_comes_to_its_share_over_the_window() {
    for kind in KINDS {
        let slow_start = Some(outrigger_config::Duration::from_secs(100));
        let balance = Balance { kind, slow_start, ..Balance::default() };
        let old = Instant::now();
        let now = old + Duration::from_secs(1_000);
        let mut loads: Vec<_> = (0..9).map(|_| Arc::new(Load::new(1, old))).collect();
        loads.push(Arc::new(Load::new(1, now)));
        let mut backend = Backend::new(&balance, &[Member::new(1); 10], loads, now);
        let mut share = |requests: usize| backend.run(requests)[9] / (requests as f64 / 10.0);
        let shares = [share(10_000), share(30_000), share(20_000), share(30_000), share(20_000)];
        // Over 0 to 10 s a tenth; 10 to 40 s a quarter on average, and so on: never more than in proportion, and all after 100 s.
        for (share, due) in shares.iter().zip([0.1, 0.25, 0.5, 0.75, 1.0]) {
            assert!((share - due).abs() < 0.12, "{kind:?}: {shares:?}");
        }
    }
}

#[test]
fn endpoints_that_are_all_new_share_alike() {
    for kind in KINDS {
        let slow_start = Some(outrigger_config::Duration::from_secs(100));
        let balance = Balance { kind, slow_start, ..Balance::default() };
        let got = Backend::of(&balance, &[Member::new(1); 4]).run(4_000);
        assert!(got.iter().all(|got| (850.0..1_150.0).contains(got)), "{kind:?}: {got:?}");
    }
}

#[test]
fn an_endpoint_that_is_well_again_warms_up() {
    let slow_start = Some(outrigger_config::Duration::from_secs(60));
    for kind in KINDS {
        let balance = Balance { kind, slow_start, ..Balance::default() };
        let mut backend = Backend::of(&balance, &[Member::new(1); 4]);
        backend.now += Duration::from_mins(2);
        backend.loads[0].checked(false, backend.now);
        assert!(backend.run(4_000)[0] <= 1.0);
        backend.loads[0].checked(true, backend.now);
        let got = backend.run(6_000);
        assert!((100.0..400.0).contains(&got[0]), "{kind:?}: a tenth of 1,500: {got:?}");
        backend.run(60_000);
        let got = backend.run(4_000);
        assert!((850.0..1_150.0).contains(&got[0]), "{kind:?}: {got:?}");
    }
}

#[test]
fn all_goes_to_this_zone_where_it_is_large_enough() {
    for kind in KINDS {
        let balance = Balance { kind, ..Balance::default() };
        let members: Vec<_> = (0..9).map(|at| near(1, at < 7)).collect();
        let got = Backend::of(&balance, &members).run(9_000);
        let far: f64 = got[7..].iter().sum();
        assert!(far < 90.0, "{kind:?}: {got:?}");
    }
}

#[test]
fn a_zone_whose_endpoints_are_busy_spills_over() {
    // Those near by never answer.
    for kind in KINDS {
        let balance = Balance { kind, ..Balance::default() };
        let members: Vec<_> = (0..10).map(|at| near(1, at < 5)).collect();
        let mut backend = Backend::of(&balance, &members);
        let mut stuck = Vec::new();
        let mut far = 0;
        for _ in 0..2_000 {
            backend.now += Duration::from_millis(1);
            let pick = backend.balancer.pick(&backend.loads, Wish::default(), backend.now, &mut backend.rng);
            let at = pick.expect("an endpoint").at;
            let started = backend.loads[at].start(backend.now);
            if at < 5 {
                stuck.push(started);
            } else {
                far += 1;
            }
        }
        assert!(far > 600, "{kind:?}: {far} of 2000");
    }
}

/// Each second turn is that of the one that is ill, however many turns its place costs.
#[test]
fn panic_is_noticed_whosever_turn_it_is() {
    for kind in KINDS {
        let balance = Balance { kind, panic_threshold: 100, ..Balance::default() };
        let mut backend = Backend::of(&balance, &[Member::new(1); 2]);
        backend.loads[0].checked(false, backend.now);
        let got = backend.run(100);
        assert!(backend.panicked > 50, "{kind:?}: {}", backend.panicked);
        assert!(got[0] > 20.0 && got[1] > 20.0, "{kind:?}: {got:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever the zones, weights and failures: no endpoint gets more than 1.5 times the mean of those that are well.
    #[test]
    fn no_endpoint_gets_more_than_its_part(
        kind in proptest::sample::select(&KINDS),
        members in proptest::collection::vec((1..4u32, any::<bool>(), 0..10u32), 4..25),
        seed: u64,
    ) {
        let balance = Balance { kind, panic_threshold: 0, ..Balance::default() };
        let all: Vec<_> = members.iter().map(|(weight, is_near, _)| near(*weight, *is_near)).collect();
        let mut backend = Backend::of(&balance, &all);
        backend.rng = Rng::with_seed(seed);
        let well: Vec<bool> = members.iter().map(|(_, _, luck)| *luck > 1).collect();
        for (load, well) in backend.loads.iter().zip(&well) {
            load.checked(*well, backend.now);
        }
        let of = |pred: &dyn Fn(usize) -> bool| -> u32 {
            (0..all.len()).filter(|&at| well[at] && pred(at)).map(|at| all[at].weight).sum()
        };
        let (weight, near_by) = (of(&|_| true), of(&|at| all[at].near));
        // Alone, or without two zones, there is nothing to be preferred.
        prop_assume!(near_by > 0 && near_by < weight && well.iter().filter(|it| **it).count() > 3);
        let requests = 400 * all.len();
        let got = backend.run(requests);
        for (at, member) in all.iter().enumerate() {
            let mean = requests as f64 * f64::from(member.weight) / f64::from(weight);
            prop_assert!(got[at] <= mean * 1.5 + 3.0, "{:?}: {} at {}, mean {}", kind, got[at], at, mean);
        }
        let share = all.iter().zip(&got).filter(|(it, _)| it.near).map(|(_, got)| got).sum::<f64>() / requests as f64;
        let due = (1.4 * f64::from(near_by) / f64::from(weight)).min(1.0);
        prop_assert!(share > due * 0.8, "{:?}: {} near by, not {}", kind, share, due);
    }
}

#[test]
fn the_next_priority_gets_what_the_first_cannot_do() {
    for kind in KINDS {
        let balance = Balance { kind, ..Balance::default() };
        let members: Vec<_> = (0..20).map(|at| prior(u32::from(at >= 10))).collect();
        // So many of the ten are well, and such a part of the requests stays with them.
        for (well, part) in [(10, 1.0), (8, 1.0), (7, 0.98), (5, 0.7), (2, 0.28), (0, 0.0)] {
            let mut backend = Backend::of(&balance, &members);
            backend.loads.iter().take(10 - well).for_each(|load| load.checked(false, backend.now));
            backend.run(500);
            let got = backend.run(10_000);
            let first = got[..10].iter().sum::<f64>() / 10_000.0;
            assert!((first - part).abs() < 0.03, "{kind:?}, {well} of 10: {first} instead of {part}");
            assert_eq!(backend.panicked, 0);
        }
    }
}

#[test]
fn few_endpoints_that_are_well_are_panic_and_all_are_used() {
    for kind in KINDS {
        for (threshold, well, panic) in [(50, 5, false), (50, 4, true), (0, 1, false), (100, 9, true)] {
            let balance = Balance { kind, panic_threshold: threshold, ..Balance::default() };
            let mut backend = Backend::of(&balance, &[Member::new(1); 10]);
            backend.loads.iter().skip(well).for_each(|load| load.checked(false, backend.now));
            backend.run(300);
            let got = backend.run(10_000);
            assert_eq!(backend.panicked > 0, panic, "{kind:?}, {threshold}%, {well} well");
            let ill: f64 = got[well..].iter().sum();
            let due = if panic { 1_000.0 * (10 - well) as f64 } else { 0.0 };
            assert!((ill - due).abs() <= due * 0.15, "{kind:?}, {threshold}%, {well} well: {got:?}");
            // It is over as soon as they are well again.
            backend.loads.iter().for_each(|load| load.checked(true, backend.now));
            backend.run(100);
            backend.run(100);
            assert_eq!(backend.panicked, 0);
        }
    }
}

#[test]
fn panic_does_not_send_requests_where_nobody_is() {
    for kind in KINDS {
        let mut backend = Backend::of(&Balance { kind, ..Balance::default() }, &[Member::new(1); 10]);
        backend.loads.iter().skip(2).take(4).for_each(|load| load.checked(false, backend.now));
        backend.loads.iter().skip(6).for_each(|load| load.failed(backend.now));
        let got = backend.run(900);
        assert!(backend.panicked > 800);
        assert_eq!(got[6..], [0.0; 4], "{kind:?}: {got:?}");
        assert!(got[..6].iter().all(|got| *got > 90.0), "{kind:?}: {got:?}");
    }
}

#[test]
fn a_backend_of_one_never_panics() {
    let mut backend = Backend::of(&Balance::default(), &[Member::new(1)]);
    backend.loads[0].checked(false, backend.now);
    assert_eq!(backend.run(100), [100.0]);
    assert_eq!(backend.panicked, 0);
}

//! The balancers against simulated endpoints: requests come at random at a given rate, each endpoint answers after a
//! given time, and no real time passes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use outrigger_config::backend::Balance;
use outrigger_config::backend::BalanceKind::{self, LeastRequest, PeakEwma, Random, RoundRobin};
use proptest::prelude::*;

use crate::{Balancer, InFlight, Load, Member, Wish};

const KINDS: [BalanceKind; 4] = [PeakEwma, LeastRequest, RoundRobin, Random];

fn balancer(kind: BalanceKind, weights: &[u32]) -> Balancer {
    let members: Vec<_> = weights.iter().copied().map(Member::new).collect();
    Balancer::new(&Balance { kind, ..Balance::default() }, &members, Instant::now())
}

/// The place picked by a request for which these were tried.
fn pick(
    balancer: &Balancer,
    loads: &[Arc<Load>],
    now: Instant,
    tried: &[usize],
    rng: &mut Rng,
) -> Option<usize> {
    balancer.pick(loads, Wish { tried, hash: None }, now, rng).map(|pick| pick.at)
}

struct Simulation {
    balancer: Balancer,
    loads: Vec<Arc<Load>>,
    now: Instant,
    rng: Rng,
    /// Requests by the time at which they are answered.
    pending: BinaryHeap<Reverse<(Instant, usize)>>,
    in_flight: Vec<Option<InFlight>>,
}

impl Simulation {
    fn new(kind: BalanceKind, weights: &[u32]) -> Self {
        let now = Instant::now();
        Self {
            balancer: balancer(kind, weights),
            loads: weights.iter().map(|&weight| Arc::new(Load::new(weight, now))).collect(),
            now,
            rng: Rng::with_seed(7),
            pending: BinaryHeap::new(),
            in_flight: Vec::new(),
        }
    }

    /// Sends requests for so long, and returns how many each endpoint got.
    fn run(&mut self, seconds: f64, per_second: f64, millis: impl Fn(usize) -> f64) -> Vec<usize> {
        let end = self.now + Duration::from_secs_f64(seconds);
        let mut got = vec![0; self.loads.len()];
        while self.now < end {
            self.now += Duration::from_secs_f64(-self.rng.f64().max(1e-9).ln() / per_second);
            self.answer();
            let index = pick(&self.balancer, &self.loads, self.now, &[], &mut self.rng).expect("an endpoint");
            got[index] += 1;
            // A third more or less, so that no two endpoints keep step.
            let taken = millis(index) * (0.67 + 0.66 * self.rng.f64()) / 1e3;
            self.pending.push(Reverse((self.now + Duration::from_secs_f64(taken), self.in_flight.len())));
            self.in_flight.push(Some(self.loads[index].start(self.now)));
        }
        got
    }

    fn answer(&mut self) {
        while let Some(&Reverse((at, request))) = self.pending.peek().filter(|next| next.0.0 <= self.now) {
            self.in_flight[request].take().expect("is in flight once").response(at);
            self.pending.pop();
        }
    }
}

fn share(got: &[usize], index: usize) -> f64 {
    got[index] as f64 / got.iter().sum::<usize>() as f64
}

#[test]
fn peak_ewma_sends_a_slow_endpoint_little() {
    for count in [2, 3, 10] {
        let mut simulation = Simulation::new(PeakEwma, &vec![1; count]);
        let got = simulation.run(60.0, 500.0, |index| if index == 0 { 500.0 } else { 5.0 });
        assert!(share(&got, 0) < 0.01, "{count} endpoints: {got:?}");
        assert!(got[0] > 3, "it is tried now and then: {got:?}");
    }
}

#[test]
fn peak_ewma_spreads_evenly_over_equal_endpoints() {
    for per_second in [10.0, 5_000.0] {
        let mut simulation = Simulation::new(PeakEwma, &[1; 4]);
        let got = simulation.run(60_000.0 / per_second, per_second, |_| 5.0);
        for index in 0..4 {
            assert!((share(&got, index) - 0.25).abs() < 0.05, "{per_second} per second: {got:?}");
        }
    }
}

#[test]
fn a_recovered_endpoint_gets_its_traffic_back_within_seconds() {
    for slow in [50.0, 500.0, 5_000.0] {
        let mut simulation = Simulation::new(PeakEwma, &[1; 3]);
        simulation.run(30.0, 300.0, |index| if index == 0 { slow } else { 5.0 });
        simulation.run(20.0, 300.0, |_| 5.0);
        let got = simulation.run(10.0, 300.0, |_| 5.0);
        assert!((share(&got, 0) - 0.33).abs() < 0.1, "after {slow} ms: {got:?}");
    }
}

#[test]
fn a_new_endpoint_is_neither_stampeded_nor_starved() {
    let mut simulation = Simulation::new(PeakEwma, &[1; 3]);
    simulation.run(10.0, 1_000.0, |_| 5.0);
    // The third endpoint is replaced by one that needs 300 ms for each of its first requests.
    simulation.loads[2] = Arc::new(Load::new(1, simulation.now));
    let got = simulation.run(0.15, 1_000.0, |index| if index == 2 { 300.0 } else { 5.0 });
    assert_eq!(got[2], 1, "one request until it has answered: {got:?}");
    simulation.run(15.0, 1_000.0, |_| 5.0);
    let got = simulation.run(10.0, 1_000.0, |_| 5.0);
    assert!((share(&got, 2) - 0.33).abs() < 0.1, "{got:?}");
}

#[test]
fn weights_are_honoured() {
    for weights in [&[3, 1][..], &[1, 2, 5], &[9, 1, 1, 1, 1, 1, 1, 1, 1, 1]] {
        for per_second in [5.0, 500.0, 5_000.0] {
            for kind in KINDS {
                // Where requests are seconds apart, PeakEwma finds out about endpoints that it has forgotten.
                if kind == PeakEwma && per_second < 10.0 {
                    continue;
                }
                let mut simulation = Simulation::new(kind, weights);
                let got = simulation.run(60_000.0 / per_second, per_second, |_| 10.0);
                let total: u32 = weights.iter().sum();
                for (index, &weight) in weights.iter().enumerate() {
                    let part = share(&got, index) * f64::from(total) / f64::from(weight);
                    assert!((0.7..1.4).contains(&part), "{kind:?}, {per_second}/s, {weights:?}: {got:?}");
                }
            }
        }
    }
}

#[test]
fn least_request_spares_the_slow_in_proportion() {
    let mut simulation = Simulation::new(LeastRequest, &[1, 1]);
    let got = simulation.run(60.0, 1_000.0, |index| if index == 0 { 40.0 } else { 10.0 });
    assert!(
        (0.15..0.3).contains(&share(&got, 0)),
        "a quarter as fast, so about a fifth of the requests: {got:?}"
    );
}

#[test]
fn round_robin_is_exact_and_even() {
    let now = Instant::now();
    for weights in [&[1, 1, 1][..], &[4, 4], &[1, 2, 5], &[100, 1], &[7, 11, 13, 300]] {
        let loads: Vec<_> = weights.iter().map(|&weight| Arc::new(Load::new(weight, now))).collect();
        let balancer = balancer(RoundRobin, weights);
        let divisor = weights
            .iter()
            .copied()
            .fold(0, |a, b| super::weights::greatest_common_divisor(a.into(), b.into()) as u32);
        let round = (weights.iter().sum::<u32>() / divisor) as usize;
        let mut rng = Rng::with_seed(1);
        let picks: Vec<_> =
            (0..round * 3).filter_map(|_| pick(&balancer, &loads, now, &[], &mut rng)).collect();
        for picks in picks.windows(round) {
            for (index, &weight) in weights.iter().enumerate() {
                let got = picks.iter().filter(|&&it| it == index).count();
                assert_eq!(got, (weight / divisor) as usize, "{weights:?}");
            }
        }
        let heaviest = weights.iter().max().expect("weights are given");
        let longest = picks.chunk_by(|a, b| a == b).map(<[_]>::len).max().expect("there were picks");
        let others = weights.iter().sum::<u32>() - heaviest;
        assert!(longest <= 2 * heaviest.div_ceil(others) as usize, "{weights:?}: {longest} in a row");
    }
}

#[test]
fn unavailable_endpoints_are_left_out_unless_no_other_is_left() {
    for kind in KINDS {
        let mut simulation = Simulation::new(kind, &[1, 5, 1]);
        simulation.loads[1].failed(simulation.now);
        let got = simulation.run(0.5, 1_000.0, |_| 1.0);
        assert_eq!(got[1], 0, "{kind:?}: {got:?}");
        assert!(got[0] > 100 && got[2] > 100, "{kind:?}: {got:?}");

        let (loads, now, rng) = (&simulation.loads, simulation.now, &mut simulation.rng);
        assert_eq!(
            pick(&simulation.balancer, loads, now, &[0, 2], rng),
            Some(1),
            "better a try than a refusal"
        );
        for load in loads {
            load.failed(now);
        }
        assert!(pick(&simulation.balancer, loads, now, &[], rng).is_some());
        assert_eq!(pick(&simulation.balancer, loads, now, &[2, 0, 1], rng), None);
    }
}

#[test]
fn a_dead_endpoint_costs_one_request_for_each_pause() {
    for kind in KINDS {
        let mut simulation = Simulation::new(kind, &[1, 1]);
        let mut tries = 0;
        for _ in 0..60_000 {
            simulation.now += Duration::from_millis(1);
            let (loads, now) = (&simulation.loads, simulation.now);
            if pick(&simulation.balancer, loads, now, &[], &mut simulation.rng) == Some(0) {
                loads[0].start(now).failure(now);
                loads[0].failed(now);
                tries += 1;
            } else {
                let mut request = loads[1].start(now);
                request.response(now + Duration::from_micros(500));
            }
        }
        // Pauses of 1, 2, 4, 8, 16 and 30 s.
        assert!((2..=6).contains(&tries), "{kind:?}: {tries}");
    }
}

fn kinds() -> impl Strategy<Value = BalanceKind> {
    proptest::sample::select(&KINDS)
}

proptest! {
    #[test]
    fn a_pick_is_one_that_was_not_tried(
        kind in kinds(),
        weights in proptest::collection::vec(0..1_000u32, 0..12),
        endpoints in 0..12usize,
        tried in proptest::collection::vec(0..14usize, 0..8),
        failed in proptest::collection::vec(0..12usize, 0..8),
        busy in proptest::collection::vec(0..12usize, 0..8),
        seed: u64,
    ) {
        let now = Instant::now();
        // As many loads as weights is the caller's duty; even where it is neglected, nothing panics.
        let loads: Vec<_> =
            (0..endpoints).map(|index| Arc::new(Load::new(weights.get(index).copied().unwrap_or(1), now))).collect();
        failed.iter().filter_map(|&index| loads.get(index)).for_each(|load| load.failed(now));
        let _in_flight: Vec<_> = busy.iter().filter_map(|&index| loads.get(index)).map(|load| load.start(now)).collect();
        let balancer = balancer(kind, &weights);
        let mut rng = Rng::with_seed(seed);
        let left: Vec<_> = (0..endpoints).filter(|index| !tried.contains(index)).collect();
        for _ in 0..20 {
            let picked = pick(&balancer, &loads, now, &tried, &mut rng);
            prop_assert_eq!(picked.is_some(), !left.is_empty());
            if let Some(at) = picked {
                prop_assert!(left.contains(&at));
                let best = left.iter().any(|&index| loads[index].available(now));
                prop_assert!(!best || loads[at].available(now));
            }
        }
    }
}

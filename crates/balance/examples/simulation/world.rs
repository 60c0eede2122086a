//! A backend of thousands of endpoints, some slow, failing or in other zones, and callers that come at random: seeded,
//! without any real time, so that a run is the same each time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use outrigger_balance::{Balancer, InFlight, Load, Member, Wish, hash};
use outrigger_config::backend::{Balance, BalanceKind};

/// What is simulated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// What it is called.
    pub(crate) name: &'static str,
    /// The share of endpoints that take ten times as long.
    pub(crate) slow: f64,
    /// The share of endpoints that refuse connections.
    pub(crate) failing: f64,
    /// The share of endpoints in this node's zone; 0: nothing is known of zones.
    pub(crate) near: f64,
    /// The share of endpoints that stand by with priority 1.
    pub(crate) standby: f64,
    /// How often in a second an endpoint has all its requests wait for 50 ms.
    pub(crate) stalls: f64,
    /// Whether half of the endpoints have twice the weight.
    pub(crate) weighted: bool,
}

/// All scenarios.
pub(crate) const SCENARIOS: [Scenario; 8] = {
    const PLAIN: Scenario = Scenario {
        name: "all well",
        slow: 0.0,
        failing: 0.0,
        near: 0.0,
        standby: 0.0,
        stalls: 0.0,
        weighted: false,
    };
    [
        PLAIN,
        Scenario { name: "weights 1 and 2", weighted: true, ..PLAIN },
        Scenario { name: "5% x10 slow", slow: 0.05, ..PLAIN },
        Scenario { name: "stalls of 50 ms", stalls: 0.1, ..PLAIN },
        Scenario { name: "20% refuse", failing: 0.2, ..PLAIN },
        Scenario { name: "a third is near", near: 0.34, ..PLAIN },
        Scenario { name: "near, 20% refuse", near: 0.34, failing: 0.2, ..PLAIN },
        Scenario { name: "standby, 50% refuse", standby: 0.5, failing: 0.5, ..PLAIN },
    ]
};

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outcome {
    /// The most requests of an endpoint that is well, as a multiple of the mean of those, by weight.
    pub(crate) most: f64,
    /// The fewest.
    pub(crate) least: f64,
    /// The most requests that were at an endpoint at a time.
    pub(crate) deepest: u32,
    /// The share of requests that went to an endpoint first that refused them.
    pub(crate) astray: f64,
    /// The share of requests that went to slow endpoints.
    pub(crate) slow: f64,
    /// The share of requests that were answered in this node's zone.
    pub(crate) near: f64,
    /// The share of requests that were answered by endpoints that stand by.
    pub(crate) standby: f64,
    /// The latency that half of the requests had at most.
    pub(crate) median: Duration,
    /// The latency that 99% of the requests had at most.
    pub(crate) p99: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Endpoint {
    member: Member,
    slow: bool,
    failing: bool,
    /// Until when all its requests wait.
    stalled: Instant,
    got: u32,
}

/// How many requests come in a second for each endpoint.
const RATE: f64 = 20.0;
/// How long an endpoint takes for a request, a third more or less.
const TAKES: Duration = Duration::from_millis(20);

/// Sends so many requests for each of so many endpoints.
pub(crate) fn simulate(
    kind: BalanceKind,
    scenario: Scenario,
    endpoints: usize,
    each: usize,
    seed: u64,
) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    let start = Instant::now();
    let mut all: Vec<Endpoint> = (0..endpoints)
        .map(|at| {
            let member = Member {
                weight: if scenario.weighted { 1 + at as u32 % 2 } else { 1 },
                priority: u32::from(rng.f64() < scenario.standby),
                near: rng.f64() < scenario.near,
                key: hash(&at.to_be_bytes()),
            };
            let failing = member.priority == 0 && rng.f64() < scenario.failing;
            Endpoint { member, slow: rng.f64() < scenario.slow, failing, stalled: start, got: 0 }
        })
        .collect();
    let members: Vec<Member> = all.iter().map(|endpoint| endpoint.member).collect();
    let loads: Vec<Arc<Load>> = members.iter().map(|it| Arc::new(Load::new(it.weight, start))).collect();
    let balancer = Balancer::new(&Balance { kind, ..Balance::default() }, &members, start);

    let mut pending: BinaryHeap<Reverse<(Instant, usize)>> = BinaryHeap::new();
    let mut in_flight: Vec<Option<InFlight>> = Vec::new();
    let (mut now, mut latencies) = (start, Vec::new());
    let (mut astray, mut deepest) = (0u32, 0);
    let requests = endpoints * each;
    // The first tenth finds out what the endpoints are like, and does not count.
    for request in 0..requests + requests / 10 {
        let counts = request >= requests / 10;
        now += Duration::from_secs_f64(-rng.f64().max(1e-12).ln() / (RATE * endpoints as f64));
        while let Some(&Reverse((at, done))) = pending.peek().filter(|next| next.0.0 <= now) {
            if let Some(mut answered) = in_flight.get_mut(done).and_then(Option::take) {
                answered.response(at);
            }
            pending.pop();
        }
        if rng.f64() < scenario.stalls / RATE
            && let Some(stalled) = all.get_mut(rng.usize(..endpoints))
        {
            stalled.stalled = now + Duration::from_millis(50);
        }
        let (hash, mut tried) = (Some(rng.u64(..)), Vec::new());
        let at = loop {
            let wish = Wish { tried: &tried, hash };
            let Some(at) = balancer.pick(&loads, wish, now, &mut rng).map(|pick| pick.at) else { break None };
            if !all.get(at).is_some_and(|endpoint| endpoint.failing) {
                break Some(at);
            }
            if let Some(load) = loads.get(at) {
                drop(load.start(now));
                load.failed(now);
            }
            astray += u32::from(counts && tried.is_empty());
            tried.push(at);
        };
        let Some((endpoint, load)) = at.and_then(|at| Some((all.get_mut(at)?, loads.get(at)?))) else {
            continue;
        };
        let takes = TAKES.mul_f64((0.67 + 0.66 * rng.f64()) * if endpoint.slow { 10.0 } else { 1.0 });
        let takes = takes + endpoint.stalled.saturating_duration_since(now);
        pending.push(Reverse((now + takes, in_flight.len())));
        in_flight.push(Some(load.start(now)));
        if counts {
            endpoint.got += 1;
            latencies.push(takes);
            deepest = deepest.max(load.in_flight());
        }
    }
    outcome(&all, latencies, f64::from(astray) / requests as f64, deepest)
}

fn outcome(all: &[Endpoint], mut latencies: Vec<Duration>, astray: f64, deepest: u32) -> Outcome {
    latencies.sort_unstable();
    let total: f64 = all.iter().map(|endpoint| f64::from(endpoint.got)).sum();
    let part = |of: &dyn Fn(&Endpoint) -> bool| {
        all.iter().filter(|endpoint| of(endpoint)).map(|it| f64::from(it.got)).sum::<f64>().max(0.0) / total
    };
    let level = all.iter().filter(|it| !it.failing && it.got > 0).map(|it| it.member.priority).min();
    let well = || all.iter().filter(|it| !it.failing && !it.slow && Some(it.member.priority) == level);
    let got: f64 = well().map(|it| f64::from(it.got)).sum();
    let weight: f64 = well().map(|it| f64::from(it.member.weight)).sum();
    let multiple = |it: &Endpoint| f64::from(it.got) / f64::from(it.member.weight) / (got / weight);
    let at = |part: usize| latencies.get(latencies.len() * part / 100).copied().unwrap_or_default();
    Outcome {
        most: well().map(multiple).fold(0.0, f64::max),
        least: well().map(multiple).fold(f64::MAX, f64::min),
        deepest,
        astray,
        slow: part(&|it| it.slow),
        near: part(&|it| it.member.near),
        standby: part(&|it| it.member.priority > 0),
        median: at(50),
        p99: at(99),
    }
}

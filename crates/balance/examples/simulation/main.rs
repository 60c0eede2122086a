//! What the balancers make of thousands of endpoints, some slow, failing or far away:
//! `cargo run --release -p outrigger-balance --example simulation -- --seed 7 --endpoints 5000`.

use std::process::ExitCode;

use outrigger_config::backend::BalanceKind;
use world::{SCENARIOS, simulate};

mod world;

/// How many requests there are for each endpoint.
const EACH: usize = 200;

fn main() -> ExitCode {
    let (mut seed, mut endpoints) = (7, 1_000);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let number = arguments.next().and_then(|text| text.parse().ok());
        match (argument.as_str(), number) {
            ("--seed", Some(number)) => seed = number,
            ("--endpoints", Some(number)) if (1..=100_000).contains(&number) => endpoints = number,
            _ => {
                eprintln!("simulation: write --seed NUMBER and --endpoints NUMBER, up to 100000");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{endpoints} endpoints, {EACH} requests for each, seed {seed}");
    println!("most, least: requests of an endpoint that is well, as a multiple of the mean of those\n");
    println!(
        "{:20} {:13} {:>5} {:>5} {:>7} {:>7} {:>6} {:>6} {:>8} {:>9} {:>9}",
        "scenario",
        "balancer",
        "most",
        "least",
        "deepest",
        "astray",
        "slow",
        "near",
        "standby",
        "median",
        "p99"
    );
    for scenario in SCENARIOS {
        for kind in BalanceKind::ALL {
            let it = simulate(kind, scenario, endpoints as usize, EACH, seed);
            println!(
                "{:20} {:13} {:5.2} {:5.2} {:7} {:6.2}% {:5.1}% {:5.1}% {:7.1}% {:>6.1} ms {:>6.1} ms",
                scenario.name,
                format!("{kind:?}"),
                it.most,
                it.least,
                it.deepest,
                it.astray * 100.0,
                it.slow * 100.0,
                it.near * 100.0,
                it.standby * 100.0,
                it.median.as_secs_f64() * 1e3,
                it.p99.as_secs_f64() * 1e3,
            );
        }
    }
    ExitCode::SUCCESS
}

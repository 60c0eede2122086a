//! How many instructions the proxy executes for a request: a figure that a busy machine does not change, so that a change
//! of some per cent is seen where times vary by tens.
//!
//! The proxy runs in valgrind's callgrind. One request at a time goes through it, the next only when every one of its
//! threads sleeps, so that it meets the same events in the same order each time. It is run twice, with some requests
//! and with more: the difference is what the requests cost, without the start. Only the worker's instructions count, in
//! user space: what the kernel does is not seen, nor what it costs to wait for memory.

mod baseline;
mod callgrind;
mod traffic;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;

use baseline::{Baseline, Environment};
use callgrind::Run;
use traffic::Way;

/// By how much more than the baseline is a regression.
const TOLERANCE: f64 = 0.02;
/// Requests of the shorter run, and of the longer one.
const REQUESTS: (u32, u32) = (100, 1100);

/// One way of a request through the proxy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// What it is called in the baseline.
    name: &'static str,
    /// What is spoken.
    way: Way,
    /// What a route and a backend have beside what they need.
    policies: bool,
}

/// What is counted.
const CASES: [Case; 5] = [
    Case { name: "http1", way: Way::Http1, policies: false },
    Case { name: "http1, every policy", way: Way::Http1, policies: true },
    Case { name: "grpc", way: Way::Grpc, policies: false },
    Case { name: "mutual TLS, caller's side", way: Way::Caller, policies: false },
    Case { name: "mutual TLS, callee's side", way: Way::Callee, policies: false },
];

/// What the command takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The proxy's binary, built with optimisation [default: `outrigger` beside this program].
    #[arg(long, value_name = "PATH")]
    outrigger: Option<PathBuf>,
    /// Another build of the proxy to compare with, instead of the baseline.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["baseline", "accept"])]
    against: Option<PathBuf>,
    /// The baseline.
    #[arg(long, value_name = "FILE", default_value = "benches/instructions.json")]
    baseline: PathBuf,
    /// Writes what was counted to the baseline, as what it is to be from now on.
    #[arg(long)]
    accept: bool,
    /// Where callgrind's profiles are left, for `callgrind_annotate`.
    #[arg(long, value_name = "DIR")]
    profiles: Option<PathBuf>,
}

/// What was counted for one case, and what it is compared with.
#[derive(Debug)]
struct Counted {
    name: &'static str,
    instructions: f64,
    before: Option<f64>,
}

impl Counted {
    /// By how much it is more than before, as a share.
    fn change(&self) -> Option<f64> {
        self.before.map(|before| self.instructions / before - 1.0)
    }

    fn is_worse(&self) -> bool {
        self.change().is_some_and(|change| change > TOLERANCE)
    }
}

/// Counts, prints, and compares; false if a case needs more instructions than it may.
///
/// # Errors
///
/// If the proxy cannot be run, a request fails, or the baseline cannot be read or written.
pub fn run(options: &Options) -> Result<bool> {
    let Some(environment) = Environment::find() else {
        println!("skipped: needs valgrind, to count instructions");
        return Ok(true);
    };
    let proxy = match &options.outrigger {
        Some(proxy) => proxy.clone(),
        None => std::env::current_exe().context("cannot find this program")?.with_file_name("outrigger"),
    };
    ensure!(
        proxy.is_file(),
        "there is no proxy at {}: build it, or name it with --outrigger",
        proxy.display()
    );
    let baseline = Baseline::read(&options.baseline)?;
    let mut counted = Vec::new();
    for case in CASES {
        let instructions = count(&proxy, case, options.profiles.as_deref())?;
        let before = match &options.against {
            Some(other) => Some(count(other, case, None)?),
            None => baseline.as_ref().and_then(|baseline| baseline.of(&environment, case.name)),
        };
        counted.push(Counted { name: case.name, instructions, before });
        print_line(counted.last());
    }
    if options.accept {
        let counts = counted.iter().map(|counted| (counted.name, counted.instructions));
        Baseline::new(environment, counts).write(&options.baseline)?;
        println!("written to {}", options.baseline.display());
        return Ok(true);
    }
    if options.against.is_none() && counted.iter().any(|counted| counted.before.is_none()) {
        println!(
            "{} has nothing to compare with of {environment}: counts differ with each of these. \
             `outrigger-bench instructions --accept` writes down the ones above.",
            options.baseline.display()
        );
    }
    Ok(verdict(&counted))
}

fn print_line(counted: Option<&Counted>) {
    let Some(counted) = counted else { return };
    let change = counted.change().map(|change| format!("{:+.2}%", change * 100.0)).unwrap_or_default();
    println!("{:28} {:>9.0} instructions a request {change}", counted.name, counted.instructions);
}

/// Says what is worse or better than it was; false if anything is worse.
fn verdict(counted: &[Counted]) -> bool {
    let names = |wanted: &dyn Fn(&Counted) -> bool| {
        let names: Vec<_> = counted.iter().filter(|one| wanted(one)).map(|one| one.name).collect();
        (!names.is_empty()).then(|| names.join("; "))
    };
    if let Some(better) = names(&|one| one.change().is_some_and(|change| change < -TOLERANCE)) {
        println!(
            "more than 2% fewer instructions than before: {better}. `just instructions --accept` keeps it so."
        );
    }
    if let Some(worse) = names(&Counted::is_worse) {
        println!(
            "more than 2% more instructions than before: {worse}. `--profiles DIR` leaves what callgrind_annotate \
             shows of it; if it is worth it, `just instructions --accept` and say why in the commit."
        );
        return false;
    }
    true
}

/// The worker's instructions for a request.
fn count(proxy: &Path, case: Case, profiles: Option<&Path>) -> Result<f64> {
    let of = |requests| Run { proxy, case, requests, profiles }.instructions();
    let (few, many) = REQUESTS;
    // Side by side, for valgrind runs one thread at a time.
    let counted = std::thread::scope(|scope| {
        let fewer = scope.spawn(|| of(few));
        let more = of(many);
        (fewer.join().unwrap_or_else(|_| Err(anyhow!("the shorter run panicked"))), more)
    });
    let context = || format!("cannot count {} of {}", case.name, proxy.display());
    let (fewer, more) = (counted.0.with_context(context)?, counted.1.with_context(context)?);
    Ok((more as f64 - fewer as f64) / f64::from(many - few))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(instructions: f64, before: Option<f64>) -> Counted {
        Counted { name: "http1", instructions, before }
    }

    #[test]
    fn more_than_two_per_cent_more_is_worse() {
        assert!(!verdict(&[counted(1021.0, Some(1000.0))]));
        assert!(verdict(&[counted(1019.0, Some(1000.0)), counted(500.0, Some(1000.0)), counted(7.0, None)]));
    }
}

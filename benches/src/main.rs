//! `outrigger-bench`: what the mesh costs, and what it changes.

use std::{net::TcpStream, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use outrigger_benches::{
    cli::{Cli, Command, DiffArgs, ForwardArgs},
    diff::{self, Speaks},
    instructions, page, run,
    subject::forwarder,
};

/// How long another proxy may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let code = |good: bool| if good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(&args).map(ExitCode::from),
        Command::Compare(args) => page::compare(&args).map(code),
        Command::Report(args) => page::report(&args).map(|()| ExitCode::SUCCESS),
        Command::Diff(args) => diff(args).map(code),
        Command::Instructions(options) => instructions::run(&options).map(code),
        Command::Forward(ForwardArgs { listen, to }) => {
            forwarder::forward(listen, to).context("cannot forward").map(|()| ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        eprintln!("outrigger-bench: {error:#}");
        ExitCode::FAILURE
    })
}

fn diff(args: DiffArgs) -> Result<bool> {
    if args.list {
        for (name, section) in diff::list() {
            println!("{name:40} {section}");
        }
        return Ok(true);
    }
    if args.allowed {
        print!("{}", diff::table());
        return Ok(true);
    }
    let mut settings = diff::Settings::default();
    if !args.paths.is_empty() {
        settings.paths = args.paths.iter().copied().map(diff::Path::from).collect();
    }
    if let Some((proxy, application)) = args.through.zip(args.listen) {
        // Otherwise every exchange would say so, one after the other.
        TcpStream::connect_timeout(&proxy, PATIENCE).with_context(|| {
            format!("no proxy accepts at {proxy}: start it first, and have it forward to {application}")
        })?;
        settings.paths = vec![diff::Path::Through { proxy, application }];
        (settings.callers, settings.applications) = (vec![Speaks::Http1], vec![Speaks::Http1]);
    }
    if !args.callers.is_empty() {
        settings.callers = args.callers;
    }
    if !args.applications.is_empty() {
        settings.applications = args.applications;
    }
    settings.only = args.only;
    settings.progress = Arc::new(|mode, outcomes| {
        let different = outcomes.iter().filter(|outcome| !outcome.differences.is_empty()).count();
        eprintln!("{mode}: {} exchanges, {different} different", outcomes.len());
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(diff::run(&settings))?;
    print!("{report}");
    if args.verbose {
        let wanted = |outcome: &&diff::Outcome| settings.only.is_some() || !outcome.differences.is_empty();
        for outcome in report.outcomes.iter().filter(wanted) {
            print!("\n{} {}\n{}", outcome.mode, outcome.exchange, outcome.transcripts());
        }
    }
    if let Some(file) = &args.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(report.failures().next().is_none())
}

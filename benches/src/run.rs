//! `outrigger-bench run`, from its arguments to what it prints.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::RunArgs,
    host::stripped_size,
    page::{self, Look, terminal},
    result::{Host, Saved},
    scenario::{
        Name, Wanted,
        book::{self, Book},
        outcome,
        plan::{Plan, spell},
        progress::Progress,
        run::{Surroundings, run as carry_out},
    },
    subject::{Cpus, Environment},
};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All that was wanted has been measured, and no request failed.
    Done,
    /// Requests failed, or something could not be measured though what it needs is there.
    Failed,
    /// A signal ended it.
    Interrupted(SignalKind),
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Done => Self::SUCCESS,
            Ending::Failed => Self::FAILURE,
            // As the shell has it of what a signal ended.
            Ending::Interrupted(signal) => Self::from(128 + signal.as_raw_value() as u8),
        }
    }
}

/// Does what `args` say.
///
/// # Errors
///
/// If nothing can be measured, or results cannot be written.
pub fn run(args: &RunArgs) -> Result<Ending> {
    let wanted = args.wanted();
    let plan = Plan::new(&wanted);
    if args.list {
        page::say(&list(&wanted))?;
        return Ok(Ending::Done);
    }
    let outrigger = outrigger(args.outrigger.as_deref(), &plan)?;
    let cpus = Cpus::pin_load().context("cannot pin to a core")?;
    if cpus.is_none() {
        eprintln!(
            "outrigger-bench: there is only one core, which the load shares with the proxies: nothing is pinned"
        );
    }
    if cfg!(debug_assertions) {
        eprintln!(
            "outrigger-bench: built without optimisation, the figures mean little: use cargo run --release"
        );
    }
    let host = Host::this(cpus.as_ref());
    let folder = book::folder(args.out.as_deref())?;
    let mut book = Book::new(std::env::args().collect(), host, folder);
    eprintln!("outrigger-bench: {plan}; results go to {}", book.folder().display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended =
        runtime.block_on(conduct(args, &wanted, &plan, environment(args, outrigger, cpus), &mut book))?;
    finish(args, ended, &book)
}

/// Measures until all is done or a signal comes. Giving up drops, and so ends, what has been started; what was measured until
/// then is in the book.
async fn conduct(
    args: &RunArgs,
    wanted: &Wanted,
    plan: &Plan,
    environment: Environment,
    book: &mut Book,
) -> Result<Option<SignalKind>> {
    let dir = tempfile::Builder::new().prefix("outrigger-bench-").tempdir().context("no temporary folder")?;
    let binary = stripped_size(&environment.outrigger).ok();
    let around = Surroundings {
        environment: &environment,
        wanted,
        host: args.host.as_deref(),
        path: args.path.as_deref(),
        binary,
        dir: dir.path(),
    };
    let mut progress = Progress::new(plan);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let came = tokio::select! {
        done = carry_out(plan, &around, book, &mut progress) => done.map(|()| None)?,
        _ = interrupt.recv() => Some(SignalKind::interrupt()),
        _ = terminate.recv() => Some(SignalKind::terminate()),
    };
    progress.end();
    if came.is_some() {
        book.interrupt();
        book.set_figures(outcome::figures(book, wanted, binary));
        book.save()?;
    }
    Ok(came)
}

fn environment(args: &RunArgs, outrigger: PathBuf, cpus: Option<Cpus>) -> Environment {
    Environment {
        // Ours is started for each part, with what that needs.
        application: args.to.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0))),
        cpus,
        outrigger,
        outrigger_args: args.proxy_arg.clone(),
        peers: args.against.clone(),
    }
}

/// Prints and writes what was found.
fn finish(args: &RunArgs, came: Option<SignalKind>, book: &Book) -> Result<Ending> {
    let saved = Saved::read(book.folder())?;
    let mut files = vec![saved.path.clone()];
    files.extend(page::write(&saved, &saved.dir)?);
    let run = saved.run;
    let json = || Ok::<_, anyhow::Error>(serde_json::to_string_pretty(&run)? + "\n");
    match args.json.as_deref() {
        Some(file) if file == Path::new("-") => page::say(&json()?)?,
        file => {
            page::say(&terminal::text(&run, &files, Look::of_stdout()))?;
            if let Some(file) = file {
                fs::write(file, json()?).with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
    }
    Ok(match came {
        Some(signal) => Ending::Interrupted(signal),
        None if book.has_failed() => Ending::Failed,
        None => Ending::Done,
    })
}

/// The `outrigger` binary: `named`, or the one beside this program. If the plan needs one that is not there, that is better
/// said before the first minute of measuring than after it.
fn outrigger(named: Option<&Path>, plan: &Plan) -> Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().context("cannot find this program")?.with_file_name("outrigger"),
    };
    if plan.needs_outrigger() && !path.is_file() {
        let build = if cfg!(debug_assertions) { "cargo build" } else { "cargo build --release" };
        bail!(
            "there is no proxy at {}: build it with `{build} -p outrigger-proxy`, or name one with --outrigger PATH",
            path.display()
        );
    }
    Ok(path)
}

/// The scenarios, each with how long it takes.
fn list(wanted: &Wanted) -> String {
    let mut text = String::new();
    for name in Name::value_variants() {
        let alone = Plan::new(&Wanted { scenarios: vec![*name], ..wanted.clone() });
        let default = if name.by_default() { ' ' } else { '*' };
        let _ = writeln!(text, "{name:10}{default} {:>12}  {}", spell(alone.estimate()), name.about());
    }
    let _ = writeln!(text, "\n* only where it is named. All others together: {}", Plan::new(wanted));
    text
}

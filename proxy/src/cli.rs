//! The `outrigger` command: what it takes, and what it says.

use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use outrigger_config::{Name, file};
use outrigger_net::activation::{self, Activated};
use outrigger_net::heap;
use outrigger_telemetry::{AccessLog, LevelFilter, LogControl, diagnostics, level};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::capture::{self, Capture};
use crate::dev::{self, cli::Dev};
use crate::director::{Captured, Tell};
use crate::explain::{self, Explain};
use crate::memory::MemoryLimit;
use crate::proxy::{Ended, Options, Proxy, Source, StartError, start_unless};
use crate::systemd;

/// A service-mesh sidecar, and a reverse proxy on a developer's machine.
#[derive(Debug, Parser)]
#[command(name = "outrigger", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a proxy, from a file or driven by the control API.
    Run(Box<RunArgs>),
    /// Checks a configuration file: says what is wrong and where, or `ok`. Files that it names are not looked at.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Prints the JSON Schema of the configuration file.
    Schema,
    /// Says which rule takes a request, and why not the others.
    Explain(Explain),
    /// A developer's proxy: https://NAME.localhost for what runs on this machine.
    Dev(Dev),
    /// Redirects an application's traffic to the proxy, by nftables.
    #[command(subcommand)]
    Capture(Capture),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").args(["config", "control"]).required(true))]
struct RunArgs {
    /// The configuration file, followed as it changes.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The control API's stream: https://HOST:15012.
    #[arg(long, value_name = "URL", requires = "node")]
    control: Option<String>,
    /// The token for the first certificate.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    token_file: Option<PathBuf>,
    /// This node's name.
    // No conflict with a file: the variable may be set for whatever runs in a container.
    #[arg(long, value_name = "NAME", env = "OUTRIGGER_NODE")]
    node: Option<Perhaps<Name>>,
    /// The zone that this node is in, whose endpoints come first [default: that of this node's own endpoints].
    #[arg(long, value_name = "NAME", env = "OUTRIGGER_ZONE")]
    zone: Option<Perhaps<Name>>,
    /// Where what was applied is kept [default: $XDG_STATE_HOME/outrigger/NODE, or ~/.local/state/…].
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    state_dir: Option<PathBuf>,
    /// Where captured traffic of the application arrives, or `off`.
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:15001", conflicts_with = "config")]
    outbound: Place,
    /// Where captured traffic to the application arrives, or `off`.
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:15006", conflicts_with = "config")]
    inbound: Place,
    /// Where the admin interface listens [default: as the file says, or 127.0.0.1:15000].
    #[arg(long, value_name = "ADDRESS", value_parser = |text: &str| address(text))]
    admin: Option<SocketAddr>,
    /// Where the metrics alone are found, or `off` [default: with --control 0.0.0.0:15020, else off].
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<Place>,
    /// Where the readiness alone is found, or `off` [default: with --control 0.0.0.0:15021, else off].
    #[arg(long, value_name = "ADDRESS")]
    ready: Option<Place>,
    /// How many workers [default: as many as the processors that it may use].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// How much memory it may use, such as 64Mi, or `off` [default: what its cgroup may, else no limit].
    #[arg(long, value_name = "SIZE", env = "OUTRIGGER_MEMORY_LIMIT")]
    memory_limit: Option<Perhaps<MemoryLimit>>,
    /// How long connections are still accepted after SIGTERM [default: with --control 5s, else 0s].
    #[arg(long, value_name = "DURATION")]
    drain_delay: Option<outrigger_config::Duration>,
    /// How long what is under way may take after that, and the application to be gone.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    drain_grace: outrigger_config::Duration,
    /// How long the application has no connection open, and refuses any, before it is taken to be gone. Until then
    /// outbound listeners work as before; `off`: they close with the others.
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    drain_quiet: Quiet,
    /// A Unix socket. Takes over the listening sockets of the proxy that runs with the same path, without losing a
    /// connection; the next one takes over from this one.
    #[arg(long, value_name = "PATH", conflicts_with = "control")]
    upgrade: Option<PathBuf>,
    /// Where requests are logged, as JSON lines.
    #[arg(long, value_name = "WHERE", default_value = "stdout")]
    access_log: AccessLogTo,
    /// What is told on standard error: off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "warn", value_parser = |text: &str| level(text))]
    log_level: LevelFilter,
}

/// A value, or nothing: a variable of the environment may be there and empty, as where Kubernetes fills it with a label
/// that an object lacks.
#[derive(Debug, Clone, Copy)]
struct Perhaps<T>(Option<T>);

impl<T: std::str::FromStr> std::str::FromStr for Perhaps<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(|value| Self(Some(value))) }
    }
}

/// A duration, or none.
#[derive(Debug, Clone, Copy)]
struct Quiet(Option<Duration>);

impl std::str::FromStr for Quiet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        or_off(text, |text| text.parse().map(outrigger_config::Duration::get)).map(Self)
    }
}

/// An address, or none.
#[derive(Debug, Clone, Copy)]
struct Place(Option<SocketAddr>);

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        or_off(text, address).map(Self)
    }
}

fn or_off<T, E: std::fmt::Display>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, String> {
    if text == "off" {
        return Ok(None);
    }
    parse(text).map(Some).map_err(|why| format!("{why}, or `off`"))
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "write an IP address and a port, such as 127.0.0.1:15000 or [::]:15001")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AccessLogTo {
    Stdout,
    Off,
}

/// Runs the command with the process's arguments.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run(*args),
        Command::Check { file } => check(&file),
        Command::Schema => {
            let schema = outrigger_config::schema();
            print_line(&format!("{schema:#}"));
            ExitCode::SUCCESS
        }
        Command::Explain(args) => explain::run(args),
        Command::Dev(args) => dev::cli::run(args),
        Command::Capture(capture) => match capture::run(capture) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
    }
}

pub(crate) fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("outrigger: {error}");
    ExitCode::FAILURE
}

/// A line on standard output; a reader that has gone is no reason to fail.
pub(crate) fn print_line(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn check(path: &Path) -> ExitCode {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return fail(&format!("cannot read {}: {error}", path.display())),
    };
    let name = path.display();
    let file = match file::parse(&text) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("{name}:{}:{}: {}", error.line, error.column, error.reason);
            return ExitCode::FAILURE;
        }
    };
    for rejected in &file.rejected {
        eprintln!("{name}:{rejected}");
    }
    for warning in &file.warnings {
        eprintln!("{name}:{warning} (warning)");
    }
    if !file.rejected.is_empty() {
        return ExitCode::FAILURE;
    }
    print_line("ok");
    ExitCode::SUCCESS
}

fn run(args: RunArgs) -> ExitCode {
    // First of all, before anything else has a file open.
    let activated = match activation::take(&activation::Environment::of_process()) {
        Ok(activated) => activated,
        Err(error) => return fail(&error),
    };
    let log = match prepare(args.log_level) {
        Ok(log) => log,
        Err(error) => return fail(&error),
    };
    let access_log = match args.access_log {
        AccessLogTo::Stdout => AccessLog::stdout(),
        AccessLogTo::Off => AccessLog::off(),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let options = match options(args, activated, access_log.clone(), log) {
        Ok(options) => options,
        Err(why) => return fail(&why),
    };
    let code = runtime.block_on(until_told(options, std::future::pending()));
    access_log.flush_and_close();
    code
}

/// What every process does that runs a proxy: says what is told on standard error, takes the file descriptors it may.
pub(crate) fn prepare(level: LevelFilter) -> Result<LogControl, tracing::subscriber::SetGlobalDefaultError> {
    let (subscriber, log) = diagnostics(level, coloured(&std::io::stderr()));
    tracing::subscriber::set_global_default(subscriber)?;
    raise_open_files();
    Ok(log)
}

/// Whether what is written there may have colours (<https://no-color.org>).
pub(crate) fn coloured(to: &impl IsTerminal) -> bool {
    to.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Takes all the file descriptors that the process may have: the soft limit of 1024, made for programs that use
/// `select`, would be full with some 500 callers.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

fn options(
    args: RunArgs,
    activated: Vec<Activated>,
    access_log: AccessLog,
    log: LogControl,
) -> Result<Options, String> {
    let place = |given: Option<Place>, port: u16, sidecar: bool| match given {
        Some(place) => place.0,
        None => sidecar.then(|| SocketAddr::from(([0, 0, 0, 0], port))),
    };
    let sidecar = args.control.is_some();
    let source = match (args.config, args.control, args.node.and_then(|node| node.0)) {
        (Some(path), ..) => Source::File(path),
        (None, Some(url), Some(node)) => Source::Control(outrigger_control::Options {
            url,
            token_file: args.token_file,
            state_dir: match args.state_dir {
                Some(dir) => dir,
                None => state_dir(&node)?,
            },
            node,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }),
        _ => return Err("give either --config FILE, or --control URL with --node NAME".into()),
    };
    let captured = match (args.outbound.0, args.inbound.0) {
        (Some(outbound), Some(inbound)) if sidecar => Some(Captured { outbound, inbound }),
        (Some(_), None) | (None, Some(_)) if sidecar => {
            return Err("--outbound and --inbound belong together: turn both `off`, or neither".into());
        }
        _ => None,
    };
    let default_delay = if sidecar { Duration::from_secs(5) } else { Duration::ZERO };
    let announce: Tell = Arc::new(|line| print_line(&format!("outrigger: {line}")));
    let complain: Tell = Arc::new(|line| eprintln!("outrigger: {line}"));
    Ok(Options {
        source,
        workers: args.workers.map(usize::from),
        admin: args.admin,
        metrics: place(args.metrics, 15020, sidecar),
        ready: place(args.ready, 15021, sidecar),
        captured,
        zone: args.zone.and_then(|zone| zone.0),
        drain_delay: args.drain_delay.map_or(default_delay, outrigger_config::Duration::get),
        drain_grace: args.drain_grace.get(),
        memory: args.memory_limit.and_then(|limit| limit.0).unwrap_or_default(),
        drain_quiet: args.drain_quiet.0,
        upgrade: args.upgrade,
        activated,
        access_log,
        log,
        announce,
        complain,
    })
}

/// Where a node's state is kept where nobody says (XDG Base Directory Specification).
fn state_dir(node: &Name) -> Result<PathBuf, String> {
    let set = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .map(|base| base.join("outrigger").join(node.as_str()))
        .ok_or_else(|| {
            "neither XDG_STATE_HOME nor HOME is set: say with --state-dir where state is kept".into()
        })
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt })
    }

    /// Waits for the next of either.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Starts a proxy, unless a signal comes before it accepts; whether one has come by now.
async fn start(options: Options, signals: &mut Signals) -> (Result<Proxy, StartError>, bool) {
    let (told, unwanted) = oneshot::channel();
    let mut starting = pin!(start_unless(options, async {
        if unwanted.await.is_err() {
            std::future::pending::<()>().await;
        }
    }));
    tokio::select! {
        biased;
        started = &mut starting => return (started, false),
        () = signals.next() => {}
    }
    // It may be waiting for another to hand over its sockets, which then goes on.
    let _ = told.send(());
    (starting.await, true)
}

/// Runs a proxy until SIGTERM or SIGINT, and drains it; a second signal ends it at once. Meanwhile, once it has started,
/// does what is to be done `beside` it.
pub(crate) async fn until_told(options: Options, beside: impl Future<Output = Infallible>) -> ExitCode {
    let Ok(mut signals) = Signals::new() else { return fail(&"cannot wait for signals") };
    let (started, is_told) = start(options, &mut signals).await;
    let mut proxy = match started {
        Ok(proxy) => proxy,
        Err(unwanted @ StartError::Unwanted) => {
            eprintln!("outrigger: {unwanted}");
            return ExitCode::SUCCESS;
        }
        // Why was said for each of them.
        Err(StartError::Deaf(_)) => {
            return fail(&"none of the listeners could be opened; see the lines above");
        }
        Err(error) => return fail(&error),
    };
    if !is_told {
        systemd::notify("READY=1");
        // What read the command line and the configuration is most of what was touched by now.
        heap::forget_program();
        tokio::select! {
            () = signals.next() => {}
            never = beside => match never {},
            ended = proxy.ended() => {
                systemd::notify("STOPPING=1");
                // Nothing is left but to have the threads end.
                proxy.stop().await;
                return match ended {
                    Ended::Told => ExitCode::SUCCESS,
                    Ended::Failed => fail(&"ended by itself; see the lines above"),
                };
            }
        }
    }
    systemd::notify("STOPPING=1");
    eprintln!("outrigger: draining; a second signal ends it at once");
    tokio::select! {
        () = proxy.stop() => ExitCode::SUCCESS,
        () = signals.next() => fail(&"ended before what was under way was done"),
    }
}

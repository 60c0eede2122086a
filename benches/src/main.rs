//! `outrigger-bench`: what the mesh costs, and what it changes.

use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::{Args, Parser, Subcommand, ValueEnum};
use outrigger_benches::{
    application::Application,
    caller::Protocol,
    cpus::Cpus,
    diff::{self, Speaks},
    instructions, measure, nginx, outrigger,
    path::{Environment, Path},
    report::{Load, Machine, Report, SCHEMA, Settings},
    subject::forwarder,
};
use tokio::signal::unix::{SignalKind, signal};

/// How long another proxy may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a proxy costs (latency, CPU, memory), and what it changes.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures, prints a table, and exits with 1 if a request failed.
    Run(RunArgs),
    /// Finds out what a proxy changes: sends a corpus of exchanges with and without it, and exits with 1 if anything
    /// differs that may not.
    Diff(DiffArgs),
    /// Counts the instructions that the proxy needs for a request, and exits with 1 if they are more than the baseline
    /// has by over 2%.
    Instructions(instructions::Options),
    /// Copies bytes from each connection to a new one: what other subjects are compared with.
    #[command(hide = true)]
    Forward(ForwardArgs),
}

#[derive(Args)]
struct ForwardArgs {
    /// Where to accept.
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where to connect.
    #[arg(long, value_name = "ADDRESS")]
    to: SocketAddr,
}

#[derive(Args)]
struct DiffArgs {
    /// Which paths [default: direct,proxy,sidecars].
    #[arg(long = "path", value_enum, value_delimiter = ',')]
    paths: Vec<Way>,
    /// What callers speak [default: both; with --through http1].
    #[arg(long = "caller", value_enum, value_delimiter = ',')]
    callers: Vec<Speaks>,
    /// What the application speaks [default: both; with --through http1].
    #[arg(long = "application", value_enum, value_delimiter = ',')]
    applications: Vec<Speaks>,
    /// The exchanges with such a name alone; `*` stands for anything.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Only names the exchanges.
    #[arg(long)]
    list: bool,
    /// Only prints which differences are allowed, as a table in Markdown.
    #[arg(long)]
    allowed: bool,
    /// Prints what both ends saw, without the proxy (-) and with it (+), for each exchange that differs, and with
    /// --only for each.
    #[arg(long)]
    verbose: bool,
    /// Where to write the results as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Another proxy, which already runs: where it accepts. It must forward everything to --listen.
    #[arg(long, value_name = "ADDRESS", requires = "listen", conflicts_with = "paths")]
    through: Option<SocketAddr>,
    /// Where that proxy forwards to: the application is started there.
    #[arg(long, value_name = "ADDRESS", requires = "through")]
    listen: Option<SocketAddr>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Way {
    /// No proxy: shows that the exchanges themselves are right.
    Direct,
    /// One proxy.
    Proxy,
    /// Two sidecars, with mutual TLS between them.
    Sidecars,
}

#[derive(Args)]
struct RunArgs {
    /// Requests per second of the constant rate.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Length of a round in seconds.
    #[arg(long, default_value_t = 5.0, value_parser = round)]
    seconds: f64,
    /// Length of the warm-up before each round in seconds.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warmup: f64,
    /// How often each path is measured [default: 1, saturated 5].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// Bytes in the body of each request and of its answer; 0: GET, and a short answer.
    #[arg(long, default_value_t = 0)]
    body: usize,
    /// What callers and the application speak.
    #[arg(long, value_enum, default_value_t = Protocol::H1)]
    protocol: Protocol,
    /// Which paths [default: direct,proxy,sidecars].
    #[arg(long, value_enum, value_delimiter = ',')]
    paths: Vec<Path>,
    /// Another proxy to compare with: adds it to the paths, and a saturated comparison of CPU per request.
    #[arg(long, value_enum)]
    against: Option<Against>,
    /// Only sends as fast as answers come, instead of at a constant rate.
    #[arg(long)]
    saturate: bool,
    /// Where to write the results as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The proxy's binary [default: `outrigger` beside this program].
    #[arg(long, value_name = "PATH")]
    outrigger: Option<PathBuf>,
    /// A further argument for each `outrigger run`; may be given several times.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    proxy_arg: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Against {
    /// nginx from PATH, with one worker.
    Nginx,
}

/// A round in which nothing is sent would report zeros as if they had been measured.
fn round(text: &str) -> Result<f64, String> {
    seconds(text).and_then(|length| {
        if length > 0.0 { Ok(length) } else { Err("a round takes longer than 0 s".into()) }
    })
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("not a number of seconds from 0 to 3600".into()),
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run(args),
        Command::Diff(args) => diff(args),
        Command::Instructions(options) => instructions::run(&options),
        Command::Forward(ForwardArgs { listen, to }) => {
            forwarder::forward(listen, to).context("cannot forward").map(|()| true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("outrigger-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: RunArgs) -> Result<bool> {
    let cpus = Cpus::pin_load().context("cannot pin to a core")?;
    if cpus.is_none() {
        eprintln!("outrigger-bench: there is only one core, which the load shares with the proxies");
    }
    if cfg!(debug_assertions) {
        eprintln!(
            "outrigger-bench: built without optimisation, the figures mean little: use cargo run --release"
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        // Giving up the measurement drops, and so ends, the proxies.
        tokio::select! {
            done = measure_all(&args, cpus) => done,
            _ = interrupt.recv() => anyhow::bail!("interrupted"),
            _ = terminate.recv() => anyhow::bail!("terminated"),
        }
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
        let path = |way: &Way| match way {
            Way::Direct => diff::Path::Direct,
            Way::Proxy => diff::Path::Proxy,
            Way::Sidecars => diff::Path::Sidecars,
        };
        settings.paths = args.paths.iter().map(path).collect();
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

/// Measures what was asked for, prints and writes it; false if a request failed.
async fn measure_all(args: &RunArgs, cpus: Option<Cpus>) -> Result<bool> {
    let plan = plan(args);
    ensure!(plan.iter().all(|(_, paths, _)| !paths.is_empty()), "--paths leaves nothing to measure");
    // Whatever is missing is better said before the first minute of measuring than after it.
    for path in plan.iter().flat_map(|(_, paths, _)| paths) {
        match path {
            Path::Direct => {}
            Path::Proxy | Path::Sidecars => drop(outrigger::find(args.outrigger.as_deref())?),
            Path::Nginx => nginx::available()?,
        }
    }
    let answer = if args.body == 0 { Bytes::from_static(b"ok") } else { vec![b'x'; args.body].into() };
    let application =
        Application::start(args.protocol, answer).await.context("the application cannot listen")?;
    let environment = Environment {
        application: application.address(),
        protocol: args.protocol,
        outrigger: args.outrigger.clone(),
        proxy_args: args.proxy_arg.clone(),
        cpus,
    };
    let settings = Settings {
        protocol: args.protocol,
        connections: args.connections.into(),
        body: args.body,
        seconds: args.seconds,
        warmup: args.warmup,
    };
    let mut sections = Vec::new();
    for (load, paths, rounds) in plan {
        sections.push(measure::section(&paths, load, rounds, &settings, &environment).await?);
    }
    let version = env!("CARGO_PKG_VERSION").into();
    let report = Report { schema: SCHEMA, version, machine: Machine::this(cpus), settings, sections };
    print!("{report}");
    if let Some(file) = &args.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(report.sections.iter().flat_map(|section| &section.paths).all(|path| path.errors == 0))
}

/// The sections of the run: a load, its paths, and how many rounds.
fn plan(args: &RunArgs) -> Vec<(Load, Vec<Path>, u32)> {
    let chosen = |default: &[Path]| {
        let mut paths = if args.paths.is_empty() { default.to_vec() } else { args.paths.clone() };
        if args.against.is_some() && !paths.contains(&Path::Nginx) {
            paths.push(Path::Nginx);
        }
        paths
    };
    let saturated = |paths| (Load::Saturated, paths, args.rounds.unwrap_or(5));
    if args.saturate {
        return vec![saturated(chosen(&[Path::Proxy]))];
    }
    let open = Load::Open { rate: args.rate };
    let mut plan =
        vec![(open, chosen(&[Path::Direct, Path::Proxy, Path::Sidecars]), args.rounds.unwrap_or(1))];
    if args.against.is_some() {
        plan.push(saturated(vec![Path::Proxy, Path::Nginx]));
    }
    plan
}

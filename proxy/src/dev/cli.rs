//! The `outrigger dev` command: what it takes, does and says.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use outrigger_certs::Authority;
use outrigger_config::{HostPort, Name};
use outrigger_telemetry::{AccessLog, LevelFilter, LogControl, level};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::authority::{self, Files};
use super::config;
use super::names::{self, Site, Target};
use super::ports::{self, Ports};
use super::surroundings::Surroundings;
use super::trust::{State, command};
use crate::cli::{address, coloured, fail, prepare, print_line, until_told};
use crate::proxy::{Options, Source};

/// How long an application may take to accept a connection before it is said not to be up.
const UP_PATIENCE: Duration = Duration::from_millis(300);
/// How often it is looked whether certificates are due.
const DUE_INTERVAL: Duration = Duration::from_hours(1);

const EXAMPLES: &str = "\
Examples:
  outrigger dev shop=3000                        https://shop.localhost leads to port 3000
  outrigger dev shop=5173 'shop/api=4000'        paths below it lead elsewhere
  outrigger dev web=./dist                       the files of a folder
  outrigger dev out=https://example.org          another machine
  outrigger dev shop=3000 --write outrigger.yaml the same as a file, for `outrigger run -c`
  outrigger dev trust                            browsers trust the certificates";

/// A developer's proxy: https://NAME.localhost for what runs on this machine.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub(crate) struct Dev {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// A name, a path below it if need be, and what answers there: a PORT, HOST:PORT, URL or FOLDER.
    #[arg(value_name = "NAME[/PATH]=TARGET")]
    sites: Vec<String>,
    /// Writes the configuration that this command line stands for to a new file, and ends.
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// The port for HTTPS [default: 443 where it can be had, else 8443].
    #[arg(long, value_name = "PORT")]
    https_port: Option<u16>,
    /// The port for HTTP [default: 80 where it can be had, else 8080].
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Where the admin interface listens [default: 127.0.0.1, on any port].
    #[arg(long, value_name = "ADDRESS", value_parser = |text: &str| address(text))]
    admin: Option<SocketAddr>,
    /// What is told on standard error: off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "error", value_parser = |text: &str| level(text))]
    log_level: LevelFilter,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Has the system and its browsers trust the local authority, or says what to do.
    Trust {
        /// Says what was done as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Takes the local authority out of everything that trusts it.
    Untrust {
        /// Says what was done as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub(crate) fn run(args: Dev) -> ExitCode {
    let ended = match &args.verb {
        Some(Verb::Trust { json }) => command::trust(*json),
        Some(Verb::Untrust { json }) => command::untrust(*json),
        None => serve(args),
    };
    ended.unwrap_or_else(|why| fail(&why))
}

fn serve(args: Dev) -> Result<ExitCode, String> {
    let around = Surroundings::look()?;
    let here = std::env::current_dir().map_err(|error| format!("the current folder: {error}"))?;
    let sites = names::sites(&args.sites, &here, around.home.as_deref())?;
    let ports = ports::choose(args.https_port, args.http_port)?;
    no_circles(&sites, &ports)?;
    let authority = around.files.open_or_create(&around.owner)?;
    let hosts = hosts(&sites);
    let certificates = around.files.issue(&authority, &hosts)?;
    let text = config::text(&sites, &ports, &certificates);
    if let Some(file) = &args.write {
        return write(file, &args.sites, &around, &text);
    }
    let log = prepare(args.log_level).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let access_log = access_log();
    let options = options(text, args.admin, access_log.clone(), log);
    let code = runtime.block_on(async {
        let lines = lines(&sites, &ports).await;
        until_told(options, async {
            for line in &lines {
                say(line);
            }
            say_trust(&around, &authority).await;
            renew(&around.files, &authority, &hosts).await
        })
        .await
    });
    access_log.flush_and_close();
    Ok(code)
}

/// Each host once, in the order of the command line.
fn hosts(sites: &[Site]) -> Vec<Name> {
    let mut hosts: Vec<Name> = Vec::new();
    for site in sites {
        if !hosts.contains(&site.host) {
            hosts.push(site.host.clone());
        }
    }
    hosts
}

/// What leads to the proxy itself would go round for ever.
fn no_circles(sites: &[Site], ports: &Ports) -> Result<(), String> {
    if ports.https == ports.http {
        return Err(format!("port {} cannot be for both HTTPS and HTTP: choose two", ports.https));
    }
    let own =
        |site: &&Site| matches!(site.target, Target::Port(port) if port == ports.https || port == ports.http);
    match sites.iter().find(own) {
        Some(site) => Err(format!(
            "{}{} leads to {}, where this proxy itself listens: give the application another port, or the proxy, \
             with --https-port or --http-port",
            site.host, site.path, site.target
        )),
        None => Ok(()),
    }
}

fn options(text: String, admin: Option<SocketAddr>, access_log: AccessLog, log: LogControl) -> Options {
    Options {
        workers: None,
        admin: Some(admin.unwrap_or((Ipv4Addr::LOCALHOST, 0).into())),
        drain_grace: Duration::from_secs(1),
        access_log,
        log,
        announce: Arc::new(|line| {
            if line.starts_with("admin ") {
                tracing::info!("{line}");
            }
        }),
        complain: Arc::new(|line| eprintln!("outrigger: {line}")),
        ..Options::quiet(Source::Text(text))
    }
}

/// Lines for people at a terminal, JSON for programs.
fn access_log() -> AccessLog {
    let out = io::stdout();
    if out.is_terminal() {
        AccessLog::text(Box::new(io::stdout()), coloured(&out))
    } else {
        AccessLog::stdout()
    }
}

/// Says a line beside the access log: a program that reads that is not to stumble over it.
fn say(line: &str) {
    if io::stdout().is_terminal() {
        print_line(line);
    } else {
        eprintln!("{line}");
    }
}

/// Where everything is: a line for each site.
async fn lines(sites: &[Site], ports: &Ports) -> Vec<String> {
    let mut looking = JoinSet::new();
    for (at, site) in sites.iter().enumerate() {
        let target = site.target.clone();
        looking.spawn(async move { (at, trouble(&target).await) });
    }
    let mut troubles = vec![None; sites.len()];
    while let Some(Ok((at, trouble))) = looking.join_next().await {
        if let Some(place) = troubles.get_mut(at) {
            *place = trouble;
        }
    }
    let port = if ports.https == 443 { String::new() } else { format!(":{}", ports.https) };
    let urls: Vec<_> = sites.iter().map(|site| format!("https://{}{port}{}", site.host, site.path)).collect();
    let width = urls.iter().map(String::len).max().unwrap_or(0);
    let line = |((url, site), trouble): ((&String, &Site), Option<&str>)| {
        let trouble = trouble.map(|trouble| format!("  ({trouble})")).unwrap_or_default();
        format!("{url:width$} → {}{trouble}", site.target)
    };
    urls.iter().zip(sites).zip(troubles).map(line).collect()
}

/// Why nothing answers at a target, as far as can be seen in a moment.
async fn trouble(target: &Target) -> Option<&'static str> {
    let found: io::Result<Vec<SocketAddr>> = match target {
        Target::Folder(_) => return None,
        Target::Port(port) => {
            Ok(vec![(Ipv4Addr::LOCALHOST, *port).into(), (std::net::Ipv6Addr::LOCALHOST, *port).into()])
        }
        Target::Address(address) | Target::Secure(address) => match address {
            HostPort::Socket(address) => Ok(vec![*address]),
            HostPort::Name(host, port) => {
                let found = tokio::net::lookup_host((&**host, *port));
                match tokio::time::timeout(UP_PATIENCE, found).await {
                    Ok(found) => found.map(Iterator::collect),
                    Err(_) => return None,
                }
            }
        },
    };
    let Ok(addresses) = found else { return Some("the name does not resolve yet") };
    let connected = tokio::time::timeout(UP_PATIENCE, TcpStream::connect(addresses.as_slice()));
    (!matches!(connected.await, Ok(Ok(_)))).then_some("not up yet")
}

/// Says whether browsers believe in the certificates.
async fn say_trust(around: &Surroundings, authority: &Authority) {
    let (machine, root) = (around.machine(), around.root(authority));
    let Ok(steps) = tokio::task::spawn_blocking(move || machine.state(&root)).await else { return };
    let trusted = steps.iter().filter(|step| step.state == State::Present).count();
    let line = match (trusted, steps.len()) {
        (0, _) => {
            "The certificates are not trusted yet: `outrigger dev trust` has browsers trust them.".to_owned()
        }
        (some, all) if some == all => return,
        _ => {
            let not: Vec<_> = steps.iter().filter(|s| s.state != State::Present).map(|s| s.store).collect();
            format!(
                "The certificates are not trusted everywhere ({}): `outrigger dev trust` helps.",
                not.join(", ")
            )
        }
    };
    say(&line);
}

/// Makes the certificates anew when half of their time is over. The proxy follows their files.
async fn renew(files: &Files, authority: &Authority, hosts: &[Name]) -> Infallible {
    let mut due = authority::due(SystemTime::now());
    loop {
        tokio::time::sleep(DUE_INTERVAL).await;
        if SystemTime::now() >= due {
            match files.issue(authority, hosts) {
                Ok(_) => due = authority::due(SystemTime::now()),
                Err(why) => eprintln!("outrigger: {why}"),
            }
        }
    }
}

fn write(file: &Path, arguments: &[String], around: &Surroundings, text: &str) -> Result<ExitCode, String> {
    let path = file.display();
    let mut whole = format!("# What `outrigger dev {}` runs, as a file:\n#\n", arguments.join(" "));
    let _ = writeln!(whole, "#   outrigger run -c {path}\n#");
    let _ = writeln!(
        whole,
        "# The certificates are of the local authority, {}. They last for 90 days; each",
        around.files.root().display()
    );
    let _ = writeln!(
        whole,
        "# `outrigger dev` with these names makes them anew, and `outrigger dev trust` has browsers trust them."
    );
    whole.push_str(text);
    let new = std::fs::OpenOptions::new().write(true).create_new(true).open(file);
    new.and_then(|mut new| io::Write::write_all(&mut new, whole.as_bytes())).map_err(|error| match error
        .kind()
    {
        io::ErrorKind::AlreadyExists => {
            format!("{path} is there already: remove it first, or choose another name")
        }
        _ => format!("cannot write {path}: {error}"),
    })?;
    print_line(&format!("{path} is written: outrigger run -c {path}"));
    Ok(ExitCode::SUCCESS)
}

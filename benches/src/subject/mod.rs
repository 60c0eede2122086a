//! What stands between callers and the application: nothing, bytes being copied, Outrigger, or another proxy.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use self::start::{Start, Until};
use crate::{
    load::Traffic,
    process::{Process, Usage},
};

pub(crate) mod certificates;
mod cpus;
mod envoy;
pub mod forwarder;
mod haproxy;
mod nginx;
mod outrigger;
mod peer;
mod start;
mod syscalls;
mod template;

pub use cpus::Cpus;
pub use peer::Peer;
pub use syscalls::Syscalls;

/// What stands between callers and the application.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing: what the others are compared with. Whether the application speaks TLS is its own matter.
    Direct,
    /// A process that copies bytes and knows no protocol: the floor that any proxy stands on.
    Forwarder,
    /// Outrigger.
    Outrigger,
    /// Another proxy, by its name: `nginx`, `haproxy`, `envoy`, `linkerd`, or one that the user has named.
    Peer(String),
}

/// How many proxies stand there, and what is between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hops {
    /// One, without TLS towards the application.
    One,
    /// Two, with mutual TLS between them.
    Two,
}

/// What a subject is to be started for, and with what switched on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setup {
    /// One proxy, or two.
    pub hops: Hops,
    /// What callers and the application speak.
    pub traffic: Traffic,
    /// Whether callers speak TLS to it.
    pub tls: bool,
    /// Workers of each proxy.
    pub workers: u32,
    /// Routes, the last of which takes the load; the others are like it but for their hosts and paths.
    pub routes: u32,
    /// Whether each request leaves a line in an access log.
    pub access_log: bool,
    /// Whether each request is traced (all of them sampled).
    pub tracing: bool,
}

/// A subject that has been started. Dropping it ends its processes.
#[derive(Debug)]
pub struct Subject {
    /// Where callers connect.
    pub address: SocketAddr,
    /// Its processes; none of [`Kind::Direct`].
    pub processes: Vec<Process>,
    /// The certificate that callers trust, in PEM, where they speak TLS to it.
    pub trust: Option<String>,
    /// Where Outrigger's administration listens, for each process.
    pub admin: Vec<SocketAddr>,
    /// What it says that it is (`nginx/1.22.1`).
    pub version: String,
    /// The files that it was started from: name and text, without keys.
    pub configuration: Vec<(String, String)>,
    /// From the start of its process, of the caller's of two, until it accepted, or answered.
    began_in: Duration,
    /// Its files. After the processes, so that it goes when they are gone.
    folder: Option<TempDir>,
}

/// What every subject is given.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Where the application listens.
    pub application: SocketAddr,
    /// Where the proxies run; `None` where the system decides.
    pub cpus: Option<Cpus>,
    /// The `outrigger` binary.
    pub outrigger: PathBuf,
    /// Further arguments for each `outrigger run`.
    pub outrigger_args: Vec<String>,
    /// Other proxies, as far as the user said how they are started. Those that there is a configuration of need not be here.
    pub peers: Vec<Peer>,
}

impl Environment {
    /// What the user said of how a peer is started.
    fn peer(&self, name: &str) -> Option<&str> {
        self.peers.iter().find(|peer| peer.name == name)?.given.as_deref()
    }
}

/// What a subject says that it is, if it can be measured here with such a setup; else why it cannot, and what to do.
///
/// # Errors
///
/// The reason, for people: a peer that is not installed, or that cannot do it.
pub fn available(kind: &Kind, setup: &Setup, environment: &Environment) -> Result<String, String> {
    match kind {
        Kind::Direct => Ok("direct".into()),
        Kind::Forwarder if setup.tls || setup.access_log || setup.tracing || setup.workers > 1 => {
            Err("the forwarder copies bytes in one thread, and does nothing else".into())
        }
        Kind::Forwarder => Ok(concat!("outrigger-bench ", env!("CARGO_PKG_VERSION")).into()),
        Kind::Outrigger => outrigger::available(setup, environment),
        Kind::Peer(name) => peer::available(name, setup, environment),
    }
}

impl Subject {
    /// Starts it, in a folder of its own in `dir`, which goes with it. On return it accepts.
    ///
    /// # Errors
    ///
    /// If it is not [`available`], or a process of it cannot be started, with what that had to say.
    pub async fn start(kind: &Kind, setup: &Setup, environment: &Environment, dir: &Path) -> Result<Self> {
        Self::start_until(Until::Accepted, kind, setup, environment, dir).await
    }

    async fn start_until(
        until: Until,
        kind: &Kind,
        setup: &Setup,
        environment: &Environment,
        dir: &Path,
    ) -> Result<Self> {
        let version = available(kind, setup, environment).map_err(anyhow::Error::msg)?;
        allow_files().context("cannot raise the limit of open files")?;
        let folder = tempfile::tempdir_in(dir).with_context(|| format!("no folder in {}", dir.display()))?;
        let start = Start { setup, environment, dir: folder.path(), until };
        let started = match kind {
            Kind::Direct => Ok(Self::at(environment.application)),
            Kind::Forwarder => forwarder(&start).await,
            Kind::Outrigger => outrigger::start(&start).await,
            Kind::Peer(name) => peer::start(&start, name).await,
        };
        let started = started.with_context(|| format!("{version} cannot be measured"))?;
        Ok(Self { version, folder: Some(folder), ..started })
    }

    /// What its processes have spent so far, together.
    ///
    /// # Errors
    ///
    /// If one has ended.
    pub fn usage(&self) -> Result<Usage> {
        let mut sum = Usage::default();
        for process in &self.processes {
            sum += process.usage()?;
        }
        Ok(sum)
    }

    /// Resident memory of its processes in KiB, together.
    ///
    /// # Errors
    ///
    /// If one has ended.
    pub fn resident_kib(&self) -> Result<u64> {
        self.processes.iter().map(Process::resident_kib).sum()
    }

    /// The threads of its processes.
    ///
    /// # Errors
    ///
    /// If one has ended.
    fn threads(&self) -> Result<Vec<i32>> {
        let mut threads = Vec::new();
        for process in &self.processes {
            threads.extend(process.threads()?);
        }
        Ok(threads)
    }

    /// One that the user has started: nothing is known of its processes.
    pub fn running(address: SocketAddr) -> Self {
        Self { version: "as the user started it".into(), ..Self::at(address) }
    }

    /// The folder of the files that it was started from.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(TempDir::path)
    }

    fn at(address: SocketAddr) -> Self {
        Self {
            address,
            processes: Vec::new(),
            trust: None,
            admin: Vec::new(),
            version: String::new(),
            configuration: Vec::new(),
            began_in: Duration::ZERO,
            folder: None,
        }
    }

    fn one(address: SocketAddr, process: Process) -> Self {
        Self { processes: vec![process], ..Self::at(address) }
    }

    /// This one, which sends to `next`, and that one.
    fn before(mut self, next: Self) -> Self {
        self.processes.extend(next.processes);
        self.admin.extend(next.admin);
        self.configuration.extend(next.configuration);
        self
    }
}

/// As many open files as this program may have, which is more than shells give: proxies inherit it, and some of them take no
/// more connections than it lets them.
fn allow_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?)
}

/// How long a subject takes from the start of its process until it has answered its first request, asked for five times a
/// millisecond. For one proxy, HTTP/1.1 and no TLS.
///
/// # Errors
///
/// As [`Subject::start`], or if there is no proxy.
pub async fn first_answer(
    kind: &Kind,
    setup: &Setup,
    environment: &Environment,
    dir: &Path,
) -> Result<Duration> {
    ensure!(*kind != Kind::Direct, "the application is there already");
    let can = setup.hops == Hops::One && setup.traffic == Traffic::Http1 && !setup.tls;
    ensure!(can, "a first answer is waited for with HTTP/1.1, from one proxy, without TLS");
    Ok(Subject::start_until(Until::Answered, kind, setup, environment, dir).await?.began_in)
}

/// This program again, as one forwarder or two in a row.
async fn forwarder(start: &Start<'_>) -> Result<Subject> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let one = async |name, to: SocketAddr| {
        let listen = start::free()?;
        let mut command = Command::new(&program);
        command.args(["forward", "--listen", &listen.to_string(), "--to", &to.to_string()]);
        let (process, began_in) = start.run(name, command, listen).await?;
        anyhow::Ok(Subject { began_in, ..Subject::one(listen, process) })
    };
    match start.setup.hops {
        Hops::One => one("forwarder", start.environment.application).await,
        Hops::Two => {
            let callee = one("callee", start.environment.application).await?;
            Ok(one("caller", callee.address).await?.before(callee))
        }
    }
}

/// Where a program is: `named` if it is a path, else in PATH, or where system programs are.
fn find(named: &Path) -> Option<PathBuf> {
    if named.components().count() > 1 {
        return named.is_file().then(|| named.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(named)).find(|file| file.is_file())
}

/// The name and version in what nginx, HAProxy, Envoy or another program prints of itself.
fn named(line: &str) -> String {
    if let Some(version) = line.strip_prefix("nginx version: ") {
        return version.to_owned();
    }
    if let Some(version) = line.strip_prefix("HAProxy version ") {
        return format!("HAProxy {}", version.split(' ').next().unwrap_or_default());
    }
    // As `/usr/bin/envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`.
    match line.split_once("  version: ").and_then(|(_, version)| version.split('/').nth(1)) {
        Some(version) => format!("Envoy {version}"),
        None => line.to_owned(),
    }
}

/// What a program prints of its version, in its first line: as `nginx/1.22.1`, `HAProxy 2.6.12`.
fn version(command: &mut Command) -> Result<String, String> {
    let run = |command: &mut Command| -> Result<String> {
        let output = command.output()?;
        let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&text).trim());
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
        Ok(named(line))
    };
    run(command).map_err(|error| format!("{} does not run: {error:#}", command.get_program().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions() {
        assert_eq!(named("nginx version: nginx/1.22.1"), "nginx/1.22.1");
        assert_eq!(
            named("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/"),
            "HAProxy 2.6.12-1+deb12u4"
        );
        assert_eq!(named("envoy  version: 9e558/1.40.0/Clean/RELEASE/BoringSSL"), "Envoy 1.40.0");
        assert_eq!(named("outrigger 0.1.0"), "outrigger 0.1.0");
    }

    #[test]
    fn a_peer_that_cannot_be_started_says_what_to_do() {
        let error = "mine".parse::<Peer>().unwrap_err();
        assert!(error.contains("mine=COMMAND with {listen}"), "{error}");
        assert!("mine=run {listen}".parse::<Peer>().is_err());
        assert!("direct=run {listen} {application}".parse::<Peer>().is_err());
        assert_eq!("linkerd".parse::<Peer>().unwrap().given, None);
        assert!("nginx=".parse::<Peer>().is_err());
        let mine: Peer = "mine=run --listen {listen} {application}".parse().unwrap();
        assert_eq!(
            (mine.name.as_str(), mine.given.as_deref()),
            ("mine", Some("run --listen {listen} {application}"))
        );
        assert_eq!("envoy=/opt/envoy".parse::<Peer>().unwrap().given.as_deref(), Some("/opt/envoy"));
    }
}

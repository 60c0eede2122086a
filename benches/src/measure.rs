//! Measuring: every path in turn, round by round, so that what else the machine does falls on all of them alike.

use std::{io, io::IsTerminal, io::Write, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use tempfile::TempDir;

use crate::{
    caller::Caller,
    generator::{self, Measured, Pace},
    path::{Environment, Path, Subject},
    process::Usage,
    report::{Cpu, Load, PathReport, Quantiles, Resident, Section, Settings, median},
};

/// How long a proxy is left alone before its idle memory is read: start-up work is over by then.
const SETTLE: Duration = Duration::from_millis(500);

/// Measures `paths` under `load` for some `rounds`.
///
/// # Errors
///
/// If a proxy cannot be started or ends early. Requests that fail are not errors here: the section counts them.
pub async fn section(
    paths: &[Path],
    load: Load,
    rounds: u32,
    settings: &Settings,
    environment: &Environment,
) -> Result<Section> {
    let progress = Progress::new();
    let mut tracks = Vec::with_capacity(paths.len());
    for path in paths {
        progress.say(&format!("{path}: starting"));
        tracks.push(Track::start(*path, settings, environment).await?);
    }
    for round in 1..=rounds {
        for track in &mut tracks {
            progress.say(&format!("round {round} of {rounds}: {}", track.path));
            track.round(load, settings).await?;
        }
    }
    progress.say("");
    let reports = tracks.into_iter().map(Track::report).collect::<Result<_>>()?;
    Ok(Section::new(load, reports))
}

/// One path while it is measured.
struct Track {
    path: Path,
    subject: Subject,
    /// Its proxies' files, which live as long as they do.
    _dir: TempDir,
    callers: Vec<Caller>,
    idle_kib: u64,
    measured: Measured,
    cpu_rounds: Vec<f64>,
    ticks: Usage,
}

impl Track {
    async fn start(path: Path, settings: &Settings, environment: &Environment) -> Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("outrigger-bench-").tempdir().context("no temporary folder")?;
        let subject = Subject::start(path, environment, dir.path()).await?;
        if !subject.processes.is_empty() {
            tokio::time::sleep(SETTLE).await;
        }
        let body = Bytes::from(vec![b'x'; settings.body]);
        let callers = (0..settings.connections)
            .map(|_| Caller::new(subject.address, settings.protocol, body.clone()))
            .collect();
        Ok(Self {
            path,
            idle_kib: subject.resident_kib()?,
            subject,
            _dir: dir,
            callers,
            measured: Measured::empty(),
            cpu_rounds: Vec::new(),
            ticks: Usage::default(),
        })
    }

    async fn round(&mut self, load: Load, settings: &Settings) -> Result<()> {
        let callers = std::mem::take(&mut self.callers);
        let (callers, _) = generator::run(callers, pace(load, settings.warmup)).await?;
        let before = self.subject.usage()?;
        let (callers, measured) = generator::run(callers, pace(load, settings.seconds)).await?;
        let after = self.subject.usage()?;
        self.callers = callers;
        let spent = after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6;
        self.cpu_rounds.push(spent / measured.requests().max(1) as f64);
        self.ticks.user += after.user.saturating_sub(before.user);
        self.ticks.system += after.system.saturating_sub(before.system);
        self.measured.merge(&measured);
        Ok(())
    }

    fn report(self) -> Result<PathReport> {
        let proxied = !self.subject.processes.is_empty();
        let total = median(&self.cpu_rounds);
        let user = total * self.ticks.user as f64 / (self.ticks.user + self.ticks.system).max(1) as f64;
        let after = self.subject.resident_kib()?;
        Ok(PathReport {
            path: self.path,
            requests: self.measured.requests(),
            errors: self.measured.errors,
            per_second: self.measured.requests() as f64 / self.measured.elapsed.as_secs_f64().max(1e-9),
            latency: Quantiles::of(&self.measured),
            first_error: self.measured.first_error,
            added: None,
            cpu_per_request: proxied.then_some(Cpu {
                total,
                user,
                system: total - user,
                rounds: self.cpu_rounds,
            }),
            resident_kib: proxied.then_some(Resident { idle: self.idle_kib, after }),
        })
    }
}

fn pace(load: Load, seconds: f64) -> Pace {
    match load {
        Load::Open { rate } => {
            Pace::Open { per_second: rate, requests: (f64::from(rate) * seconds).round() as u64 }
        }
        Load::Saturated => Pace::Closed { time: Duration::from_secs_f64(seconds) },
    }
}

/// What is going on, on standard error, if somebody is looking.
struct Progress {
    terminal: bool,
}

impl Progress {
    fn new() -> Self {
        Self { terminal: io::stderr().is_terminal() }
    }

    /// Replaces the line.
    fn say(&self, what: &str) {
        if self.terminal {
            // Nothing depends on it being seen.
            let _ = write!(io::stderr(), "\r\x1b[K{what}");
        }
    }
}

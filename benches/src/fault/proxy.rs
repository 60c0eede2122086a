//! An Outrigger whose configuration changes.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::Stage;
use crate::process::Process;

/// How long a change may take to be live.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long between two looks at whether it is. Each costs the proxy a little.
const LOOK: Duration = Duration::from_millis(10);

/// The revision of the live configuration.
pub(super) const REVISION: &str = "outrigger_config_revision ";
/// When the identity's certificate ends.
pub(super) const EXPIRY: &str = "outrigger_certificate_expiry_timestamp_seconds{certificate=\"identity\"} ";

/// A proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    /// Where callers connect.
    pub(super) address: SocketAddr,
    /// Its process.
    pub(super) process: Process,
    admin: SocketAddr,
    file: PathBuf,
}

impl Proxy {
    /// Starts one from this text.
    pub(super) async fn start(stage: &Stage, name: &str, text: &str) -> Result<Self> {
        let file = stage.dir.join(format!("{name}.yaml"));
        write(&file, text)?;
        Self::start_from(stage, name, file, &[]).await
    }

    /// Starts one from a file.
    pub(super) async fn start_from(stage: &Stage, name: &str, file: PathBuf, more: &[&Path]) -> Result<Self> {
        let environment = &stage.environment;
        let mut command = Command::new(&environment.outrigger);
        command.arg("run").arg("-c").arg(&file).args(["--workers", "1", "--access-log", "off"]);
        command.args(more).args(&environment.outrigger_args);
        let mut process = Process::spawn(name, command, &stage.dir, |command| match &environment.cpus {
            Some(cpus) => cpus.on_proxies(1, || command.spawn()),
            None => command.spawn(),
        })?;
        let at = |what: &'static str| move |line: &str| line.strip_prefix(what)?.parse().ok();
        let admin =
            process.line("where its administration listens", at("outrigger: admin on http://")).await?;
        let address = process.line("where it listens", at("outrigger: listener bench on ")).await?;
        Ok(Self { address, process, admin, file })
    }

    /// Writes its file anew.
    pub(super) fn rewrite(&self, text: &str) -> Result<()> {
        write(&self.file, text)
    }

    /// Writes its file anew, and waits until that is live.
    pub(super) async fn apply(&self, text: &str) -> Result<()> {
        let before = self.metric(REVISION).await?;
        self.rewrite(text)?;
        self.until_other(REVISION, before).await
    }

    /// Waits until a metric is something else.
    pub(super) async fn until_other(&self, name: &str, before: f64) -> Result<()> {
        let changed = timeout(PATIENCE, async {
            while self.metric(name).await?.to_bits() == before.to_bits() {
                sleep(LOOK).await;
            }
            anyhow::Ok(())
        });
        let late = || format!("{name}is still {before} after {PATIENCE:?}{}", self.process.complaint());
        changed.await.with_context(late)?
    }

    /// The value of the metric whose line begins so.
    pub(super) async fn metric(&self, name: &str) -> Result<f64> {
        let mut stream =
            TcpStream::connect(self.admin).await.context("the administration does not listen")?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let value = answer.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.with_context(|| format!("there is no metric {name}"))
    }
}

/// As those do it who know that somebody reads it: what is there is always whole.
fn write(path: &Path, text: &str) -> Result<()> {
    let next = path.with_extension("next");
    fs::write(&next, text)
        .and_then(|()| fs::rename(&next, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

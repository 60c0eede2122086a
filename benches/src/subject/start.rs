//! What starting any subject takes: files, ports, processes.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::yield_now,
    time::timeout,
};

use super::{Environment, Setup};
use crate::process::Process;

/// One subject's start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start<'a> {
    pub(super) setup: &'a Setup,
    pub(super) environment: &'a Environment,
    /// Its folder.
    pub(super) dir: &'a Path,
    /// What is waited for.
    pub(super) until: Until,
}

/// What the start of a subject waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// It accepts connections.
    Accepted,
    /// It has answered a request (HTTP/1.1), and when is to be known exactly.
    Answered,
}

/// How long until a process answers its first request at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long between two attempts to have one answered.
const ATTEMPT: Duration = Duration::from_micros(200);

impl Start<'_> {
    /// Writes a file of its configuration. Returns where it is, and its name and text for the results.
    pub(super) fn write(&self, name: &str, text: String) -> Result<(PathBuf, (String, String))> {
        let path = self.dir.join(name);
        fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok((path, (name.to_owned(), text)))
    }

    /// Starts a process on the proxies' cores.
    pub(super) fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        Process::spawn(name, command, self.dir, |command| match &self.environment.cpus {
            Some(cpus) => cpus.on_proxies(self.setup.workers, || command.spawn()),
            None => command.spawn(),
        })
    }

    /// Starts a process, and waits for what is waited for at `listen`. Returns how long that took.
    pub(super) async fn run(
        &self,
        name: &str,
        command: Command,
        listen: SocketAddr,
    ) -> Result<(Process, Duration)> {
        let began = Instant::now();
        let mut process = self.spawn(name, command)?;
        match self.until {
            Until::Accepted => process.accepts(listen).await?,
            Until::Answered => {
                let answered = timeout(PATIENCE, async {
                    while answer(listen).await.is_err() {
                        if process.ended() {
                            bail!("{name} ended before it answered{}", process.complaint());
                        }
                        // What the clock of the runtime can tell is too coarse.
                        let attempted = Instant::now();
                        while attempted.elapsed() < ATTEMPT {
                            yield_now().await;
                        }
                    }
                    Ok(())
                });
                answered.await.with_context(|| format!("{name} did not answer within 10 s"))??;
            }
        }
        Ok((process, began.elapsed()))
    }
}

/// Waits for the answer to a request: one that is not 200 is an error.
async fn answer(from: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(from).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: bench.local\r\n\r\n").await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    if status.ends_with(b" 200") { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// A port of this host that nobody listens on, for a proxy that cannot tell which one the system chose for it.
pub(super) fn free() -> Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).context("no port is free")
}

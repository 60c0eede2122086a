//! One run of the proxy in callgrind.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{Case, traffic};

/// How long a proxy may take to listen, to settle or to end: some fifty times as long as without valgrind, on a machine
/// that may be busy.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long a proxy has to be seen asleep until it counts as that.
const LOOK: Duration = Duration::from_micros(100);

/// One run of the proxy in callgrind, with so many requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) proxy: &'a Path,
    pub(super) case: Case,
    pub(super) requests: u32,
    pub(super) profiles: Option<&'a Path>,
}

impl Run<'_> {
    /// What the worker executed in all.
    pub(super) fn instructions(&self) -> Result<u64> {
        let dir = tempfile::tempdir().context("cannot make a folder")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut counted = runtime.block_on(traffic::send(self, dir.path()))?;
        let worker = counted.threads().place("worker-0")?;
        // With all connections: otherwise it would wait for them to end.
        drop(runtime);
        counted.end()?;
        let profile = |thread| dir.path().join(format!("callgrind-{thread:02}"));
        let count = total(&profile(worker))?;
        if let Some(kept) = self.profiles {
            fs::create_dir_all(kept).with_context(|| format!("cannot make {}", kept.display()))?;
            let name = self.case.name.replace([' ', ',', '\''], "-");
            fs::copy(profile(worker), kept.join(format!("callgrind.out.{name}-{}", self.requests)))?;
        }
        Ok(count)
    }

    /// Starts the proxy with this configuration, in callgrind or as it is.
    pub(super) fn start(
        &self,
        dir: &Path,
        name: &str,
        file: &str,
        counted: bool,
    ) -> Result<(Proxy, SocketAddr)> {
        let path = dir.join(format!("{name}.yaml"));
        fs::write(&path, file).with_context(|| format!("cannot write {}", path.display()))?;
        let mut command = Command::new(self.proxy);
        if counted {
            command = Command::new("valgrind");
            let output = dir.join("callgrind");
            command.args(["-q", "--tool=callgrind", "--separate-threads=yes"]);
            // How long that takes is random by its very purpose, and a hundred times the rest of a handshake.
            command.args(["--toggle-collect=*jent_measure_jitter", "--collect-atstart=yes"]);
            command.arg(format!("--callgrind-out-file={}", output.display())).arg(self.proxy);
        }
        command.arg("run").arg("-c").arg(&path).args(["--workers", "1"]);
        if !self.case.policies {
            command.args(["--access-log", "off"]);
        }
        Proxy::start(command, &dir.join(format!("{name}.stderr")))
    }
}

/// The events of a thread's profile.
fn total(profile: &PathBuf) -> Result<u64> {
    let text = fs::read_to_string(profile).with_context(|| format!("no profile at {}", profile.display()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("totals: "));
    line.and_then(|count| count.trim().parse().ok()).context("callgrind's profile has no totals")
}

/// A proxy's process. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Proxy {
    child: Child,
    pid: Pid,
    errors: PathBuf,
}

impl Proxy {
    /// Starts one, and waits until it listens.
    fn start(mut command: Command, errors: &Path) -> Result<(Self, SocketAddr)> {
        let stderr = fs::File::create(errors)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let stdout = child.stdout.take().context("no standard output")?;
        let pid = Pid::from_child(&child);
        let proxy = Self { child, pid, errors: errors.to_owned() };
        let (said, hears) = mpsc::channel();
        // It reads to the end, so that the proxy never waits for somebody to read its access log.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let address = line.strip_prefix("outrigger: listener bench on ");
                let _ = address.and_then(|address| address.parse().ok()).map(|address| said.send(address));
            }
        });
        let address = hears
            .recv_timeout(PATIENCE)
            .map_err(|_| anyhow::anyhow!("the proxy does not listen: {}", proxy.complaint()))?;
        Ok((proxy, address))
    }

    /// Its threads.
    pub(super) fn threads(&self) -> Threads {
        Threads([self.pid].into())
    }

    /// Has it end in order.
    fn end(&mut self) -> Result<()> {
        kill_process(self.pid, Signal::TERM)?;
        let status = self.wait()?;
        ensure!(status.success(), "the proxy ended with {status}: {}", self.complaint());
        Ok(())
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("the proxy did not end: {}", self.complaint())
    }

    /// What it wrote to standard error.
    pub(super) fn complaint(&self) -> String {
        let text = fs::read_to_string(&self.errors).unwrap_or_default();
        if text.trim().is_empty() { "it says nothing".into() } else { text.trim().into() }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The threads of one process, or of two.
#[derive(Debug, Clone)]
pub(super) struct Threads(Arc<[Pid]>);

impl Threads {
    /// These and those.
    pub(super) fn and(&self, others: &Self) -> Self {
        Self(self.0.iter().chain(&*others.0).copied().collect())
    }

    /// Waits until every one of them sleeps.
    pub(super) async fn settle(&self) {
        let (began, mut asleep) = (Instant::now(), 0);
        while asleep < 2 && began.elapsed() < PATIENCE {
            // A timer of the runtime would take ten times as long.
            tokio::task::yield_now().await;
            thread::sleep(LOOK);
            asleep = if self.are_asleep() { asleep + 1 } else { 0 };
        }
    }

    fn are_asleep(&self) -> bool {
        let state = |thread: &PathBuf| {
            let stat = fs::read_to_string(thread.join("stat")).ok()?;
            stat.get(stat.rfind(')')? + 1..)?.trim_start().chars().next()
        };
        self.all().unwrap_or_default().iter().all(|thread| state(thread) == Some('S'))
    }

    /// In the order in which they were started.
    fn all(&self) -> io::Result<Vec<PathBuf>> {
        let mut threads = Vec::new();
        for pid in &*self.0 {
            for task in fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()))? {
                threads.push(task?.path());
            }
        }
        threads.sort_by_key(|path| path.file_name().and_then(|id| id.to_str()?.parse::<u32>().ok()));
        Ok(threads)
    }

    /// The number of one, from 1, by its name.
    fn place(&self, name: &str) -> Result<usize> {
        let is =
            |thread: &PathBuf| fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim() == name);
        let place = self.all()?.iter().position(is).with_context(|| format!("it has no thread {name}"))?;
        Ok(place + 1)
    }
}

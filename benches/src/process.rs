//! A proxy as a child process: its life, the CPU time that it has used, and its memory.

use std::{
    fs, io,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{sync::mpsc, time::timeout};

use crate::cpus::Cpus;

/// How long a proxy may take until it listens.
const START: Duration = Duration::from_secs(10);

/// CPU time since a process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// All of it, as the scheduler counts it.
    pub cpu: Duration,
    /// Clock ticks in user space; a ratio of this and `system` is as good as there are ticks.
    pub user: u64,
    /// Clock ticks in the kernel.
    pub system: u64,
}

/// A child process, and its own children. Dropping it kills them.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    lines: mpsc::UnboundedReceiver<String>,
    errors: std::path::PathBuf,
}

impl Process {
    /// Starts `command` on the proxies' core; what it writes to standard error is kept in `dir`.
    ///
    /// # Errors
    ///
    /// If it cannot be started, saying why.
    pub fn start(name: &str, mut command: Command, cpus: Option<Cpus>, dir: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let errors = dir.join(format!("{name}.stderr"));
        let stderr =
            fs::File::create(&errors).with_context(|| format!("cannot write {}", errors.display()))?;
        // A group of its own, so that its children can be told to go together with it.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr).process_group(0);
        let spawned = match cpus {
            Some(cpus) => cpus.on_proxies(|| command.spawn()),
            None => command.spawn(),
        };
        let mut child =
            spawned.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let (send, lines) = mpsc::unbounded_channel();
        if let Some(stdout) = child.stdout.take() {
            // It reads to the end, so that the process never waits for somebody to read.
            std::thread::spawn(move || {
                BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(send.send(line)));
            });
        }
        let pid = Pid::from_child(&child);
        Ok(Self { name: name.into(), child, pid, lines, errors })
    }

    /// Waits for the first line on standard output for which `wanted` gives something.
    ///
    /// # Errors
    ///
    /// If the process ends, or 10 s pass, before that line; with what it wrote to standard error.
    pub async fn line<T>(&mut self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> Result<T> {
        let found = timeout(START, async {
            while let Some(line) = self.lines.recv().await {
                if let Some(found) = wanted(&line) {
                    return Some(found);
                }
            }
            None
        });
        let problem = match found.await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => "ended before it printed",
            Err(_) => "did not within 10 s print",
        };
        bail!("{} {problem} {what}{}", self.name, self.complaint())
    }

    /// What it wrote to standard error, ready to be appended to a message.
    pub fn complaint(&self) -> String {
        let text = fs::read_to_string(&self.errors).unwrap_or_default();
        let text = text.trim();
        if text.is_empty() { String::new() } else { format!("; it says:\n{text}") }
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The CPU time of it and its children so far.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read, as when it has ended.
    pub fn usage(&self) -> Result<Usage> {
        let mut sum = Usage::default();
        for pid in self.pids()? {
            let usage = usage(pid).with_context(|| format!("{} has ended{}", self.name, self.complaint()))?;
            sum.cpu += usage.cpu;
            sum.user += usage.user;
            sum.system += usage.system;
        }
        Ok(sum)
    }

    /// Resident memory of it and its children in KiB (`VmRSS`; pages that they share count once for each).
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read, as when it has ended.
    pub fn resident_kib(&self) -> Result<u64> {
        let mut sum = 0;
        for pid in self.pids()? {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))
                .with_context(|| format!("{} has ended{}", self.name, self.complaint()))?;
            sum += resident_kib(&status).context("/proc/PID/status has no VmRSS")?;
        }
        Ok(sum)
    }

    fn pids(&self) -> Result<Vec<i32>> {
        let mut pids = vec![self.pid.as_raw_nonzero().get()];
        let mut next = 0;
        while let Some(pid) = pids.get(next).copied() {
            next += 1;
            for task in fs::read_dir(format!("/proc/{pid}/task"))
                .with_context(|| format!("{} has ended{}", self.name, self.complaint()))?
            {
                let children = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
                pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
            }
        }
        Ok(pids)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
        let _ = self.child.wait();
    }
}

fn usage(pid: i32) -> io::Result<Usage> {
    let (user, system) = ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
        .ok_or_else(|| io::Error::other("/proc/PID/stat has no times"))?;
    let mut cpu = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let schedstat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let nanos = schedstat.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
        cpu += Duration::from_nanos(nanos.unwrap_or(0));
    }
    Ok(Usage { cpu, user, system })
}

/// Clock ticks in user space and in the kernel, of `/proc/PID/stat` (proc_pid_stat(5), fields 14 and 15).
fn ticks(stat: &str) -> Option<(u64, u64)> {
    // The second field, the command's name, may hold anything, parentheses included.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 88 0 0 0 123 45 0 0 20 0 1 0 100 1 1";
        assert_eq!(ticks(stat), Some((123, 45)));
        assert_eq!(ticks("7 (a"), None);
        assert_eq!(resident_kib("Name:\ta\nVmRSS:\t    6012 kB\n"), Some(6012));
        assert_eq!(resident_kib("Name:\ta\n"), None);
    }

    #[tokio::test]
    async fn counts_a_child_with_its_children_and_kills_both() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        let busy = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; exec sleep 600";
        command.args(["-c", &format!("sh -c '{busy}'; :")]);
        let mut process = Process::start("busy", command, None, dir.path()).unwrap();
        process.line("done", |line| (line == "done").then_some(())).await.unwrap();
        assert_eq!(process.pids().unwrap().len(), 2);
        assert!(process.usage().unwrap().cpu > Duration::from_millis(1));
        assert!(process.resident_kib().unwrap() > 100);
        let child = *process.pids().unwrap().last().unwrap();
        drop(process);
        let gone =
            || fs::read_to_string(format!("/proc/{child}/stat")).map_or(true, |stat| stat.contains(") Z "));
        while !gone() {
            std::thread::yield_now();
        }
    }

    #[tokio::test]
    async fn says_what_a_process_that_failed_had_to_say() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'no such route' >&2; exit 1"]);
        let mut process = Process::start("proxy", command, None, dir.path()).unwrap();
        let error = process.line("where it listens", |_| Some(())).await.unwrap_err().to_string();
        assert_eq!(error, "proxy ended before it printed where it listens; it says:\nno such route");
    }
}

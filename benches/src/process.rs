//! A proxy as a child process: its life, what it has spent, and its memory.

use std::{
    fs, io,
    io::{Read, Seek, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

/// How long a proxy may take until it listens.
const START: Duration = Duration::from_secs(10);
/// How long between two looks at whether it does.
const LOOK: Duration = Duration::from_millis(2);

/// What a process has spent since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, as the scheduler counts it.
    pub cpu: Duration,
    /// Clock ticks in user space; a ratio of this and `system` is as good as there are ticks.
    pub user: u64,
    /// Clock ticks in the kernel.
    pub system: u64,
    /// How often a thread of it went to sleep.
    pub voluntary_switches: u64,
    /// How often a thread of it was made to wait for others.
    pub involuntary_switches: u64,
}

impl Usage {
    /// What was spent from `earlier` to this.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
            voluntary_switches: self.voluntary_switches.saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self.involuntary_switches.saturating_sub(earlier.involuntary_switches),
        }
    }

    /// The part of the CPU time that was spent in user space, 0 to 1; the rest was spent in the kernel. The kernel finds it
    /// out by sampling, so it takes some hundred ticks to be right. `None` without a tick.
    pub fn user_share(&self) -> Option<f64> {
        let ticks = self.user + self.system;
        (ticks > 0).then(|| self.user as f64 / ticks as f64)
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.user += other.user;
        self.system += other.system;
        self.voluntary_switches += other.voluntary_switches;
        self.involuntary_switches += other.involuntary_switches;
    }
}

/// A child process, and its own children. Dropping it kills them.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    /// What it writes to standard output: nobody has to read it while something is measured.
    output: fs::File,
    errors: PathBuf,
}

impl Process {
    /// Has `spawn` start `command`; what it writes is kept in `dir`.
    ///
    /// # Errors
    ///
    /// If it cannot be started, saying why.
    pub fn spawn(
        name: &str,
        mut command: Command,
        dir: &Path,
        spawn: impl FnOnce(&mut Command) -> io::Result<Child>,
    ) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let (output, errors) = (dir.join(format!("{name}.stdout")), dir.join(format!("{name}.stderr")));
        let create =
            |path| fs::File::create(path).with_context(|| format!("cannot write {}", Path::display(path)));
        let (stdout, stderr) = (create(&output)?, create(&errors)?);
        let output = fs::File::open(&output).with_context(|| format!("cannot read {}", output.display()))?;
        // A group of its own, so that its children can be told to go together with it.
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);
        let child = spawn(&mut command)
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let pid = Pid::from_child(&child);
        Ok(Self { name: name.into(), child, pid, output, errors })
    }

    /// Waits for the first line on standard output, from its beginning, for which `wanted` gives something.
    ///
    /// # Errors
    ///
    /// If the process ends, or 10 s pass, before that line; with what it wrote to standard error.
    pub async fn line<T>(&mut self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> Result<T> {
        let found = timeout(START, async {
            loop {
                let ended = self.ended();
                let mut text = String::new();
                self.output.seek(SeekFrom::Start(0))?;
                self.output.read_to_string(&mut text)?;
                let mut whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
                if let Some(found) = whole.find_map(&wanted) {
                    return Ok(Some(found));
                }
                if ended {
                    return io::Result::Ok(None);
                }
                sleep(LOOK).await;
            }
        });
        let problem = match found.await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => "ended before it printed",
            Ok(Err(error)) => return Err(error).context("cannot read what it printed"),
            Err(_) => "did not within 10 s print",
        };
        bail!("{} {problem} {what}{}", self.name, self.complaint())
    }

    /// Waits until it accepts connections at `address`.
    ///
    /// # Errors
    ///
    /// If the process ends, or 10 s pass, before it does; with what it wrote to standard error.
    pub async fn accepts(&mut self, address: SocketAddr) -> Result<()> {
        let accepted = timeout(START, async {
            while TcpStream::connect(address).await.is_err() {
                if self.ended() {
                    return false;
                }
                sleep(LOOK).await;
            }
            true
        });
        let problem = match accepted.await {
            Ok(true) => return Ok(()),
            Ok(false) => "ended before it listened on",
            Err(_) => "did not within 10 s listen on",
        };
        bail!("{} {problem} {address}{}", self.name, self.complaint())
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

    /// What it and its children have spent so far.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read, as when it has ended.
    pub fn usage(&self) -> Result<Usage> {
        let mut sum = Usage::default();
        for pid in self.pids()? {
            sum += usage(pid).with_context(|| format!("{} has ended{}", self.name, self.complaint()))?;
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
            sum += field(&status, "VmRSS:").context("/proc/PID/status has no VmRSS")?;
        }
        Ok(sum)
    }

    /// The threads of it and its children, by their thread ids.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read, as when it has ended.
    pub fn threads(&self) -> Result<Vec<i32>> {
        let mut threads = Vec::new();
        for pid in self.pids()? {
            let tasks = fs::read_dir(format!("/proc/{pid}/task"))
                .with_context(|| format!("{} has ended{}", self.name, self.complaint()))?;
            threads.extend(tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse::<i32>().ok()));
        }
        Ok(threads)
    }

    /// It and its children, by their process ids, itself first.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be read, as when it has ended.
    pub fn pids(&self) -> Result<Vec<i32>> {
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
    let mut sum = Usage { user, system, ..Usage::default() };
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        // A thread may end between the listing and the reading.
        let schedstat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        let nanos = schedstat.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
        sum.cpu += Duration::from_nanos(nanos.unwrap_or(0));
        let status = fs::read_to_string(task.join("status")).unwrap_or_default();
        sum.voluntary_switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        sum.involuntary_switches += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
    }
    Ok(sum)
}

/// Clock ticks in user space and in the kernel, of `/proc/PID/stat` (proc_pid_stat(5), fields 14 and 15).
fn ticks(stat: &str) -> Option<(u64, u64)> {
    // The second field, the command's name, may hold anything, parentheses included.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The number after `name` in `/proc/PID/status` (proc_pid_status(5)).
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 88 0 0 0 123 45 0 0 20 0 1 0 100 1 1";
        assert_eq!(ticks(stat), Some((123, 45)));
        assert_eq!(ticks("7 (a"), None);
        let status =
            "Name:\ta\nVmRSS:\t    6012 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t9\n";
        assert_eq!(field(status, "VmRSS:"), Some(6012));
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(7));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches:"), Some(9));
        assert_eq!(field("Name:\ta\n", "VmRSS:"), None);
    }

    #[tokio::test]
    async fn counts_a_child_with_its_children_and_kills_both() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        let busy = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; exec sleep 600";
        command.args(["-c", &format!("sh -c '{busy}'; :")]);
        let mut process = Process::spawn("busy", command, dir.path(), Command::spawn).unwrap();
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
        let mut process = Process::spawn("proxy", command, dir.path(), Command::spawn).unwrap();
        let error = process.line("where it listens", |_| Some(())).await.unwrap_err().to_string();
        assert_eq!(error, "proxy ended before it printed where it listens; it says:\nno such route");
    }
}

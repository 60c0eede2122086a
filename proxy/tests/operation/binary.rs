//! The real command, as a process whose words are read as they come.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tokio::sync::watch;

use crate::desk::PATIENCE;

/// `outrigger run` with some arguments. Killed when dropped.
pub(crate) struct Binary {
    child: Child,
    stdout: watch::Receiver<Vec<String>>,
    stderr: watch::Receiver<Vec<String>>,
}

impl Binary {
    pub(crate) fn run(arguments: &[&str]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_outrigger")).arg("run").args(arguments))
    }

    /// The same, started by a shell whose soft limit of open files is `soft`.
    pub(crate) fn run_with_files(soft: u64, arguments: &[&str]) -> Self {
        let script = format!("ulimit -S -n {soft}; exec \"$0\" \"$@\"");
        let mut shell = Command::new("sh");
        Self::spawn(shell.args(["-c", &script, env!("CARGO_BIN_EXE_outrigger"), "run"]).args(arguments))
    }

    /// The same, in a cgroup.
    pub(crate) fn run_in(cgroup: &std::path::Path, arguments: &[&str]) -> Self {
        let script = "echo $$ > \"$1/cgroup.procs\" && shift && exec \"$0\" run \"$@\"";
        let mut shell = Command::new("sh");
        Self::spawn(shell.args(["-c", script, env!("CARGO_BIN_EXE_outrigger")]).arg(cgroup).args(arguments))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (lines(child.stdout.take()), lines(child.stderr.take()));
        Self { child, stdout, stderr }
    }

    /// Where it says that a listener, or the admin interface, is.
    pub(crate) async fn address(&self, of: &str) -> SocketAddr {
        let line = self.stdout(&format!("{of} on ")).await;
        line.rsplit([' ', '/']).next().unwrap().parse().unwrap()
    }

    /// Waits for a line on standard output that contains `text`.
    pub(crate) async fn stdout(&self, text: &str) -> String {
        wait(&self.stdout, text).await.unwrap_or_else(|| panic!("no `{text}` in {self:?}"))
    }

    /// Waits for a line on standard error that contains `text`.
    pub(crate) async fn stderr(&self, text: &str) -> String {
        wait(&self.stderr, text).await.unwrap_or_else(|| panic!("no `{text}` in {self:?}"))
    }

    pub(crate) fn stdout_lines(&self) -> Vec<String> {
        self.stdout.borrow().clone()
    }

    pub(crate) fn stderr_lines(&self) -> Vec<String> {
        self.stderr.borrow().clone()
    }

    /// How many files it may have open: its soft limit, and its hard one.
    pub(crate) fn files(&self) -> (String, String) {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    }

    /// How much memory it has in use, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Lets it open so many more files at most.
    pub(crate) fn limit_files(&self, more: u64) {
        let pid = Pid::from_child(&self.child);
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64;
        let limit = Some(open + more);
        let limit = Rlimit { current: limit, maximum: limit };
        prlimit(Some(pid), Resource::Nofile, limit).unwrap();
    }

    /// Asks it to end; answers with the time.
    pub(crate) fn terminate(&self) -> Instant {
        self.signal(Signal::TERM);
        Instant::now()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills it, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    /// Waits for its end, and says how long that took.
    pub(crate) async fn ended(&mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let took = asked.elapsed();
                // What it wrote last is read when its pipes are.
                for lines in [&mut self.stdout, &mut self.stderr] {
                    while lines.changed().await.is_ok() {}
                }
                return (status, took);
            }
            assert!(asked.elapsed() < PATIENCE, "still running: {self:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl std::fmt::Debug for Binary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (stdout, stderr) = (self.stdout_lines().join("\n"), self.stderr_lines().join("\n"));
        write!(f, "standard output:\n{stdout}\nstandard error:\n{stderr}")
    }
}

async fn wait(lines: &watch::Receiver<Vec<String>>, text: &str) -> Option<String> {
    let find = |lines: &Vec<String>| lines.iter().find(|line| line.contains(text)).cloned();
    let mut lines = lines.clone();
    let found = tokio::time::timeout(PATIENCE, lines.wait_for(|lines| find(lines).is_some())).await;
    found.ok()?.ok().and_then(|lines| find(&lines))
}

/// Reads a pipe on a thread of its own, which ends with the pipe.
fn lines(pipe: Option<impl Read + Send + 'static>) -> watch::Receiver<Vec<String>> {
    let (said, lines) = watch::channel(Vec::new());
    let pipe = BufReader::new(pipe.unwrap());
    std::thread::spawn(move || {
        for line in pipe.lines().map_while(Result::ok) {
            said.send_modify(|lines: &mut Vec<String>| lines.push(line));
        }
    });
    lines
}

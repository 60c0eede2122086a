//! Programs that a test runs and reads.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A program and its arguments, to run as a user without other groups.
pub(super) fn command(uid: u32, argv: &[impl AsRef<OsStr>]) -> io::Result<Command> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program to run"));
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    if uid != 0 {
        command.uid(uid).gid(uid);
    }
    Ok(command)
}

/// A program that has ended.
#[derive(Debug, Clone)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Ran {
    /// Its standard output, or an error with its standard error if it failed.
    pub fn ok(self) -> io::Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        Err(io::Error::other(format!("{}: {}", self.status, self.stderr.trim())))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A program that runs. Its output is read all the time, so it never waits for the test. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: Arc<Lines>,
}

impl Process {
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let output = Arc::new(Lines::default());
        output.follow(child.stdout.take());
        output.follow(child.stderr.take());
        Ok(Self { child, output })
    }

    /// Waits for a line that contains `text`, on standard output or standard error, also one that has come already.
    ///
    /// # Errors
    /// With all that was written, if the program closes its output or `timeout` passes before.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> io::Result<String> {
        let found = self.wait_until(|line| line.contains(text), timeout);
        found.map_err(|error| io::Error::other(format!("`{text}`: {error}")))
    }

    /// Waits for a line of which `is_it` holds, in the same way.
    ///
    /// # Errors
    /// The same.
    pub fn wait_until(&self, is_it: impl Fn(&str) -> bool, timeout: Duration) -> io::Result<String> {
        let waits = |written: &mut Written| written.open > 0 && written.line(&is_it).is_none();
        let written = self.output.written();
        let (written, _) = self
            .output
            .changed
            .wait_timeout_while(written, timeout, waits)
            .unwrap_or_else(PoisonError::into_inner);
        written.line(&is_it).ok_or_else(|| io::Error::other(format!("no such line in:\n{written}")))
    }

    /// All lines so far, of standard output and standard error as they came.
    pub fn lines(&self) -> Vec<String> {
        self.output.written().lines.clone()
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits until it has ended.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("still running; it wrote:\n{}", self.output.written()),
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program writes, as it comes.
#[derive(Debug, Default)]
struct Lines {
    written: Mutex<Written>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Written {
    lines: Vec<String>,
    /// How many of its two outputs are open.
    open: usize,
}

impl Lines {
    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a pipe on a thread of its own, which ends with the pipe.
    fn follow(self: &Arc<Self>, pipe: Option<impl Read + Send + 'static>) {
        let Some(pipe) = pipe else { return };
        self.written().open += 1;
        let lines = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                lines.written().lines.push(String::from_utf8_lossy(&line).into_owned());
                lines.changed.notify_all();
            }
            lines.written().open -= 1;
            lines.changed.notify_all();
        });
    }
}

impl Written {
    fn line(&self, is_it: impl Fn(&str) -> bool) -> Option<String> {
        self.lines.iter().find(|line| is_it(line)).cloned()
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

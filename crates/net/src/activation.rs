//! Listening sockets that whoever started this process has opened for it, as systemd does (`sd_listen_fds(3)`).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use crate::listen;

/// The first file descriptor that is handed over (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// A socket that was opened for this process.
#[derive(Debug)]
pub struct Activated {
    /// What it is called (`FileDescriptorName=`); empty where nothing is said.
    pub name: String,
    /// Where it listens.
    pub local: SocketAddr,
    /// The socket.
    pub socket: TcpListener,
}

/// What the environment says of file descriptors.
#[derive(Debug, Default)]
pub struct Environment {
    /// `LISTEN_PID`: the process that they are meant for.
    pub pid: Option<String>,
    /// `LISTEN_FDS`: how many there are.
    pub count: Option<String>,
    /// `LISTEN_FDNAMES`: what they are called, with colons between.
    pub names: Option<String>,
}

impl Environment {
    /// This process's.
    pub fn of_process() -> Self {
        let variable = |name| std::env::var(name).ok();
        Self { pid: variable("LISTEN_PID"), count: variable("LISTEN_FDS"), names: variable("LISTEN_FDNAMES") }
    }

    /// The file descriptors meant for process `pid`, with their names.
    fn descriptors(&self, pid: u32) -> Vec<(RawFd, String)> {
        let number = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<u32>().ok());
        let count = number(&self.count).filter(|_| number(&self.pid) == Some(pid)).unwrap_or(0);
        let mut names = self.names.iter().flat_map(|names| names.split(':'));
        // More than a process can have open are a mistake.
        (0..count.min(4096) as RawFd)
            .map(|at| (FIRST + at, names.next().unwrap_or_default().to_owned()))
            .collect()
    }
}

/// Takes the sockets that were opened for this process. To be called once, by the program's main function, before
/// anything opens files: what it takes is whatever has the numbers that the environment names.
///
/// # Errors
/// One of them is not open, or does not listen for TCP.
pub fn take(environment: &Environment) -> io::Result<Vec<Activated>> {
    let taken = environment.descriptors(std::process::id()).into_iter().map(|(number, name)| {
        let wrong = |error: io::Error| {
            let what = format!("file descriptor {number} of LISTEN_FDS ({name}): {error}");
            io::Error::new(error.kind(), what)
        };
        let socket = TcpListener::from(own(number).map_err(wrong)?);
        let local = listen::adopt(&socket).map_err(wrong)?;
        Ok(Activated { name, local, socket })
    });
    taken.collect()
}

/// Takes what is open under a number as this process's own, not inherited by programs that it starts.
#[allow(unsafe_code, reason = "a number in the environment is all that tells of the file descriptor")]
fn own(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers alone, and fails if nothing is open under this one.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, as just seen, and whoever started this process gave it away, so nothing else here owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(fd.as_fd(), rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pid: &str, count: &str, names: &str) -> Environment {
        let some = |text: &str| Some(text.to_owned());
        Environment { pid: some(pid), count: some(count), names: some(names) }
    }

    #[test]
    fn what_is_meant_for_another_process_is_left_alone() {
        let named = environment("7", "3", "web:admin").descriptors(7);
        assert_eq!(named, [(3, "web".into()), (4, "admin".into()), (5, String::new())]);
        assert!(environment("8", "2", "").descriptors(7).is_empty());
        assert!(environment("x", "2", "").descriptors(7).is_empty());
        assert!(environment("7", "-1", "").descriptors(7).is_empty());
        assert!(Environment::default().descriptors(7).is_empty());
    }
}

//! Waiting until a moment to within a few microseconds.

use std::{future::Future, io, os::fd::OwnedFd, time::Duration};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::{io::unix::AsyncFd, time::Instant};

/// Waits for moments, one after the other.
pub trait Wait: Send + 'static {
    /// Returns at `due`, at once if that has passed.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    fn until(&mut self, due: Instant) -> impl Future<Output = io::Result<()>> + Send;
}

/// The kernel's timer (timerfd_create(2)). The runtime's own counts in milliseconds, which is longer than most of
/// the latencies measured here.
#[derive(Debug)]
pub struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// A timer of the current runtime.
    ///
    /// # Errors
    ///
    /// If the system has no more of them.
    #[expect(deprecated, reason = "deprecated for types without I/O safety; an OwnedFd owns its descriptor")]
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self(AsyncFd::new(fd)?))
    }
}

impl Wait for Timer {
    async fn until(&mut self, due: Instant) -> io::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let once = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(left) };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let mut expirations = [0; 8];
            // Readiness may be left over from the wait before, so the timer itself has the last word.
            match ready.try_io(|fd| Ok(rustix::io::read(fd, &mut expirations)?)) {
                Ok(read) => return read.map(drop),
                Err(_not_yet) => {}
            }
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_at_least_until_due_and_can_be_used_again() {
        let mut timer = Timer::new().unwrap();
        for _ in 0..3 {
            let due = Instant::now() + Duration::from_micros(300);
            timer.until(due).await.unwrap();
            assert!(Instant::now() >= due);
        }
        timer.until(Instant::now()).await.unwrap();
    }
}

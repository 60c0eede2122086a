//! Who runs where: the proxies on one core, the load and the application on another, so that they do not take
//! each other's time and their caches stay theirs.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// The two cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpus {
    /// The proxies'.
    pub proxies: usize,
    /// The load's and the application's.
    pub load: usize,
}

impl Cpus {
    /// Moves this thread (and those that it starts from now on) to the load's core. `None` if there is only one core
    /// to run on: then the system decides who runs when, and the figures say less.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn pin_load() -> io::Result<Option<Self>> {
        let allowed = sched_getaffinity(None)?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let (Some(proxies), Some(load)) = (allowed.next(), allowed.next()) else { return Ok(None) };
        pin(load)?;
        Ok(Some(Self { proxies, load }))
    }

    /// Calls `start` on the proxies' core, where a process that it starts then stays.
    ///
    /// # Errors
    ///
    /// If the system refuses, or as `start` does.
    pub fn on_proxies<T>(self, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        pin(self.proxies)?;
        let started = start();
        pin(self.load)?;
        started
    }
}

fn pin(cpu: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu);
    Ok(sched_setaffinity(None, &only)?)
}

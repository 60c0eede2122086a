//! Who runs where: the proxies on their cores, the load and the application on another, so that they do not take
//! each other's time and their caches stay theirs.

use std::{fs, io};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::result::Pinned;

/// The cores, and who has which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpus {
    /// Two at least: the first is the proxies', the second the load's, further ones are the proxies' as they have
    /// workers.
    cores: Vec<usize>,
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
        let allowed = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
        let cores = apart(allowed, |cpu| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            fs::read_to_string(path).unwrap_or_default()
        });
        let Some(load) = cores.get(1) else { return Ok(None) };
        pin(&[*load])?;
        Ok(Some(Self { cores }))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.cores.len()
    }

    /// The load's core.
    pub fn load(&self) -> usize {
        self.cores[1]
    }

    /// The cores of proxies with so many workers each: as many, without the load's. Where there are not as many, all of
    /// them, the load's too: CPU per request can still be told there, throughput and latency cannot.
    pub fn proxies(&self, workers: u32) -> Vec<usize> {
        let load = self.load();
        let own: Vec<usize> = self.cores.iter().copied().filter(|cpu| *cpu != load).collect();
        match own.get(..workers as usize) {
            Some(enough) => enough.to_vec(),
            None => self.cores.clone(),
        }
    }

    /// The same, as the results have it.
    pub fn pinned(&self, workers: u32) -> Pinned {
        Pinned { proxies: self.proxies(workers), load: vec![self.load()] }
    }

    /// Calls `start` on the cores of proxies with so many workers, where a process that it starts then stays.
    ///
    /// # Errors
    ///
    /// If the system refuses, or as `start` does.
    pub fn on_proxies<T>(&self, workers: u32, start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        pin(&self.proxies(workers))?;
        let started = start();
        pin(&[self.load()])?;
        started
    }
}

/// The cores in the order in which they are given away: first one thread of each core, then the others, as threads of one
/// core take each other's time.
fn apart(cpus: Vec<usize>, siblings: impl Fn(usize) -> String) -> Vec<usize> {
    let mut seen = Vec::new();
    let (mut first, second): (Vec<usize>, Vec<usize>) = cpus.into_iter().partition(|cpu| {
        let core = siblings(*cpu);
        let new = core.is_empty() || !seen.contains(&core);
        seen.push(core);
        new
    });
    first.extend(second);
    first
}

fn pin(cpus: &[usize]) -> io::Result<()> {
    let mut only = CpuSet::new();
    for cpu in cpus {
        only.set(*cpu);
    }
    Ok(sched_setaffinity(None, &only)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_threads_of_different_cores_away_first() {
        let siblings = |cpu| format!("{},{}\n", cpu % 2, cpu % 2 + 2);
        assert_eq!(apart(vec![0, 1, 2, 3], siblings), [0, 1, 2, 3]);
        let siblings = |cpu| format!("{}-{}\n", cpu / 2 * 2, cpu / 2 * 2 + 1);
        assert_eq!(apart(vec![0, 1, 2, 3], siblings), [0, 2, 1, 3]);
        assert_eq!(apart(vec![4, 6], |_| String::new()), [4, 6]);
    }

    #[test]
    fn the_load_keeps_its_core_where_there_are_enough() {
        let four = Cpus { cores: vec![0, 2, 1, 3] };
        assert_eq!((four.load(), four.proxies(1), four.proxies(2)), (2, vec![0], vec![0, 1]));
        let two = Cpus { cores: vec![0, 1] };
        assert_eq!((two.load(), two.proxies(1), two.proxies(2)), (1, vec![0], vec![0, 1]));
    }
}

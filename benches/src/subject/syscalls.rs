//! System calls, counted by the kernel (`raw_syscalls:sys_enter`).
//!
//! While anybody counts, every system call of the machine takes longer: what is counted and what is timed are two samples.

use std::{fs, io};

use perf_event::{Builder, Counter, events::Tracepoint};

use super::Subject;

/// Where the kernel shows its events (Documentation/trace/ftrace.rst): since 4.1 the first.
const EVENTS: [&str; 2] = ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"];

/// Counts the system calls of a subject's processes until it is dropped.
#[derive(Debug)]
pub struct Syscalls {
    /// One for each thread.
    counters: Vec<Counter>,
}

impl Syscalls {
    /// Counts from now on, whatever threads there are now. Drop it before anything else is measured.
    ///
    /// # Errors
    ///
    /// If the kernel does not let this program count, saying what would: that is no failure of the measurement.
    pub fn of(subject: &Subject) -> Result<Self, String> {
        let event = tracepoint()?;
        let threads = subject.threads().map_err(|error| format!("{error:#}"))?;
        let counters = threads.into_iter().map(|thread| {
            let mut builder = Builder::new(event);
            builder.observe_pid(thread).any_cpu().include_kernel().enabled(true);
            builder.build()
        });
        let counters = counters.collect::<io::Result<Vec<_>>>().map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "the kernel lets only root count system calls here (kernel.perf_event_paranoid)".into()
            }
            _ => format!("the kernel does not count system calls: {error}"),
        })?;
        Ok(Self { counters })
    }

    /// How many there were since it began.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn count(&mut self) -> io::Result<u64> {
        self.counters.iter_mut().map(Counter::read).sum()
    }
}

fn tracepoint() -> Result<Tracepoint, String> {
    let id = EVENTS.iter().find_map(|events| {
        fs::read_to_string(format!("{events}/raw_syscalls/sys_enter/id")).ok()?.trim().parse().ok()
    });
    id.map(Tracepoint::with_id).ok_or_else(|| {
        "system calls are counted where this program may read the kernel's events: as root, after \
         `mount -t tracefs tracefs /sys/kernel/tracing`"
            .into()
    })
}

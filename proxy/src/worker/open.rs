//! The connections that a worker has open, by whose they are.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use outrigger_config::listener::Direction;
use outrigger_http::memory::{CONNECTION, Charge, Kind, TLS};
use outrigger_telemetry::{CallerTimeout, ConnectionSeries};

use super::Worker;
use crate::state::LiveListener;

/// Whose connections they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Of those who call the application, and of a standalone proxy's callers.
    Inbound,
    /// Of the application.
    Outbound,
    /// Of the application to itself, which never leave the process.
    Own,
}

impl Side {
    /// Of the connections to a listener.
    pub(crate) const fn of(direction: Direction) -> Self {
        match direction {
            Direction::Outbound => Self::Outbound,
            Direction::Inbound | Direction::Edge => Self::Inbound,
        }
    }
}

/// The connections of one side.
#[derive(Debug)]
pub(super) struct Half {
    /// Connections open, upgraded and opaque ones included.
    pub(super) open: Cell<usize>,
    /// When the last one was opened or closed.
    pub(super) last: Cell<Instant>,
    /// Whether callers are told that their connection ends.
    pub(super) announcing: Cell<bool>,
    /// Whether nothing is accepted any more.
    pub(super) closed: Cell<bool>,
    /// Tasks that accept, also those that are about to end and still take what had come.
    pub(super) accepting: Cell<usize>,
}

impl Half {
    pub(super) fn new() -> Self {
        let (open, last) = (Cell::new(0), Cell::new(Instant::now()));
        let (announcing, closed) = (Cell::new(false), Cell::new(false));
        Self { open, last, announcing, closed, accepting: Cell::new(0) }
    }

    pub(super) fn count(&self, open: usize) {
        self.open.set(open);
        self.last.set(Instant::now());
    }
}

/// Counts a connection as open while it lives.
#[derive(Debug)]
pub(crate) struct Open {
    worker: Rc<Worker>,
    side: Side,
    /// Where it is shown, if it came from outside.
    series: Option<ConnectionSeries>,
    /// The connections of its listener, which it is one of.
    among: Option<Arc<AtomicU32>>,
    /// What it takes by itself.
    held: Charge,
}

impl Worker {
    /// Counts one more connection, until the value is dropped.
    pub(crate) fn open(self: &Rc<Self>, side: Side) -> Open {
        let half = self.half(side);
        half.count(half.open.get() + 1);
        let held = self.memory.hold(Kind::Connections, CONNECTION);
        Open { worker: self.clone(), side, series: None, among: None, held }
    }
}

impl Open {
    /// Counts what TLS takes.
    pub(crate) fn secured(&mut self) {
        self.held.set(CONNECTION + TLS);
    }

    /// Which of the worker's connections it is one of.
    pub(crate) const fn side(&self) -> Side {
        self.side
    }

    /// Counts it among those that a timeout ended.
    pub(crate) fn timed_out(&self, timeout: CallerTimeout) {
        if let Some(series) = self.series {
            self.worker.metrics.connection_timed_out(series, timeout);
        }
    }

    /// Shows it among the connections of its listener.
    pub(crate) fn show(&mut self, listener: &LiveListener) {
        self.worker.metrics.connection_opened(listener.connections);
        self.series = Some(listener.connections);
        listener.open.fetch_add(1, Ordering::Relaxed);
        self.among = Some(listener.open.clone());
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(among) = &self.among {
            among.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(series) = self.series {
            self.worker.metrics.connection_closed(series);
        }
        let half = self.worker.half(self.side);
        let open = half.open.get().saturating_sub(1);
        half.count(open);
        if open == 0 {
            self.worker.quiet.notify_waiters();
        }
    }
}

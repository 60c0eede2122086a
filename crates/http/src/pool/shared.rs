//! Connections of HTTP/2, which several requests share.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use super::Terms;
use super::resting::WITNESSES;
use crate::error::Error;
use crate::h2;
use crate::idle::IdleTime;

/// A connection of HTTP/2.
#[derive(Debug)]
pub(super) struct Http2 {
    pub(super) connection: h2::client::Connection,
    /// Whether it was made to an endpoint that has said that it is leaving, and was not told the same so far.
    pub(super) trial: Cell<bool>,
}

/// The connections of one kind.
#[derive(Debug)]
pub(super) struct Shared {
    open: RefCell<Vec<Rc<Http2>>>,
    /// Held while a connection is made, so that a burst of requests makes one.
    pub(super) making: tokio::sync::Mutex<()>,
    /// How often none could be made, and why not, the last time.
    pub(super) failed: RefCell<(u64, Option<Error>)>,
    /// How many requests the endpoint takes at a time on a connection, as it said last.
    pub(super) streams: Rc<Cell<usize>>,
}

impl Default for Shared {
    fn default() -> Self {
        let streams = Rc::new(Cell::new(usize::MAX));
        Self {
            open: RefCell::default(),
            making: tokio::sync::Mutex::default(),
            failed: RefCell::default(),
            streams,
        }
    }
}

impl Shared {
    /// An open connection with room.
    pub(super) fn available(&self, now: Instant, idle: &IdleTime, terms: &Terms) -> Option<Rc<Http2>> {
        let mut open = self.open.borrow_mut();
        let mut witnesses = 0;
        // Who is too old gets no more; what is under way on it goes on.
        open.retain(|http2| {
            // Whether it takes more is asked below, and of all of them now and then.
            let lives = !http2.connection.has_ended() && !http2.connection.is_expired(now);
            let stale = lives && terms.is_stale(&http2.connection, now, idle);
            witnesses += usize::from(stale);
            lives && (!stale || witnesses <= WITNESSES)
        });
        let fit = |http2: &&Rc<Http2>| {
            (witnesses == 0 || !terms.is_stale(&http2.connection, now, idle))
                && http2.connection.has_room(h2::STREAMS_PER_CONNECTION)
        };
        open.iter().find(fit).cloned()
    }

    /// An open connection with room, however many share it already.
    pub(super) fn crowded(&self, now: Instant) -> Option<Rc<Http2>> {
        let open = self.open.borrow();
        let mut usable = open.iter().filter(|http2| !http2.connection.is_expired(now));
        usable.find(|http2| http2.connection.has_room(u32::MAX)).cloned()
    }

    /// Takes up a connection that was made, unless none is kept any more, or notes why none could be.
    pub(super) fn note(&self, made: &Result<Rc<Http2>, Error>, retired: bool) {
        match made {
            Ok(_) if retired => {}
            Ok(http2) => self.open.borrow_mut().push(http2.clone()),
            Err(error) => {
                let mut failed = self.failed.borrow_mut();
                *failed = (failed.0 + 1, Some(error.clone()));
            }
        }
    }

    /// Closes those that nobody has used for long enough, or are too old, once what is under way has ended.
    pub(super) fn close_old(&self, now: Instant, terms: &Terms) {
        self.open.borrow_mut().retain(|http2| {
            let connection = &http2.connection;
            let used = connection.rested(now).is_none_or(|rested| rested < terms.idle);
            used && connection.is_open() && !connection.is_expired(now)
        });
    }

    /// Closes one that nobody uses; whether there was any.
    pub(super) fn close_one(&self) -> bool {
        let mut open = self.open.borrow_mut();
        let unused = open.iter().position(|http2| http2.connection.streams() == 0);
        unused.map(|at| drop(open.remove(at))).is_some()
    }

    /// Closes all of them, once what is under way has ended.
    pub(super) fn close_all(&self) {
        drop(self.open.take());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }
}

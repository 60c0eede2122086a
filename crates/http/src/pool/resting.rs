//! Connections of HTTP/1 that rest between two requests, until they are used again, or are let go because their peer is
//! seen to close them, or is about to.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use super::Terms;
use crate::connect::Opened;
use crate::h1;
use crate::idle::IdleTime;
use crate::room::{Connections, Unused};

/// How many unused connections are kept per worker and endpoint.
const MAX_IDLE: usize = 256;
/// How many are kept that have rested for too long to be used, to see when their peer closes them.
pub(super) const WITNESSES: usize = 2;
/// A connection that has rested so long is looked at before it is written to: what closes one that was used just now is
/// no idle timeout. The look is a system call, 0.4 µs beside the 11 µs of a request on a connection that is busy, and so
/// is saved where it would be made often.
pub(super) const LOOK_AFTER: Duration = Duration::from_millis(10);

/// A connection of HTTP/1.
#[derive(Debug)]
pub(super) struct Http1 {
    pub(super) sender: h1::Sender<Opened>,
    /// When it gets no more requests.
    pub(super) expires: Option<Instant>,
}

impl Http1 {
    fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    /// Whether nothing has come on it, as the kernel knows.
    fn is_quiet(&self) -> bool {
        self.sender.look(Opened::is_quiet).unwrap_or(false)
    }
}

#[derive(Debug)]
struct Kept {
    connection: Http1,
    since: Instant,
    _unused: Option<Unused>,
}

/// The connections at rest, in the order in which they came to it.
#[derive(Debug, Default)]
pub(super) struct Resting {
    kept: RefCell<Vec<Kept>>,
    /// Is woken when something comes on one of them.
    watcher: RefCell<Option<Waker>>,
}

impl Resting {
    /// The connection used last, if it can be expected to be open.
    pub(super) fn take(&self, now: Instant, idle: &IdleTime, terms: &Terms) -> Option<Http1> {
        let mut kept = self.kept.borrow_mut();
        loop {
            let rested = now.saturating_duration_since(kept.last()?.since);
            if rested >= terms.usable(idle) {
                // So have all the others.
                kept.truncate(WITNESSES);
                if let Some(oldest) = kept.first().filter(|oldest| oldest.connection.is_quiet()) {
                    idle.survived(now.saturating_duration_since(oldest.since));
                }
                return None;
            }
            let Kept { connection, .. } = kept.pop()?;
            if connection.is_expired(now) {
                continue;
            }
            let look = rested >= LOOK_AFTER || idle.is_abrupt();
            let open = connection.sender.is_usable(&mut Context::from_waker(Waker::noop()))
                && (!look || connection.is_quiet());
            if open {
                return Some(connection);
            }
            idle.closed_after(rested);
        }
    }

    /// Lets a connection rest, if it can be used again.
    pub(super) fn keep(&self, connection: Http1, now: Instant, room: Option<&Arc<Connections>>) {
        let watcher = self.watcher.borrow();
        let waker = watcher.as_ref().unwrap_or(Waker::noop());
        let usable = connection.sender.is_usable(&mut Context::from_waker(waker));
        let mut kept = self.kept.borrow_mut();
        if kept.len() < MAX_IDLE && usable && !connection.is_expired(now) {
            kept.push(Kept { connection, since: now, _unused: room.map(Connections::rest) });
        }
    }

    /// Lets go of those that have closed. The task of `cx` is woken when another does.
    pub(super) fn watch(&self, cx: &mut Context<'_>, now: Instant, idle: &IdleTime) {
        self.watcher.replace(Some(cx.waker().clone()));
        self.kept.borrow_mut().retain(|kept| {
            let open = kept.connection.sender.is_usable(cx);
            if !open {
                idle.closed_after(now.saturating_duration_since(kept.since));
            }
            open
        });
    }

    /// Has the task that watches over them look again.
    pub(super) fn wake_watcher(&self) {
        if let Some(watcher) = &*self.watcher.borrow() {
            watcher.wake_by_ref();
        }
    }

    /// Closes those that have rested for long enough, or are too old.
    pub(super) fn close_old(&self, now: Instant, idle: &IdleTime, terms: &Terms) {
        self.kept.borrow_mut().retain(|kept| {
            let rested = now.saturating_duration_since(kept.since);
            let stays = rested < terms.idle && !kept.connection.is_expired(now);
            if stays && kept.connection.is_quiet() {
                idle.survived(rested);
            }
            stays
        });
    }

    /// Closes the one that has rested longest; whether there was any.
    pub(super) fn close_one(&self) -> bool {
        let mut kept = self.kept.borrow_mut();
        let any = !kept.is_empty();
        if any {
            drop(kept.remove(0));
        }
        any
    }

    /// Closes all of them.
    pub(super) fn close_all(&self) {
        drop(self.kept.take());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.borrow().is_empty()
    }
}

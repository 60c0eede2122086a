//! How long a caller may take: until it asks, between two requests, and for the parts of a body.

use std::cell::Cell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Context;

use crate::body::BodyError;
use crate::error::Error;
use crate::serve::{Caller, Drain, Settings, TimedOut};
use crate::sleeper::Sleeper;

/// After how many ticks without a request a connection gives back what it keeps for the next.
const RESTING: u32 = 2;

/// A caller's connection, for the eyes of its drain.
#[derive(Debug)]
pub(super) struct Pace {
    settings: Arc<Settings>,
    /// Requests under way.
    under_way: Cell<u32>,
    /// Whether anything was ever asked.
    asked: Cell<bool>,
    /// For how many ticks nothing has been under way.
    quiet: Cell<u32>,
    /// Whether the connection is to end.
    ending: Cell<bool>,
    /// Its age in ticks.
    age: Cell<u32>,
    /// Which of its times ends it.
    timed_out: Cell<Option<TimedOut>>,
    sleeper: Sleeper,
}

impl Pace {
    pub(super) fn new(settings: Arc<Settings>, drain: &Drain) -> Rc<Self> {
        let pace = Rc::new(Self {
            settings,
            under_way: Cell::new(0),
            asked: Cell::new(false),
            quiet: Cell::new(0),
            ending: Cell::new(drain.is_on() || drain.is_leaving()),
            age: Cell::new(0),
            timed_out: Cell::new(None),
            sleeper: Sleeper::default(),
        });
        drain.remember(Rc::downgrade(&pace) as Weak<dyn Caller>);
        pace
    }

    /// Notes a request, until what is returned is dropped.
    pub(super) fn begin(self: &Rc<Self>) -> UnderWay {
        self.asked.set(true);
        self.under_way.set(self.under_way.get() + 1);
        UnderWay(self.clone())
    }

    /// Whether anything was ever asked.
    pub(super) const fn asked(&self) -> bool {
        self.asked.get()
    }

    /// Whether the connection is to end. If it is not, the task is woken once it is.
    pub(super) fn is_ending(&self, cx: &Context<'_>) -> bool {
        if !self.ending.get() {
            self.sleeper.wait(cx);
        }
        self.ending.get()
    }

    /// Whether nothing has been asked for a while.
    pub(super) const fn is_resting(&self) -> bool {
        self.under_way.get() == 0 && self.quiet.get() >= RESTING
    }

    /// Which of its times the connection is ended by, if it is.
    pub(super) const fn timed_out(&self) -> Option<TimedOut> {
        self.timed_out.get()
    }

    /// Ends it because a time is over.
    fn expire(&self, time: TimedOut) {
        if !self.ending.get() {
            self.timed_out.set(Some(time));
            self.end();
        }
    }

    fn end(&self) {
        self.ending.set(true);
        self.sleeper.wake();
    }
}

impl Caller for Pace {
    fn tick(&self) {
        self.age.set(self.age.get().saturating_add(1));
        if self.age.get() > self.settings.age_ticks() {
            self.expire(TimedOut::Age);
        }
        if self.under_way.get() > 0 {
            return;
        }
        self.quiet.set(self.quiet.get().saturating_add(1));
        if self.quiet.get() == RESTING {
            self.sleeper.wake();
        }
        // The first request of a connection is due as a header is that has begun.
        let (limit, time) = if self.asked.get() {
            (self.settings.idle_ticks(), TimedOut::Idle)
        } else {
            (self.settings.header_ticks(), TimedOut::Header)
        };
        if self.quiet.get() > limit {
            self.expire(time);
        }
    }

    fn wind_down(&self) {
        self.end();
    }

    fn make_room(&self) {
        if self.asked.get() && self.under_way.get() == 0 {
            self.end();
        }
    }

    fn leave(&self) {
        self.end();
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct UnderWay(Rc<Pace>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get().saturating_sub(1));
        self.0.quiet.set(0);
    }
}

/// Whether anything moves on a stream, for the eyes of its caller's drain.
#[derive(Debug)]
pub(super) struct Motion {
    settings: Arc<Settings>,
    moved: Cell<bool>,
    /// For how many ticks nothing has moved, and whether that is too long.
    still: Cell<u32>,
    silent: Cell<bool>,
    /// Whether a part of the request's body is waited for.
    awaited: Cell<bool>,
    sleeper: Sleeper,
}

impl Motion {
    pub(super) fn new(settings: &Arc<Settings>) -> Self {
        Self {
            settings: settings.clone(),
            moved: Cell::new(true),
            still: Cell::new(0),
            silent: Cell::new(false),
            awaited: Cell::new(false),
            sleeper: Sleeper::default(),
        }
    }

    /// The response begins.
    pub(super) fn begin(&self) {
        self.note();
        self.silent.set(false);
    }

    /// Something has moved.
    pub(super) fn note(&self) {
        self.moved.set(true);
    }

    /// Notes whether a part of the request's body is waited for.
    pub(super) fn awaits(&self, awaits: bool) {
        self.awaited.set(awaits);
        if !awaits {
            self.note();
        }
    }

    /// Whether nothing has moved for too long. If not, the task is woken once that is so.
    pub(super) fn is_silent(&self, cx: &Context<'_>) -> bool {
        if !self.silent.get() {
            self.sleeper.wait(cx);
        }
        self.silent.get()
    }

    /// Why the request fails, once nothing has moved for too long.
    pub(super) fn silence(&self) -> Option<Error> {
        self.silent.get().then(|| self.settings.silence(self.awaited.get()))
    }

    pub(super) fn tick(&self) {
        self.still.set(if self.moved.take() { 0 } else { self.still.get().saturating_add(1) });
        if self.still.get() > self.settings.stream_ticks() {
            self.silent.set(true);
            self.sleeper.wake();
        }
    }
}

/// A body that may not come too slowly, for the eyes of its caller's drain.
#[derive(Debug)]
pub(super) struct BodyPace {
    settings: Arc<Settings>,
    /// Whether its next part is waited for, and for how many ticks its parts were so far.
    waiting: Cell<bool>,
    waited: Cell<u32>,
    bytes: Cell<u64>,
    sleeper: Sleeper,
}

impl BodyPace {
    /// Watches a body, where there is a limit.
    pub(super) fn new(settings: &Arc<Settings>, drain: &Drain) -> Option<Rc<Self>> {
        settings.body_rate.as_ref()?;
        let pace = Rc::new(Self {
            settings: settings.clone(),
            waiting: Cell::new(false),
            waited: Cell::new(0),
            bytes: Cell::new(0),
            sleeper: Sleeper::default(),
        });
        drain.remember(Rc::downgrade(&pace) as Weak<dyn Caller>);
        Some(pace)
    }

    /// Notes that a part is waited for.
    ///
    /// # Errors
    /// It came too slowly.
    pub(super) fn wait(&self, cx: &Context<'_>) -> Result<(), BodyError> {
        self.waiting.set(true);
        self.sleeper.wait(cx);
        if self.settings.is_too_slow(self.bytes.get(), self.waited.get()) {
            return Err(BodyError::too_slow());
        }
        Ok(())
    }

    /// Notes that a part of so many bytes has come.
    pub(super) fn came(&self, bytes: usize) {
        self.waiting.set(false);
        self.bytes.set(self.bytes.get() + bytes as u64);
    }
}

impl Caller for BodyPace {
    fn tick(&self) {
        if self.waiting.get() {
            self.waited.set(self.waited.get() + 1);
            if self.settings.is_too_slow(self.bytes.get(), self.waited.get()) {
                self.sleeper.wake();
            }
        }
    }

    /// A body under way is finished.
    fn wind_down(&self) {}
}

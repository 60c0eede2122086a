//! Whoever waits for something that another part of the same thread brings about.

use std::cell::RefCell;
use std::task::{Context, Waker};

/// The task to be woken, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Sleeper(RefCell<Option<Waker>>);

impl Sleeper {
    /// Remembers this task until it is woken. Free where it is the one that is known.
    pub(crate) fn wait(&self, cx: &Context<'_>) {
        let mut waker = self.0.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Wakes it.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.0.take() {
            waker.wake();
        }
    }
}

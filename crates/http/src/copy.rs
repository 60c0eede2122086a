//! A copy of a request's body, sent elsewhere beside the request itself, which never waits for it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::body::BodyError;
use crate::memory::{Account, Charge, Kind, Level};

/// How many bytes, and parts, a copy may be behind the request itself. One that falls further back is broken off.
const MAX_BEHIND: usize = 1024 * 1024;
const MAX_PARTS: usize = 1024;

/// The end at which a copy is read.
#[derive(Debug)]
pub struct Copy {
    shared: Rc<RefCell<Shared>>,
    /// The length of all of it, where it is known.
    length: Option<u64>,
}

/// The end at which a copy is fed.
#[derive(Debug)]
pub(crate) struct Feed(Rc<RefCell<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    waiting: VecDeque<Frame<Bytes>>,
    bytes: usize,
    state: State,
    reader: Option<Waker>,
    /// Counts what waits; there is none where memory has no limit.
    charge: Option<Charge>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// All of it was fed.
    Ended,
    /// The rest will not come.
    Broken,
}

/// A copy and what feeds it; `length` is that of the body, where it is known. It is counted in `memory`, and broken off where
/// that is scarce.
pub(crate) fn copy(length: Option<u64>, memory: Option<&Rc<Account>>) -> (Feed, Copy) {
    let charge = memory.map(|memory| memory.hold(Kind::Copies, 0));
    let shared = Rc::new(RefCell::new(Shared { charge, ..Shared::default() }));
    (Feed(shared.clone()), Copy { shared, length })
}

impl Feed {
    /// Feeds a part of the body; whether the copy wants more.
    pub(crate) fn push(&self, frame: Frame<Bytes>) -> bool {
        let mut shared = self.0.borrow_mut();
        shared.bytes += frame.data_ref().map_or(0, Bytes::len);
        shared.waiting.push_back(frame);
        // Nobody else holds it where its reader has gone.
        let wanted = Rc::strong_count(&self.0) > 1;
        let scarce = shared.charge.as_ref().is_some_and(|charge| charge.account().level() > Level::Plenty);
        let behind = scarce || shared.bytes > MAX_BEHIND || shared.waiting.len() > MAX_PARTS;
        if behind {
            shared.waiting.clear();
            shared.bytes = 0;
        }
        shared.count();
        shared.wake();
        wanted && !behind
    }

    /// The body is whole.
    pub(crate) fn end(self) {
        let mut shared = self.0.borrow_mut();
        shared.state = State::Ended;
        shared.wake();
    }
}

/// What was not ended is broken off.
impl Drop for Feed {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        if shared.state == State::Open {
            shared.state = State::Broken;
            shared.wake();
        }
    }
}

impl Shared {
    fn count(&mut self) {
        if let Some(charge) = &mut self.charge {
            charge.set(self.bytes);
        }
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Body for Copy {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = self.shared.borrow_mut();
        if let Some(frame) = shared.waiting.pop_front() {
            shared.bytes -= frame.data_ref().map_or(0, Bytes::len);
            shared.count();
            return Poll::Ready(Some(Ok(frame)));
        }
        match shared.state {
            State::Ended => Poll::Ready(None),
            State::Broken => Poll::Ready(Some(Err(BodyError::Superseded))),
            State::Open => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        shared.waiting.is_empty() && shared.state == State::Ended
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

//! Bodies on their way through: the request's, which may have to be sent twice, and the response's, whose end is
//! when a request is over.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::copy::{self, Copy, Feed};
use crate::error::{Error, Reason};
use crate::h1;
use crate::h2::Received;
use crate::memory::{Account, Charge, Kind, Level};
use crate::pool::Lease;

/// In how many parts a body may come that is kept. Each takes far more than its bytes where it has few.
const MAX_KEPT_PARTS: usize = 1024;

/// What a body's stream can fail with.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The one who sends it broke off, or what came was not HTTP.
    #[error("{0}")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The stream of HTTP/2 that it comes on was reset, or its connection broke.
    #[error("{0}")]
    Http2(#[from] h2::Error),
    /// The route's request timeout passed.
    #[error("the request timeout of the route passed")]
    Timeout,
    /// The body was taken over by a later attempt.
    #[error("sent again elsewhere")]
    Superseded,
    /// What came may not be sent on, or a filter of the route refuses it.
    #[error(transparent)]
    Refused(#[from] Error),
}

impl BodyError {
    /// Of a request that keeps its listener waiting.
    pub(crate) fn too_slow() -> Self {
        let details = "the request's body came too slowly, or not at all";
        Self::Refused(Error::unsent(Reason::HttpRequestTimeout, details))
    }

    /// Why a request fails whose body ends so.
    pub fn refusal(&self) -> Error {
        match self {
            Self::Refused(error) => error.clone(),
            error => Error::sent(Reason::HttpRequestError, format!("the request's body broke off: {error}")),
        }
    }
}

impl From<std::convert::Infallible> for BodyError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl BodyError {
    /// The code with which its stream of HTTP/2 was reset by the one who sends it.
    pub(crate) fn reset(&self) -> Option<h2::Reason> {
        match self {
            Self::Http2(error) if error.is_reset() && error.is_remote() => error.reason(),
            _ => None,
        }
    }
}

/// A body as it comes from a caller or a backend.
#[derive(Debug)]
pub struct Incoming(Source);

enum Source {
    Empty,
    Http1(h1::Body),
    Http2(Received),
    /// What a filter makes of a body. Types are erased here and nowhere else, where a rule has such a filter.
    Changed(Pin<Box<dyn Body<Data = Bytes, Error = BodyError>>>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Http1(_) => "Http1",
            Self::Http2(_) => "Http2",
            Self::Changed(_) => "Changed",
        })
    }
}

impl Incoming {
    /// What a filter makes of a body.
    pub fn changed(body: impl Body<Data = Bytes, Error = BodyError> + 'static) -> Self {
        Self(Source::Changed(Box::pin(body)))
    }
}

impl Incoming {
    /// There is none.
    pub const fn empty() -> Self {
        Self(Source::Empty)
    }

    /// From a connection of HTTP/1.
    pub(crate) const fn http1(body: h1::Body) -> Self {
        Self(Source::Http1(body))
    }

    /// From a stream of HTTP/2.
    pub(crate) const fn http2(body: Received) -> Self {
        Self(Source::Http2(body))
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Source::Empty => Poll::Ready(None),
            Source::Http1(body) => body.poll_frame(cx),
            Source::Http2(body) => Pin::new(body).poll_frame(cx),
            Source::Changed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Empty => true,
            Source::Http1(body) => body.is_end_stream(),
            Source::Http2(body) => body.is_end_stream(),
            Source::Changed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Empty => SizeHint::with_exact(0),
            Source::Http1(body) => body.size_hint(),
            Source::Http2(body) => body.size_hint(),
            Source::Changed(body) => body.size_hint(),
        }
    }
}

/// A request's body as a backend gets it.
#[derive(Debug)]
pub enum RequestBody {
    /// There is none.
    Empty,
    /// There was one, of which a part is gone.
    Spent,
    /// Streamed from the caller as it comes.
    Upload(Attempt),
    /// A copy of what is streamed elsewhere.
    Copy(Copy),
}

/// A request's body as it comes from the caller, which up to a limit of bytes can be sent more than once.
#[derive(Debug, Clone)]
pub struct Upload(Rc<RefCell<UploadState>>);

#[derive(Debug)]
struct UploadState {
    incoming: Incoming,
    /// What was read so far, for a second attempt; `None` once it is more than the limit.
    kept: Option<Vec<Frame<Bytes>>>,
    kept_bytes: usize,
    limit: usize,
    /// The attempt that may read. Earlier ones, which a connection may still hold, may not.
    attempt: u32,
    bytes: u64,
    ended: bool,
    /// Why no more of it comes.
    failure: Option<Error>,
    /// Those who get a copy of it as it comes.
    copies: Vec<Feed>,
    /// Counts what is kept; there is none where memory has no limit.
    charge: Option<Charge>,
}

impl Upload {
    /// A body of which at most `limit` bytes are kept.
    pub fn new(incoming: Incoming, limit: usize) -> Self {
        Self(Rc::new(RefCell::new(UploadState {
            incoming,
            kept: (limit > 0).then(Vec::new),
            kept_bytes: 0,
            limit,
            attempt: 0,
            bytes: 0,
            ended: false,
            failure: None,
            copies: Vec::new(),
            charge: None,
        })))
    }

    /// The same, where what is kept and copied is counted. Nothing is where memory is scarce.
    #[must_use]
    pub fn counted(self, memory: &Rc<Account>) -> Self {
        if memory.budget().is_some() {
            let mut state = self.0.borrow_mut();
            state.charge = Some(memory.hold(Kind::Bodies, 0));
            state.kept.take_if(|_| memory.level() > Level::Plenty);
        }
        self
    }

    /// The body from its beginning, or `None` if a part of it is gone.
    pub fn attempt(&self) -> Option<RequestBody> {
        let mut state = self.0.borrow_mut();
        let untouched = state.bytes == 0 && !state.ended;
        if state.failure.is_some() || (state.kept.is_none() && !untouched) {
            return None;
        }
        state.attempt += 1;
        Some(RequestBody::Upload(Attempt { upload: self.clone(), number: state.attempt, next: 0 }))
    }

    /// A copy of the body, for another request: it comes as the body is read, and breaks off where that does, or where
    /// it is read too slowly. `None` if a part of it was read already.
    pub fn copy(&self) -> Option<RequestBody> {
        let mut state = self.0.borrow_mut();
        if state.bytes > 0 || state.ended || state.failure.is_some() {
            return None;
        }
        let memory = state.charge.as_ref().map(Charge::account);
        let (feed, copy) = copy::copy(state.incoming.size_hint().exact(), memory);
        state.copies.push(feed);
        Some(RequestBody::Copy(copy))
    }

    /// Whether all of it has come, and is kept: attempts do not take it from each other then.
    pub fn is_kept(&self) -> bool {
        self.0.borrow().is_kept()
    }

    /// The request was answered and is not sent again: nothing of the body is kept any more, unless it is being sent for a
    /// second time.
    pub fn answered(&self) {
        let state = &mut *self.0.borrow_mut();
        if state.attempt == 1 {
            state.kept = None;
            state.charge.iter_mut().for_each(|charge| charge.set(0));
        }
    }

    /// How many bytes came from the caller.
    pub fn bytes(&self) -> u64 {
        self.0.borrow().bytes
    }

    /// Why no more of it comes, if the caller broke off, or sent what may not be sent on.
    pub fn failure(&self) -> Option<Error> {
        self.0.borrow().failure.clone()
    }
}

impl UploadState {
    fn is_kept(&self) -> bool {
        self.kept.is_some() && self.failure.is_none() && (self.ended || self.incoming.is_end_stream())
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.bytes += length as u64;
                self.keep(&frame, length);
                if !self.copies.is_empty() {
                    self.feed(&frame);
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.failure = Some(error.refusal());
                Some(Err(error))
            }
            None => {
                self.ended = true;
                self.copies.drain(..).for_each(Feed::end);
                None
            }
        })
    }

    fn feed(&mut self, frame: &Frame<Bytes>) {
        self.copies.retain(|feed| again(frame).is_none_or(|frame| feed.push(frame)));
        // Who knows its length does not read on to find that there is no more.
        if self.incoming.is_end_stream() {
            self.copies.drain(..).for_each(Feed::end);
        }
    }

    fn keep(&mut self, frame: &Frame<Bytes>, length: usize) {
        self.kept_bytes += length;
        if self.kept_bytes > self.limit || self.kept.as_ref().is_some_and(|kept| kept.len() >= MAX_KEPT_PARTS)
        {
            self.kept = None;
        } else if let Some(kept) = &mut self.kept
            && let Some(frame) = again(frame)
        {
            kept.push(frame);
        }
        if let Some(charge) = &mut self.charge {
            charge.set(self.kept.as_ref().map_or(0, |_| self.kept_bytes));
        }
    }
}

/// A frame again: its bytes are shared, its trailers copied.
fn again(frame: &Frame<Bytes>) -> Option<Frame<Bytes>> {
    frame.data_ref().cloned().map(Frame::data).or_else(|| frame.trailers_ref().cloned().map(Frame::trailers))
}

/// One sending of an [`Upload`].
#[derive(Debug)]
pub struct Attempt {
    upload: Upload,
    number: u32,
    /// The next of the kept frames to send.
    next: usize,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let attempt = match self.get_mut() {
            Self::Empty => return Poll::Ready(None),
            Self::Spent => return Poll::Ready(Some(Err(BodyError::Superseded))),
            Self::Upload(attempt) => attempt,
            Self::Copy(copy) => return Pin::new(copy).poll_frame(cx),
        };
        let mut state = attempt.upload.0.borrow_mut();
        if state.attempt != attempt.number && !state.is_kept() {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(frame) = state.kept.as_ref().and_then(|kept| kept.get(attempt.next)).and_then(again) {
            attempt.next += 1;
            return Poll::Ready(Some(Ok(frame)));
        }
        let frame = std::task::ready!(state.poll_incoming(cx));
        attempt.next += 1;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Spent => false,
            Self::Copy(copy) => copy.is_end_stream(),
            Self::Upload(attempt) => {
                let state = attempt.upload.0.borrow();
                let behind = state.kept.as_ref().is_some_and(|kept| attempt.next < kept.len());
                !behind && (state.ended || state.incoming.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Spent => SizeHint::new(),
            Self::Copy(copy) => copy.size_hint(),
            Self::Upload(attempt) => {
                // What was read by an earlier attempt is read again, before the rest.
                let state = attempt.upload.0.borrow();
                let again: u64 = state
                    .kept
                    .iter()
                    .flatten()
                    .skip(attempt.next)
                    .fold(0, |sum, frame| sum + frame.data_ref().map_or(0, Bytes::len) as u64);
                match state.incoming.size_hint().exact() {
                    Some(rest) => SizeHint::with_exact(rest + again),
                    None => SizeHint::new(),
                }
            }
        }
    }
}

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Whole.
    Complete,
    /// The caller went away before it was.
    CallerGone,
    /// The backend broke off.
    BackendBroke,
    /// A filter of the route refused the rest.
    Refused(Reason),
    /// The route's request timeout passed.
    Timeout,
    /// Nothing moved for too long.
    Silent(Reason),
}

/// Is told, once, how a response ended.
pub trait Observe {
    /// The response ended at `now` after `bytes` bytes of its body.
    fn ended(self, end: End, bytes: u64, now: Instant);

    /// These trailers are on their way to the caller.
    fn trailers(&mut self, _trailers: &HeaderMap) {}

    /// The trailers that tell a caller that it has taken too long, where it understands any. Otherwise the response is
    /// broken off.
    fn timed_out(&mut self, _error: &Error) -> Option<HeaderMap> {
        None
    }
}

/// A body that may have to end although what there is of it is not taken.
pub trait Due: Body {
    /// Ready once its time is over, with the trailers that say so if its caller understands them. To be asked while what was
    /// read of it waits to be sent, for then it is not read.
    fn poll_due(&mut self, _: &mut Context<'_>) -> Poll<Option<HeaderMap>> {
        Poll::Pending
    }

    /// Ends it because nothing has moved for too long; the trailers that say so, if its caller understands them.
    fn give_up(&mut self) -> Option<HeaderMap> {
        None
    }
}

impl Due for RequestBody {}

impl Due for http_body_util::Full<Bytes> {}

/// A response's body as the caller gets it. Its observer is told when it ends, and the connection that it came on goes
/// back to its pool.
#[derive(Debug)]
pub struct ResponseBody<O: Observe> {
    source: Origin,
    bytes: u64,
    /// Whether more of it is waited for, and not for the caller to take what there is.
    awaited: bool,
    deadline: Option<Pin<Box<Sleep>>>,
    observer: Option<O>,
}

#[derive(Debug)]
enum Origin {
    /// Made here; at most one frame.
    Full(Bytes),
    Backend {
        incoming: Incoming,
        lease: Option<Lease>,
    },
}

impl<O: Observe> ResponseBody<O> {
    /// A body made here. Not a byte of it is sent if it is empty.
    pub fn full(bytes: impl Into<Bytes>, observer: O) -> Self {
        Self {
            source: Origin::Full(bytes.into()),
            bytes: 0,
            awaited: false,
            deadline: None,
            observer: Some(observer),
        }
    }

    /// No body, and nobody to tell.
    pub const fn empty() -> Self {
        Self { source: Origin::Full(Bytes::new()), bytes: 0, awaited: false, deadline: None, observer: None }
    }

    /// A backend's body, streamed as it comes until `deadline`.
    pub fn stream(incoming: Incoming, lease: Lease, deadline: Option<Instant>, observer: O) -> Self {
        let deadline = deadline
            .filter(|_| !incoming.is_end_stream())
            .map(|at| Box::pin(tokio::time::sleep_until(at.into())));
        Self {
            source: Origin::Backend { incoming, lease: Some(lease) },
            bytes: 0,
            awaited: false,
            deadline,
            observer: Some(observer),
        }
    }

    fn end(&mut self, end: End) {
        let now = Instant::now();
        if let Origin::Backend { lease, .. } = &mut self.source
            && let Some(lease) = lease.take()
        {
            match end {
                End::Complete => lease.give_back(now),
                End::BackendBroke => lease.broke(now),
                End::CallerGone | End::Timeout | End::Silent(_) | End::Refused(_) => {}
            }
        }
        if let Some(observer) = self.observer.take() {
            observer.ended(end, self.bytes, now);
        }
    }

    /// Ends it because its time is over; the trailers to say so with, if there are any.
    fn time_out(&mut self, end: End, error: &Error) -> Option<HeaderMap> {
        let last = self.observer.as_mut().and_then(|observer| observer.timed_out(error));
        self.end(end);
        // What is left of it is the backend's no more.
        (self.source, self.deadline) = (Origin::Full(Bytes::new()), None);
        last
    }

    fn late(&mut self) -> Option<HeaderMap> {
        let error = Error::sent(Reason::HttpResponseTimeout, "the request timeout of the route passed");
        self.time_out(End::Timeout, &error)
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.deadline {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<O: Observe + Unpin> Due for ResponseBody<O> {
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Option<HeaderMap>> {
        std::task::ready!(self.poll_deadline(cx));
        Poll::Ready(self.late())
    }

    fn give_up(&mut self) -> Option<HeaderMap> {
        let (reason, details) = if self.awaited {
            (Reason::ConnectionReadTimeout, "nothing was sent either way within the stream timeout")
        } else {
            (Reason::ConnectionWriteTimeout, "the caller took nothing within the stream timeout")
        };
        self.time_out(End::Silent(reason), &Error::sent(reason, details))
    }
}

impl<O: Observe + Unpin> Body for ResponseBody<O> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        // A backend that never pauses does not get more time.
        let late = this.deadline.as_ref().is_some_and(|sleep| sleep.is_elapsed());
        let frame = match &mut this.source {
            Origin::Full(bytes) if bytes.is_empty() => None,
            Origin::Full(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Origin::Backend { incoming, .. } => match Pin::new(incoming).poll_frame(cx) {
                Poll::Ready(frame) if !late || frame.is_none() => frame,
                _ => {
                    this.awaited = true;
                    if !late {
                        std::task::ready!(this.poll_deadline(cx));
                    }
                    let last = this.late();
                    return Poll::Ready(Some(last.map(Frame::trailers).ok_or(BodyError::Timeout)));
                }
            },
        };
        this.awaited = false;
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                this.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                if let Some(trailers) = frame.trailers_ref() {
                    if let Some(observer) = &mut this.observer {
                        observer.trailers(trailers);
                    }
                    if let Origin::Backend { lease: Some(lease), .. } = &mut this.source {
                        lease.trailers(trailers);
                    }
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                this.end(match &error {
                    BodyError::Refused(refusal) => End::Refused(refusal.reason),
                    _ => End::BackendBroke,
                });
                Some(Err(error))
            }
            None => {
                this.end(End::Complete);
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Origin::Full(bytes) => bytes.is_empty(),
            Origin::Backend { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Origin::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Origin::Backend { incoming, .. } => incoming.size_hint(),
        }
    }
}

/// A server does not poll past the last byte that it expects, so a body that is dropped may be a whole one.
impl<O: Observe> Drop for ResponseBody<O> {
    fn drop(&mut self) {
        if self.observer.is_some() {
            let whole = match &self.source {
                Origin::Full(bytes) => bytes.is_empty(),
                Origin::Backend { incoming, .. } => incoming.is_end_stream(),
            };
            self.end(if whole { End::Complete } else { End::CallerGone });
        }
    }
}

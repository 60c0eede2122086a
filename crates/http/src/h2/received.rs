//! A body as it comes.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap};
use http_body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;

use super::fits;
use super::pace::BodyPace;
use super::server::Respond;
use crate::body::BodyError;
use crate::error::Error;
use crate::forward::UNREACHED;
use crate::h1::{Limits, SPELLING, Wrong};

/// What is said of trailers that are wrong.
pub(super) type Refuse = fn(Wrong, &Limits) -> Error;

/// A body as it comes over HTTP/2.
#[derive(Debug)]
pub(crate) struct Received {
    stream: RecvStream,
    /// How many bytes are still to come, where the message says.
    left: Option<u64>,
    /// Of its trailers.
    limits: Limits,
    refuse: Refuse,
    all_data: bool,
    ended: Cell<bool>,
    uploading: Uploading,
    /// Whether the peer is another sidecar, which says how trailers were spelled.
    carried: bool,
    /// Of a request, where it may not come too slowly.
    pace: Option<Rc<BodyPace>>,
    /// Of a request: the stream that it comes on.
    request: Option<Rc<Respond>>,
}

/// The task that sends the request's body, if there still is one. Dropped, it ends, and the stream is reset.
#[derive(Debug, Default)]
pub(super) struct Uploading(pub(super) Option<AbortHandle>);

impl Drop for Uploading {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Received {
    /// The body of a message with these fields.
    pub(super) fn new(stream: RecvStream, headers: &HeaderMap, limits: Limits, refuse: Refuse) -> Self {
        // That it is kept is up to `h2`.
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Self {
            stream,
            left: length,
            limits,
            refuse,
            all_data: false,
            ended: Cell::new(false),
            uploading: Uploading::default(),
            carried: false,
            pace: None,
            request: None,
        }
    }

    /// The peer is another sidecar, if so.
    pub(super) const fn carried(mut self, carried: bool) -> Self {
        self.carried = carried;
        self
    }

    /// Watches over how fast it comes.
    pub(super) fn with_pace(mut self, pace: Option<Rc<BodyPace>>) -> Self {
        self.pace = pace;
        self
    }

    /// It is a request's, which is answered there.
    pub(super) fn of(mut self, request: Rc<Respond>) -> Self {
        self.request = Some(request);
        self
    }

    /// Ties the sending of the request to its response.
    pub(super) fn with_upload(mut self, uploading: Uploading) -> Self {
        self.uploading = uploading;
        self
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = this.poll(cx);
        if let Some(request) = &this.request {
            request.motion.awaits(polled.is_pending());
            if let Some(error) = request.motion.silence() {
                return Poll::Ready(Some(Err(BodyError::Refused(error))));
            }
        }
        if let Some(pace) = &this.pace {
            match &polled {
                Poll::Pending => pace.wait(cx)?,
                Poll::Ready(Some(Ok(frame))) => pace.came(frame.data_ref().map_or(0, Bytes::len)),
                Poll::Ready(_) => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ended.get() || {
            let ended = self.stream.is_end_stream();
            self.ended.set(ended);
            ended
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Received {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended.get() {
            return Poll::Ready(None);
        }
        if !self.all_data {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Cannot fail: no more is released than has come.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // However politely a stream is reset: there is no telling that the body is whole.
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => self.all_data = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        self.ended.set(true);
        Poll::Ready(trailers.map_err(BodyError::from).transpose().map(|trailers| self.read(trailers?)))
    }

    /// Trailers, if they are not too many. What frames a message or routes a request has no business there (RFC 9110,
    /// section 6.5.1) and is dropped.
    fn read(&self, mut trailers: HeaderMap) -> Result<Frame<Bytes>, BodyError> {
        let spelling = trailers.remove(SPELLING).filter(|_| self.carried);
        fits(&trailers, 0, &self.limits)
            .map_err(|wrong| BodyError::Refused((self.refuse)(wrong, &self.limits)))?;
        trailers.remove(CONTENT_LENGTH);
        trailers.remove(HOST);
        trailers.remove(UNREACHED);
        if let Some(spelling) = spelling {
            trailers.insert(SPELLING, spelling);
        }
        Ok(Frame::trailers(trailers))
    }
}

/// A request may still be on its way when its response is complete: then it goes on.
impl Drop for Received {
    fn drop(&mut self) {
        if self.is_end_stream() {
            self.uploading.0 = None;
        }
    }
}

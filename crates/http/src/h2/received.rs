//! A body as it comes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;

use crate::body::BodyError;

/// A body as it comes over HTTP/2.
#[derive(Debug)]
pub(crate) struct Received {
    stream: RecvStream,
    /// How many bytes are still to come, where the message says.
    left: Option<u64>,
    all_data: bool,
    ended: bool,
    uploading: Uploading,
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
    pub(super) fn new(stream: RecvStream, headers: &HeaderMap) -> Self {
        // That it is kept is up to `h2`.
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Self { stream, left: length, all_data: false, ended: false, uploading: Uploading::default() }
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
        if !this.all_data {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Cannot fail: no more is released than has come.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // However politely a stream is reset: there is no telling that the body is whole.
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => this.all_data = true,
            }
        }
        if this.ended {
            return Poll::Ready(None);
        }
        let trailers = ready!(this.stream.poll_trailers(cx));
        this.ended = true;
        Poll::Ready(trailers.transpose().map(|trailers| Ok(Frame::trailers(trailers?))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
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

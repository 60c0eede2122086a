//! How large bodies may be, and bodies that are taken whole before they go on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::refused;
use crate::body::{BodyError, Incoming};
use crate::error::{Error, Reason};
use crate::memory::{Account, Charge, Kind};

/// Whose body it is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose {
    Request,
    Response,
}

impl Whose {
    fn too_large(self, limit: u64) -> (Reason, String) {
        match self {
            Self::Request => {
                (Reason::HttpRequestBodySize, format!("the request's body has more than {limit} bytes"))
            }
            Self::Response => {
                (Reason::HttpResponseBodySize, format!("the response's body has more than {limit} bytes"))
            }
        }
    }
}

/// A body of at most `limit` bytes.
///
/// # Errors
/// If it says itself that it has more.
pub(super) fn limit(body: Incoming, limit: u64, whose: Whose) -> Result<Incoming, Error> {
    match body.size_hint().exact() {
        Some(size) if size <= limit => Ok(body),
        Some(_) => {
            let (reason, why) = whose.too_large(limit);
            Err(match whose {
                Whose::Request => Error::unsent(reason, why),
                Whose::Response => Error::sent(reason, why),
            })
        }
        None => Ok(Incoming::changed(Limited { inner: body, left: limit, limit, whose })),
    }
}

struct Limited {
    inner: Incoming,
    left: u64,
    limit: u64,
    whose: Whose,
}

impl Body for Limited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)?);
        let length = frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
        Poll::Ready(if length > this.left {
            let (reason, why) = this.whose.too_large(this.limit);
            Some(Err(refused(reason, why)))
        } else {
            this.left -= length;
            frame.map(Ok)
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}

/// Takes a request's body whole.
///
/// # Errors
/// If it has more than `limit` bytes, is refused by another filter, or breaks off; if no memory is left for it.
pub(super) async fn whole(body: Incoming, limit: u64, memory: &Rc<Account>) -> Result<Whole, Error> {
    let mut body = self::limit(body, limit, Whose::Request)?;
    let (mut bytes, mut trailers) = (BytesMut::new(), None);
    let mut held = memory.hold(Kind::Bodies, 0);
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| error.refusal())?.into_data() {
            Ok(data) => {
                bytes.extend_from_slice(&data);
                held.set(bytes.capacity());
                if let Some(refusal) = memory.refusal() {
                    return Err(refusal);
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok(Whole { bytes: bytes.freeze(), trailers, held })
}

/// A body that is there as a whole.
pub(super) struct Whole {
    bytes: Bytes,
    pub(super) trailers: Option<HeaderMap>,
    held: Charge,
}

impl Whole {
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn into_body(self) -> Incoming {
        let data = Some(self.bytes).filter(|bytes| !bytes.is_empty()).map(Frame::data);
        let frames = data.into_iter().chain(self.trailers.map(Frame::trailers)).collect();
        Incoming::changed(Frames { frames, _held: self.held })
    }
}

struct Frames {
    frames: VecDeque<Frame<Bytes>>,
    /// Until all of it is on its way and gone: its parts share their bytes.
    _held: Charge,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.frames.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.frames.iter().any(Frame::is_trailers) {
            return SizeHint::new();
        }
        SizeHint::with_exact(
            self.frames.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum(),
        )
    }
}

//! gRPC-Web to gRPC and back (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>): the same messages, in any
//! version of HTTP, with the trailers as a last message in the body, and all of it in base64 where a caller wants text.

use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Method, request, response};
use http_body::{Body, Frame};

use super::refused;
use crate::body::{BodyError, Incoming};
use crate::error::Reason;
use crate::h1::SPELLING;

/// The flag of the message that has the trailers.
const TRAILERS: u8 = 0x80;

/// How a caller speaks gRPC-Web.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Web {
    Binary,
    Text,
}

impl Web {
    /// How this request is in gRPC-Web, if it is.
    pub(super) fn of(method: &Method, headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(CONTENT_TYPE).filter(|_| *method == Method::POST)?.as_bytes();
        let rest = kind.strip_prefix(b"application/grpc-web")?;
        let ends = |rest: &[u8]| matches!(rest, [] | [b'+' | b';' | b' ', ..]);
        match rest.strip_prefix(b"-text") {
            Some(rest) if ends(rest) => Some(Self::Text),
            None if ends(rest) => Some(Self::Binary),
            _ => None,
        }
    }

    pub(super) const fn media_type(self) -> &'static str {
        match self {
            Self::Binary => "application/grpc-web",
            Self::Text => "application/grpc-web-text",
        }
    }

    /// Makes a call of a request.
    pub(super) fn request(self, parts: &mut request::Parts, body: Incoming) -> Incoming {
        rename(&mut parts.headers, self.media_type(), "application/grpc");
        parts.headers.remove(CONTENT_LENGTH);
        parts.headers.insert(TE, HeaderValue::from_static("trailers"));
        match self {
            Self::Binary => body,
            Self::Text => Incoming::changed(Decoded { inner: body, rest: BytesMut::new() }),
        }
    }

    /// Makes the response to a call one of gRPC-Web. What is not of gRPC stays as it is.
    pub(super) fn response(self, parts: &mut response::Parts, body: Incoming) -> Incoming {
        if !crate::grpc::is_grpc(&parts.headers) {
            return body;
        }
        rename(&mut parts.headers, "application/grpc", self.media_type());
        if body.is_end_stream() {
            return body;
        }
        parts.headers.remove(CONTENT_LENGTH);
        // The trailers that it announces are in the body.
        parts.headers.remove(http::header::TRAILER);
        Incoming::changed(Encoded { inner: body, web: self, over: false })
    }
}

/// Changes a media type, not the encoding that follows it.
fn rename(headers: &mut HeaderMap, from: &str, to: &'static str) {
    let renamed = headers.get(CONTENT_TYPE).and_then(|kind| {
        let rest = kind.as_bytes().strip_prefix(from.as_bytes())?;
        HeaderValue::from_bytes(&[to.as_bytes(), rest].concat()).ok()
    });
    headers.insert(CONTENT_TYPE, renamed.unwrap_or(HeaderValue::from_static(to)));
}

/// Bytes out of base64, which may be several texts in a row, each with its padding.
struct Decoded {
    inner: Incoming,
    /// Less than four characters.
    rest: BytesMut,
}

impl Decoded {
    fn decode(&mut self, text: &[u8]) -> Result<Bytes, BodyError> {
        self.rest.extend_from_slice(text);
        let whole = self.rest.len() / 4 * 4;
        let text = self.rest.split_to(whole);
        let mut bytes = Vec::with_capacity(whole / 4 * 3);
        let mut from = 0;
        for (at, four) in text.chunks_exact(4).enumerate() {
            let end = (at + 1) * 4;
            if four.contains(&b'=') || end == whole {
                let one = text.get(from..end).unwrap_or_default();
                STANDARD.decode_vec(one, &mut bytes).map_err(|_| broken())?;
                from = end;
            }
        }
        Ok(bytes.into())
    }
}

fn broken() -> BodyError {
    refused(Reason::HttpRequestError, "the body of the gRPC-Web request is not base64")
}

impl Body for Decoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            let Some(frame) = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)?) else {
                let cut = !this.rest.is_empty();
                this.rest.clear();
                return Poll::Ready(cut.then(|| Err(broken())));
            };
            match frame.into_data() {
                Ok(text) => {
                    let bytes = this.decode(&text)?;
                    if !bytes.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    }
                }
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }
}

/// A response's messages, and its trailers as the last.
struct Encoded {
    inner: Incoming,
    web: Web,
    over: bool,
}

impl Encoded {
    fn encode(&self, bytes: Bytes) -> Bytes {
        match self.web {
            Web::Binary => bytes,
            // Padded, so that nothing is held back for want of a third byte.
            Web::Text => STANDARD.encode(bytes).into(),
        }
    }
}

impl Body for Encoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        let Some(frame) = std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)?) else {
            return Poll::Ready(None);
        };
        let bytes = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                this.over = true;
                trailers(&frame.into_trailers().unwrap_or_default())
            }
        };
        Poll::Ready(Some(Ok(Frame::data(this.encode(bytes)))))
    }
}

/// Trailers as a message: a flag, the length, and the fields as HTTP/1.1 has them.
fn trailers(fields: &HeaderMap) -> Bytes {
    // How they were spelled passes between sidecars alone.
    let fields = || fields.iter().filter(|(name, _)| **name != SPELLING);
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let length: usize = fields().map(line).sum();
    let mut message = BytesMut::with_capacity(5 + length);
    message.put_u8(TRAILERS);
    message.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    for (name, value) in fields() {
        message.put_slice(name.as_str().as_bytes());
        message.put_slice(b": ");
        message.put_slice(value.as_bytes());
        message.put_slice(b"\r\n");
    }
    message.freeze()
}

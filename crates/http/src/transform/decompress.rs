//! Requests out of their content coding, without more bytes coming of it than are allowed.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};
use http_body::{Body, Frame};
use outrigger_config::route::{Coding, Decompression};

use super::coding::Decoder;
use super::refused;
use crate::body::{BodyError, Incoming};
use crate::error::Reason;

/// Until so many bytes the ratio does not matter: little text can be very much alike.
const SMALL: u64 = 64 * 1024;

/// Decompresses a request whose one content coding is one of the filter's. Others go on as they are.
pub(super) fn decompress(filter: &Decompression, headers: &mut HeaderMap, body: Incoming) -> Incoming {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let (Some(coding), None) = (codings.next(), codings.next()) else { return body };
    let Some(coding) = coding.to_str().ok().and_then(Coding::of_token) else { return body };
    if !filter.algorithms.contains(&coding) {
        return body;
    }
    headers.remove(CONTENT_ENCODING);
    headers.remove(CONTENT_LENGTH);
    Incoming::changed(Decompressed {
        inner: body,
        decoder: Decoder::new(coding),
        coding,
        input: Bytes::new(),
        received: 0,
        given: 0,
        max_bytes: filter.max_bytes,
        max_ratio: u64::from(filter.max_ratio),
        ended: false,
        trailers: None,
    })
}

struct Decompressed {
    inner: Incoming,
    decoder: Decoder,
    coding: Coding,
    /// What the decoder has still to take.
    input: Bytes,
    received: u64,
    given: u64,
    max_bytes: u64,
    max_ratio: u64,
    ended: bool,
    trailers: Option<HeaderMap>,
}

impl Decompressed {
    fn step(&mut self) -> Result<Bytes, BodyError> {
        let given = self.decoder.step(&mut self.input).map_err(|_| self.malformed("is not what it says"))?;
        self.given += given.len() as u64;
        if self.given > self.max_bytes {
            let why = format!("decompressed, the request's body has more than {} bytes", self.max_bytes);
            return Err(refused(Reason::HttpRequestBodySize, why));
        }
        if self.given > SMALL && self.given > self.received.saturating_mul(self.max_ratio) {
            let why =
                format!("decompressed, the request's body has more than {} times its bytes", self.max_ratio);
            return Err(refused(Reason::HttpRequestBodySize, why));
        }
        Ok(given)
    }

    fn malformed(&self, what: &str) -> BodyError {
        let coding = self.coding.token();
        refused(Reason::HttpRequestError, format!("the request's body in content coding {coding} {what}"))
    }
}

impl Body for Decompressed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if !this.input.is_empty() || this.decoder.has_more() {
                let given = this.step()?;
                if !given.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(given))));
                }
                continue;
            }
            if this.ended {
                if !this.decoder.may_end() {
                    return Poll::Ready(Some(Err(this.malformed("is cut off"))));
                }
                return Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            match std::task::ready!(Pin::new(&mut this.inner).poll_frame(cx)?) {
                Some(frame) => match frame.into_data() {
                    Ok(data) => {
                        this.received += data.len() as u64;
                        this.input = data;
                    }
                    Err(frame) => {
                        this.trailers = frame.into_trailers().ok();
                        this.ended = true;
                    }
                },
                None => this.ended = true,
            }
        }
    }
}

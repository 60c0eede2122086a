//! Responses in a content coding that the caller accepts.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG,
    HeaderMap, HeaderName, HeaderValue, VARY,
};
use http::{Method, StatusCode, response};
use http_body::{Body, Frame};
use outrigger_config::route::{Coding, Compression};

use super::coding::{Encoder, Step};
use crate::body::{BodyError, Incoming};

/// How many frames are taken in one go, for other connections of this thread wait meanwhile.
const AT_ONCE: usize = 16;

/// Fields that say something of the bytes that are sent, which would no longer hold (RFC 9530; RFC 3230).
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// The coding for a response to this request; `None` if the caller prefers none of the filter's. Of codings that the
/// caller likes equally well, the first of the filter's (RFC 9110, section 12.5.3).
pub(super) fn choose(filter: &Compression, method: &Method, headers: &HeaderMap) -> Option<Coding> {
    if *method == Method::CONNECT || no_transform(headers) {
        return None;
    }
    let accepted = Accepted::read(headers);
    let mut best: Option<(u16, Coding)> = None;
    for coding in &filter.algorithms {
        let weight = accepted.weight(*coding);
        if weight > 0 && best.is_none_or(|(other, _)| weight > other) {
            best = Some((weight, *coding));
        }
    }
    best.filter(|(weight, _)| accepted.identity.is_none_or(|identity| *weight >= identity)).map(|(_, c)| c)
}

/// What an `Accept-Encoding` says of the codings that there are, in thousandths.
#[derive(Debug, Default)]
struct Accepted {
    gzip: Option<u16>,
    brotli: Option<u16>,
    zstd: Option<u16>,
    identity: Option<u16>,
    any: Option<u16>,
}

impl Accepted {
    fn read(headers: &HeaderMap) -> Self {
        let mut accepted = Self::default();
        let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
        for one in lines.flat_map(|line| line.split(',')) {
            let (name, parameters) = one.split_once(';').unwrap_or((one, ""));
            let name = name.trim();
            let place = if name == "*" {
                &mut accepted.any
            } else if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
                &mut accepted.gzip
            } else if name.eq_ignore_ascii_case("br") {
                &mut accepted.brotli
            } else if name.eq_ignore_ascii_case("zstd") {
                &mut accepted.zstd
            } else if name.eq_ignore_ascii_case("identity") {
                &mut accepted.identity
            } else {
                continue;
            };
            *place = Some(weight(parameters));
        }
        accepted
    }

    fn weight(&self, coding: Coding) -> u16 {
        let named = match coding {
            Coding::Gzip => self.gzip,
            Coding::Brotli => self.brotli,
            Coding::Zstd => self.zstd,
            Coding::Deflate => None,
        };
        named.or(self.any).unwrap_or(0)
    }
}

/// A weight (RFC 9110, section 12.4.2) in thousandths; none is 1, and what is not a weight is 0.
fn weight(parameters: &str) -> u16 {
    let mut weights = parameters.split(';').filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse::<f32>().unwrap_or(0.0))
    });
    let weight = weights.next().unwrap_or(1.0);
    (weight.clamp(0.0, 1.0) * 1000.0) as u16
}

/// Whether nobody on the way may change the content (RFC 9111, sections 5.2.1.6 and 5.2.2.6).
fn no_transform(headers: &HeaderMap) -> bool {
    headers.get_all(CACHE_CONTROL).iter().any(|line| {
        line.to_str().is_ok_and(|line| {
            line.split(',').any(|directive| directive.trim().eq_ignore_ascii_case("no-transform"))
        })
    })
}

/// Compresses a response where that is right. The header of the response to a HEAD is changed as that to a GET would be.
pub(super) fn compress(
    filter: &Compression,
    chosen: Option<Coding>,
    method: &Method,
    parts: &mut response::Parts,
    body: Incoming,
) -> Incoming {
    let head = *method == Method::HEAD;
    if !head && body.is_end_stream() || !suits(filter, head, parts, &body) {
        return body;
    }
    vary(&mut parts.headers);
    let Some((encoder, coding)) = chosen.and_then(|coding| Some((Encoder::new(coding)?, coding))) else {
        return body;
    };
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.token()));
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.remove(ACCEPT_RANGES);
    weaken(&mut parts.headers);
    if head {
        return body;
    }
    Incoming::changed(Compressed {
        inner: body,
        encoder,
        input: Bytes::new(),
        owed: false,
        trailers: None,
        state: State::Reading,
    })
}

/// Whether a response is one that the filter compresses, for callers that accept it.
fn suits(filter: &Compression, head: bool, parts: &response::Parts, body: &Incoming) -> bool {
    let headers = &parts.headers;
    let status = parts.status;
    let plain = status != StatusCode::PARTIAL_CONTENT
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
        && !status.is_informational();
    let encoded =
        headers.get(CONTENT_ENCODING).is_some_and(|c| !c.as_bytes().eq_ignore_ascii_case(b"identity"));
    let length = if head {
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok())
    } else {
        http_body::Body::size_hint(body).exact()
    };
    plain
        && !encoded
        && length.is_none_or(|length| length >= u64::from(filter.min_bytes))
        && !no_transform(headers)
        && !DIGESTS.iter().any(|digest| headers.contains_key(digest))
        && headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(|kind| {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            // Each message of these is to be seen as soon as it is there, and gRPC compresses its own.
            let stream = kind.eq_ignore_ascii_case("text/event-stream")
                || kind.get(..16).is_some_and(|start| start.eq_ignore_ascii_case("application/grpc"));
            !stream && filter.content_types.iter().any(|range| range.matches(kind))
        })
}

/// Says that the response depends on what the caller accepts, whether it is compressed or not.
fn vary(headers: &mut HeaderMap) {
    let said = headers.get_all(VARY).iter().any(|line| {
        line.to_str().is_ok_and(|line| {
            line.split(',')
                .map(str::trim)
                .any(|name| name == "*" || name.eq_ignore_ascii_case("accept-encoding"))
        })
    });
    if !said {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// A strong entity tag stands for the same bytes, a weak one for the same meaning (RFC 9110, section 8.8.1).
fn weaken(headers: &mut HeaderMap) {
    if let Some(tag) = headers.get_mut(ETAG)
        && !tag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        *tag = weak;
    }
}

/// A body in a content coding.
struct Compressed {
    inner: Incoming,
    encoder: Encoder,
    /// What the encoder has still to take.
    input: Bytes,
    /// Whether the encoder has taken something that it has not given yet, for all that is known.
    owed: bool,
    trailers: Option<HeaderMap>,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Reading,
    /// The application pauses: what there is goes on its way.
    Flushing,
    Finishing,
    Trailers,
    Over,
}

impl Compressed {
    fn step(&mut self, step: Step) -> Result<(Bytes, bool), BodyError> {
        self.encoder.step(step, &mut self.input).map_err(|error| BodyError::Broken(error.into()))
    }
}

impl Body for Compressed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut taken = 0;
        loop {
            let given = match this.state {
                State::Reading if !this.input.is_empty() => {
                    this.owed = true;
                    this.step(Step::Encode)?.0
                }
                State::Reading if taken == AT_ONCE => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                State::Reading => {
                    taken += 1;
                    match Pin::new(&mut this.inner).poll_frame(cx)? {
                        Poll::Ready(Some(frame)) => match frame.into_data() {
                            Ok(data) => this.input = data,
                            Err(frame) => {
                                this.trailers = frame.into_trailers().ok();
                                this.state = State::Finishing;
                            }
                        },
                        Poll::Ready(None) => this.state = State::Finishing,
                        Poll::Pending if this.owed => this.state = State::Flushing,
                        Poll::Pending => return Poll::Pending,
                    }
                    continue;
                }
                State::Flushing => {
                    let (given, done) = this.step(Step::Flush)?;
                    if done {
                        (this.owed, this.state) = (false, State::Reading);
                    }
                    given
                }
                State::Finishing => {
                    let (given, done) = this.step(Step::Finish)?;
                    if done {
                        this.state = State::Trailers;
                    }
                    given
                }
                State::Trailers => {
                    this.state = State::Over;
                    return Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
                }
                State::Over => return Poll::Ready(None),
            };
            if !given.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(given))));
            }
        }
    }
}

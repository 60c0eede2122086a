//! Writing heads.

use bytes::{BufMut, BytesMut};
use http::header::{self, HeaderMap};
use http::{Method, StatusCode, Version, request, response};
use http_body::SizeHint;

use super::head::has_no_body;
use super::outbox::Coding;
use super::spelling::{Spelling, write_fields};

/// Writes the head of a request, and says how its body is written.
pub(super) fn request(
    parts: &request::Parts,
    spelling: Option<&Spelling>,
    body: (bool, SizeHint),
    out: &mut BytesMut,
) -> Coding {
    let (ended, hint) = body;
    let uri = &parts.uri;
    let target = match uri.authority() {
        Some(authority) if parts.method == Method::CONNECT => authority.as_str(),
        _ => uri.path_and_query().map_or("/", |target| target.as_str()),
    };
    let method = parts.method.as_str();
    out.reserve(256 + target.len());
    for part in [method, " ", target, " HTTP/1.1\r\n"] {
        out.put_slice(part.as_bytes());
    }
    write_fields(&parts.headers, spelling, out);
    let coding = match (length(&parts.headers), hint.exact()) {
        (Some(length), _) => Coding::Length(length),
        (None, _) if ended => Coding::Length(0),
        (None, Some(exact)) => {
            content_length(exact, out);
            Coding::Length(exact)
        }
        (None, None) => {
            out.put_slice(b"Transfer-Encoding: chunked\r\n");
            Coding::Chunked
        }
    };
    out.put_slice(b"\r\n");
    coding
}

/// What the request was that a response answers.
#[derive(Debug, Clone)]
pub(super) struct AnswerTo {
    pub(super) method: Method,
    pub(super) version: Version,
    /// Whether the connection goes on after the response, unless the response says otherwise.
    pub(super) keep_alive: bool,
}

/// Writes the head of a final response, and says how its body is written, and whether the connection goes on.
pub(super) fn response(
    parts: &mut response::Parts,
    spelling: Option<&Spelling>,
    to: &AnswerTo,
    body: &SizeHint,
    out: &mut BytesMut,
) -> (Coding, bool) {
    let status = parts.status;
    parts.headers.remove(header::TRANSFER_ENCODING);
    let switching = is_switch(&to.method, status);
    if switching && status != StatusCode::SWITCHING_PROTOCOLS {
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    let says_close = super::head::has_option(&parts.headers, "close");
    let without_body = has_no_body(&to.method, status);
    let (coding, length) = match (length(&parts.headers), body.exact()) {
        _ if without_body && (to.method != Method::HEAD) => (Coding::Length(0), None),
        // What the length would be is only known of what is made here.
        (None, exact) if without_body => (Coding::Length(0), exact.filter(|exact| *exact > 0)),
        (Some(_), _) if without_body => (Coding::Length(0), None),
        (Some(length), _) => (Coding::Length(length), None),
        (None, Some(exact)) => (Coding::Length(exact), Some(exact)),
        (None, None) if to.version == Version::HTTP_10 => (Coding::Close, None),
        (None, None) => (Coding::Chunked, None),
    };
    let keep_alive = to.keep_alive && !says_close && coding != Coding::Close && !switching;
    line(status, spelling, out);
    write_fields(&parts.headers, spelling, out);
    if let Some(length) = length {
        content_length(length, out);
    }
    if coding == Coding::Chunked {
        out.put_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if !keep_alive && !says_close && !switching {
        out.put_slice(b"Connection: close\r\n");
    } else if keep_alive && to.version == Version::HTTP_10 {
        out.put_slice(b"Connection: keep-alive\r\n");
    }
    out.put_slice(b"\r\n");
    (coding, keep_alive)
}

/// Writes an interim response.
pub(super) fn interim(
    status: StatusCode,
    headers: &HeaderMap,
    spelling: Option<&Spelling>,
    out: &mut BytesMut,
) {
    line(status, spelling, out);
    write_fields(headers, spelling, out);
    out.put_slice(b"\r\n");
}

/// Whether a response gives the connection to another use.
pub(super) fn is_switch(method: &Method, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || (*method == Method::CONNECT && status.is_success())
}

/// A status line, whose words are those that the backend chose.
fn line(status: StatusCode, spelling: Option<&Spelling>, out: &mut BytesMut) {
    let known = spelling.and_then(Spelling::status_words);
    let words = known.unwrap_or_else(|| status.canonical_reason().unwrap_or_default().as_bytes());
    out.reserve(256 + words.len());
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(words);
    out.put_slice(b"\r\n");
}

fn content_length(length: u64, out: &mut BytesMut) {
    out.put_slice(b"Content-Length: ");
    out.put_slice(itoa::Buffer::new().format(length).as_bytes());
    out.put_slice(b"\r\n");
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

//! HTTP/2 (RFC 9113), on the `h2` crate, which frames, compresses and controls flow.
//!
//! What is here is what a proxy wants and a general library hides: interim responses, the codes with which streams are
//! reset, CONNECT for any protocol, and a request that goes straight to its stream, without a task or a channel on the
//! way. A stream whose handles are all dropped is reset, so that whoever stops waiting need not say so.

mod alive;
pub(crate) mod client;
mod exchanges;
mod extended;
mod frame;
mod heard;
mod pace;
mod received;
mod sending;
pub(crate) mod server;
mod sieve;
mod tunnel;

use std::rc::Rc;

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, Entry};

use crate::h1::{Limits, SPELLING, Spelling, Wrong};

pub(crate) use received::Received;
pub(crate) use tunnel::ByteStream;

/// How much a peer may send on one stream before it is read.
const STREAM_WINDOW: u32 = 256 * 1024;
/// How many requests share a connection to an endpoint before another is made.
pub(crate) const STREAMS_PER_CONNECTION: u32 = 100;
/// How much a caller may send on all streams of its connection before it is read.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// The same where many callers share the connection: each stream has its own window's worth, so that those which nobody
/// reads starve no other.
const SHARED_WINDOW: u32 = STREAMS_PER_CONNECTION * STREAM_WINDOW;
/// How often a connection may have to reset streams because of what its peer did, before it is ended.
const MAX_RESETS: usize = 1024;
/// What it may take, as `h2` counts it, to keep small frames of data that nobody has read yet: beyond that a connection
/// ends. A frame counts as 256 bytes; messages of gRPC may be as small as 5.
const FRAME_OVERHEAD: usize = CONNECTION_WINDOW as usize / 2;
/// The same where many callers share the connection, which would end for all of them.
const SHARED_FRAME_OVERHEAD: usize = 128 * 1024 * 1024;
/// How much of what is sent on a stream may wait for the connection.
const MAX_SEND_BUFFER: usize = 400 * 1024;

/// Takes out what another sidecar says of how a header was spelled.
fn spelled(headers: &mut HeaderMap) -> Option<Rc<Spelling>> {
    headers.remove(SPELLING).map(|told| Rc::new(Spelling::from_value(&told)))
}

/// Tells another sidecar how a header was spelled, if it was.
fn spell(headers: &mut HeaderMap, spelling: Option<&Spelling>) {
    match spelling.and_then(Spelling::to_value) {
        Some(told) => headers.insert(SPELLING, told),
        None => headers.remove(SPELLING),
    };
}

/// How much header `h2` is told to read: more than is allowed, so that what is too large can be answered and named.
fn read_anyway(limits: &Limits) -> u32 {
    // `h2` counts 32 bytes for each field beside its name and value.
    let most = limits.bytes.saturating_mul(2).saturating_add(limits.fields.saturating_mul(32));
    u32::try_from(most).unwrap_or(u32::MAX)
}

/// Makes one of a length that was said several times, each time the same, as `h2` has seen to.
fn say_length_once(headers: &mut HeaderMap) {
    if let Entry::Occupied(mut length) = headers.entry(CONTENT_LENGTH)
        && length.iter().nth(1).is_some()
    {
        let first = length.get().clone();
        length.insert(first);
    }
}

/// Whether a header is within limits, which count what it would be in HTTP/1.1, after so many bytes of a first line.
fn fits(headers: &HeaderMap, first: usize, limits: &Limits) -> Result<(), Wrong> {
    const AROUND: usize = ": \r\n".len();
    if headers.len() > limits.fields {
        return Err(Wrong::Fields);
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + AROUND).sum();
    if first + bytes > limits.bytes { Err(Wrong::Bytes) } else { Ok(()) }
}

/// The code with which a stream is reset whose other half, on the far side of the proxy, was reset with `reason`. What
/// was wrong with one connection says nothing of the other (RFC 9113, section 7).
const fn passed_on(reason: h2::Reason) -> h2::Reason {
    match reason {
        h2::Reason::NO_ERROR
        | h2::Reason::CANCEL
        | h2::Reason::REFUSED_STREAM
        | h2::Reason::CONNECT_ERROR
        | h2::Reason::ENHANCE_YOUR_CALM => reason,
        _ => h2::Reason::INTERNAL_ERROR,
    }
}

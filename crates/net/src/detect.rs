//! Which protocol a connection speaks, seen from its first bytes.

mod prefixed;

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

use crate::peek::{self, Peeked};

pub use prefixed::Prefixed;

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    /// A request line of HTTP/1 (RFC 9112, 3).
    Http1,
    /// The connection preface of HTTP/2 (RFC 9113, 3.4).
    Http2,
    /// A TLS handshake record (RFC 8446, 5.1).
    Tls,
    /// Anything else, also bytes too few to tell when the time was up or the peer closed its half.
    Opaque,
    /// Nothing within the time: a protocol in which the callee speaks first, or a connection opened in advance.
    Silent,
    /// The peer closed its half without a byte.
    Closed,
}

/// The preface of HTTP/2, RFC 9113, 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest method that is taken for one; the longest registered is UPDATEREDIRECTREF with 17 bytes.
const LONGEST_METHOD: usize = 32;
/// As many bytes always suffice: an empty line, a method, a space and `https://`.
const ENOUGH: usize = 2 + LONGEST_METHOD + 1 + 8;

/// Looks at the first bytes of a connection and leaves them in place.
///
/// Waits until they decide, or for `timeout`. The usual connection, whose first packet decides, costs one system call.
pub async fn tcp(stream: &TcpStream, timeout: Duration) -> io::Result<Detected> {
    let mut buffer = [0; ENOUGH];
    Ok(match peek::until(stream, &mut buffer, timeout, decide).await? {
        Peeked::Decided(detected) => detected,
        Peeked::Undecided { bytes: 0, closed: true } => Detected::Closed,
        Peeked::Undecided { bytes: 0, closed: false } => Detected::Silent,
        Peeked::Undecided { .. } => Detected::Opaque,
    })
}

/// The same for what cannot be peeked, such as the inside of TLS: the bytes are read, and given back by the
/// [`Prefixed`] that takes the place of `io`.
///
/// # Errors
/// Those of reading; `io` is then of no more use and is dropped.
pub async fn io<IO: AsyncRead + Unpin>(
    mut io: IO,
    timeout: Duration,
) -> io::Result<(Detected, Prefixed<IO>)> {
    let mut bytes = [0; ENOUGH];
    let mut length = 0;
    let reading = async {
        loop {
            let (seen, free) = bytes.split_at_mut(length);
            if let Some(detected) = decide(seen) {
                return io::Result::Ok(detected);
            }
            // At `ENOUGH` bytes `decide` has answered, so there is room, and nothing read means the end.
            let read = io.read(free).await?;
            if read == 0 {
                return Ok(if length == 0 { Detected::Closed } else { Detected::Opaque });
            }
            length += read;
        }
    };
    let detected = match tokio::time::timeout(timeout, reading).await {
        Ok(read) => read?,
        Err(_) if length == 0 => Detected::Silent,
        Err(_) => Detected::Opaque,
    };
    Ok((detected, Prefixed::new(bytes, length, io)))
}

/// The decision over bytes already read, from the first one on: `None` if more are needed.
///
/// HTTP/1 is a method (any token of up to 32 bytes), a space, and what a request target begins with in one of its four
/// forms (RFC 9112, 3.2); one empty line before it is allowed (2.2). An answer never changes with further bytes, and
/// 43 bytes always have one.
pub fn decide(bytes: &[u8]) -> Option<Detected> {
    match bytes {
        [] | [0x16] => return None,
        [0x16, 0x03, ..] => return Some(Detected::Tls),
        _ if bytes.starts_with(PREFACE) => return Some(Detected::Http2),
        _ if PREFACE.starts_with(bytes) => return None,
        _ => {}
    }
    request_line(bytes).map(|http| if http { Detected::Http1 } else { Detected::Opaque })
}

/// Whether a request line of HTTP/1 begins here, as far as the bytes tell.
fn request_line(bytes: &[u8]) -> Option<bool> {
    if bytes == b"\r" {
        return None;
    }
    let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let Some(end) = line.iter().position(|&byte| !is_token(byte)) else {
        return if line.len() > LONGEST_METHOD { Some(false) } else { None };
    };
    let (method, rest) = line.split_at(end);
    if method.is_empty() || method.len() > LONGEST_METHOD {
        return Some(false);
    }
    match (method, rest) {
        (b"CONNECT", [b' ', next, ..]) => Some(next.is_ascii_graphic()),
        (_, [b' ']) => None,
        (_, [b' ', b'/', ..]) => Some(true),
        (_, [b' ', b'*', next @ ..]) => next.first().map(|&next| next == b' '),
        (_, [b' ', target @ ..]) => absolute(target),
        _ => Some(false),
    }
}

/// Whether a request target is in absolute form, with a scheme that HTTP serves.
fn absolute(target: &[u8]) -> Option<bool> {
    let mut undecided = false;
    for scheme in [&b"http://"[..], b"https://"] {
        let length = scheme.len().min(target.len());
        let same = target.iter().zip(scheme).all(|(byte, expected)| byte.eq_ignore_ascii_case(expected));
        if same && length == scheme.len() {
            return Some(true);
        }
        undecided |= same;
    }
    if undecided { None } else { Some(false) }
}

/// `tchar` of RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;

//! Where a body ends, and what of a connection's bytes belongs to it (RFC 9112, sections 6 and 7).

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::head::{self, Framing, Limits, Scanner, Wrong};

/// How long a chunk's first line may be, with its extensions.
const MAX_CHUNK_LINE: usize = 4096;
/// How long a chunk may be: what fits its 15 hexadecimal digits.
const MAX_SIZE_DIGITS: usize = 15;

/// Takes one body out of a connection's bytes.
#[derive(Debug)]
pub(super) enum Decoder {
    /// So many bytes are left.
    Length(u64),
    /// A chunk's first line is next.
    ChunkLine,
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// The line end after a chunk is next.
    ChunkEnd,
    /// The trailers are next.
    Trailers(Scanner),
    /// All that comes belongs to it.
    Close,
}

/// What was taken out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Bytes of the body.
    Data(Bytes),
    /// Its trailers, with which it ends.
    Trailers(HeaderMap),
    /// Nothing more: it has ended.
    End,
    /// Nothing yet.
    More,
}

impl Decoder {
    pub(super) const fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::ChunkLine,
            Framing::Close => Self::Close,
        }
    }

    /// Whether it has ended.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self, Self::Length(0))
    }

    /// Whether the end of the connection is the end of the body.
    pub(super) const fn ends_with_connection(&self) -> bool {
        matches!(self, Self::Close)
    }

    /// Takes the next part out of `buffer`.
    pub(super) fn take(&mut self, buffer: &mut BytesMut, limits: &Limits) -> Result<Taken, Wrong> {
        loop {
            match self {
                Self::Length(0) => return Ok(Taken::End),
                Self::Length(left) | Self::Chunk(left) => {
                    let Some(data) = up_to(buffer, *left) else { return Ok(Taken::More) };
                    *left -= data.len() as u64;
                    if let Self::Chunk(0) = self {
                        *self = Self::ChunkEnd;
                    }
                    return Ok(Taken::Data(data));
                }
                Self::Close => return Ok(up_to(buffer, u64::MAX).map_or(Taken::More, Taken::Data)),
                Self::ChunkLine => {
                    let Some(size) = chunk_size(buffer)? else { return Ok(Taken::More) };
                    *self = if size == 0 { Self::Trailers(Scanner::default()) } else { Self::Chunk(size) };
                }
                Self::ChunkEnd => {
                    if buffer.len() < 2 {
                        return Ok(Taken::More);
                    }
                    if !buffer.starts_with(b"\r\n") {
                        return Err(Wrong::Malformed("a chunk is longer than it says"));
                    }
                    buffer.advance(2);
                    *self = Self::ChunkLine;
                }
                Self::Trailers(scanner) => {
                    let end = scanner.end(buffer, limits).map_err(|wrong| match wrong {
                        Wrong::FirstLine => Wrong::Bytes,
                        wrong => wrong,
                    })?;
                    let Some(end) = end else { return Ok(Taken::More) };
                    let taken = match end {
                        2 => Taken::End,
                        _ => Taken::Trailers(head::trailers(buffer.split_to(end).freeze(), limits)?),
                    };
                    if taken == Taken::End {
                        buffer.advance(end);
                    }
                    *self = Self::Length(0);
                    return Ok(taken);
                }
            }
        }
    }
}

fn up_to(buffer: &mut BytesMut, most: u64) -> Option<Bytes> {
    if buffer.is_empty() {
        return None;
    }
    let length = usize::try_from(most).map_or(buffer.len(), |most| most.min(buffer.len()));
    let all = length == buffer.len();
    Some(if all { std::mem::take(buffer).freeze() } else { buffer.split_to(length).freeze() })
}

/// Takes a chunk's first line: its size, and extensions that nobody here knows (RFC 9112, section 7.1.1).
fn chunk_size(buffer: &mut BytesMut) -> Result<Option<u64>, Wrong> {
    const WRONG: Wrong = Wrong::Malformed("a chunk does not begin with its size");
    let Some(end) = memchr::memchr(b'\n', buffer) else {
        return if buffer.len() > MAX_CHUNK_LINE { Err(WRONG) } else { Ok(None) };
    };
    let line = buffer.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(WRONG)?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extensions) = line.split_at_checked(digits).ok_or(WRONG)?;
    let extensions_valid = match extensions.trim_ascii_start() {
        [] => extensions.is_empty(),
        [b';', rest @ ..] => rest.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..)),
        _ => false,
    };
    if digits == 0 || digits > MAX_SIZE_DIGITS || !extensions_valid || line.len() > MAX_CHUNK_LINE {
        return Err(WRONG);
    }
    let digit = |byte: &u8| u64::from(char::from(*byte).to_digit(16).unwrap_or_default());
    let size = size.iter().fold(0, |sum, byte| sum << 4 | digit(byte));
    buffer.advance(end + 1);
    Ok(Some(size))
}

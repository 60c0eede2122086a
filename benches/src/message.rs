//! Reading an HTTP/1.1 message (RFC 9112) for its length alone: its content is counted, not kept.
//!
//! For the load's caller, which reads responses, and its application, which reads requests.

use std::io;

use httparse::{Header, Status};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest head, in bytes.
const MAX_HEAD: usize = 64 * 1024;
const MAX_FIELDS: usize = 128;

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Which messages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Requests.
    Request,
    /// Responses to requests other than HEAD and CONNECT.
    Response,
}

/// What is known of a message once its head is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Of a response; 0 of a request.
    pub status: u16,
    /// Whether the sender closes after it.
    pub close: bool,
    /// Whether a request, or its answer (101), is for a WebSocket.
    pub upgrade: bool,
}

/// Reads one message, whatever pieces it comes in.
#[derive(Debug)]
pub struct Reader {
    kind: Kind,
    state: State,
    head: Option<Head>,
    content: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Sized(u64),
    /// Before a chunk's size; whether a digit of it has been read, what it says so far.
    ChunkSize(bool, u64),
    ChunkExtension(u64),
    Chunk(u64),
    AfterChunk,
    /// In the trailer section; how many bytes of the line have been read.
    Trailer(usize),
    UntilClose,
    Done,
}

impl Reader {
    /// For one message.
    pub fn new(kind: Kind) -> Self {
        Self { kind, state: State::Head, head: None, content: 0 }
    }

    /// Its head, once that is read.
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// Bytes of content so far.
    pub fn content(&self) -> u64 {
        self.content
    }

    /// Whether the whole message was read.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads on; returns how many of `bytes` belong to this message. All of them but for the last of a head that is not whole
    /// yet, which must be given again with more behind them, and what follows the message.
    ///
    /// # Errors
    ///
    /// If this is no such message.
    pub fn read(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut rest = bytes;
        while !rest.is_empty() && self.state != State::Done {
            if self.state == State::Head {
                let Some(length) = self.read_head(rest)? else { break };
                rest = rest.get(length..).unwrap_or_default();
            } else {
                let taken = self.read_content(rest)?;
                rest = rest.get(taken..).unwrap_or_default();
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// The sender has closed.
    ///
    /// # Errors
    ///
    /// If the message is not whole.
    pub fn end(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::UntilClose | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(Malformed("the connection was closed before its end")),
        }
    }

    fn read_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let unreadable = |_| Malformed("its head is not HTTP/1.1");
        let (length, status, old, fields): (_, _, _, &[Header<'_>]) = match self.kind {
            Kind::Request => {
                let mut request = httparse::Request::new(&mut fields);
                let parsed = request.parse(bytes).map_err(unreadable)?;
                (parsed, 0, request.version == Some(0), request.headers)
            }
            Kind::Response => {
                let mut response = httparse::Response::new(&mut fields);
                let parsed = response.parse(bytes).map_err(unreadable)?;
                (parsed, response.code.unwrap_or(0), response.version == Some(0), response.headers)
            }
        };
        let Status::Complete(length) = length else {
            return if bytes.len() > MAX_HEAD {
                Err(Malformed("its head is longer than 64 KiB"))
            } else {
                Ok(None)
            };
        };
        let framing = Framing::of(fields)?;
        if (100..200).contains(&status) && status != 101 {
            return Ok(Some(length));
        }
        let close = framing.close || old && !framing.keep_alive;
        self.head = Some(Head { status, close, upgrade: framing.upgrade });
        self.state = match (framing.chunked, framing.length) {
            _ if matches!(status, 101 | 204 | 304) => State::Done,
            (true, _) => State::ChunkSize(false, 0),
            (false, Some(0)) => State::Done,
            (false, Some(length)) => State::Sized(length),
            (false, None) if self.kind == Kind::Request => State::Done,
            (false, None) => State::UntilClose,
        };
        if self.state == State::UntilClose
            && let Some(head) = &mut self.head
        {
            head.close = true;
        }
        Ok(Some(length))
    }

    /// Returns how many bytes were read, at least one.
    fn read_content(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let available = bytes.len() as u64;
        let first = bytes.first().copied().unwrap_or_default();
        let (state, taken, content) = match self.state {
            State::Sized(left) => {
                let taken = left.min(available);
                (if taken == left { State::Done } else { State::Sized(left - taken) }, taken, taken)
            }
            State::Chunk(left) => {
                let taken = left.min(available);
                (if taken == left { State::AfterChunk } else { State::Chunk(left - taken) }, taken, taken)
            }
            State::UntilClose => (State::UntilClose, available, available),
            State::Head | State::Done => (self.state, available, 0),
            state => (state.after(first)?, 1, 0),
        };
        self.state = state;
        self.content += content;
        Ok(taken as usize)
    }
}

impl State {
    /// After one more byte of what stands around chunks (RFC 9112, section 7.1).
    fn after(self, byte: u8) -> Result<Self, Malformed> {
        let sized = |size| if size == 0 { Self::Trailer(0) } else { Self::Chunk(size) };
        match (self, byte) {
            (Self::ChunkSize(_, size), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                let size = size.checked_mul(16).ok_or(Malformed("a chunk is too long"))?;
                Ok(Self::ChunkSize(true, size | u64::from(digit)))
            }
            (Self::ChunkSize(true, size) | Self::ChunkExtension(size), b'\n') => Ok(sized(size)),
            (Self::ChunkSize(true, size), b';' | b' ' | b'\t' | b'\r') | (Self::ChunkExtension(size), _) => {
                Ok(Self::ChunkExtension(size))
            }
            (Self::ChunkSize(..), _) => Err(Malformed("a chunk has no size")),
            (Self::AfterChunk, b'\r') => Ok(Self::AfterChunk),
            (Self::AfterChunk, b'\n') => Ok(Self::ChunkSize(false, 0)),
            (Self::AfterChunk, _) => Err(Malformed("a chunk is longer than it says")),
            (Self::Trailer(0), b'\n') => Ok(Self::Done),
            (Self::Trailer(_), b'\n') => Ok(Self::Trailer(0)),
            (Self::Trailer(length), b'\r') => Ok(Self::Trailer(length)),
            (Self::Trailer(length), _) => Ok(Self::Trailer(length + 1)),
            (state, _) => Ok(state),
        }
    }
}

/// What the fields say of the message's length and of the connection.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

impl Framing {
    fn of(fields: &[Header<'_>]) -> Result<Self, Malformed> {
        let mut framing = Self::default();
        for field in fields {
            let value = field.value.trim_ascii();
            if field.name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                framing.length = Some(length.ok_or(Malformed("its content-length is no number"))?);
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                framing.chunked = value.eq_ignore_ascii_case(b"chunked");
            } else if field.name.eq_ignore_ascii_case("connection") {
                framing.close |= value.eq_ignore_ascii_case(b"close");
                framing.keep_alive |= value.eq_ignore_ascii_case(b"keep-alive");
            } else if field.name.eq_ignore_ascii_case("upgrade") {
                framing.upgrade |= value.eq_ignore_ascii_case(b"websocket");
            }
        }
        Ok(framing)
    }
}

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// It is not one.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Reads a whole message, of which the first `filled` bytes are in `buffer` already. What follows it is left at the start of
/// `buffer`: how many bytes. Where the sender has closed before its first byte, the reader has no head.
///
/// # Errors
///
/// If the connection breaks, or ends within the message, or there is something else on it.
pub async fn read(
    wire: &mut (impl AsyncRead + Unpin),
    reader: &mut Reader,
    buffer: &mut Box<[u8]>,
    mut filled: usize,
) -> Result<usize, ReadError> {
    loop {
        if filled > 0 {
            let taken = reader.read(buffer.get(..filled).unwrap_or_default())?;
            buffer.copy_within(taken..filled, 0);
            filled -= taken;
        }
        if reader.is_done() {
            return Ok(filled);
        }
        if filled == buffer.len() {
            // A head that is longer than usual; the reader says when it is too long.
            let mut larger = std::mem::take(buffer).into_vec();
            larger.resize((filled * 2).max(1024), 0);
            *buffer = larger.into();
        }
        let read = wire.read(buffer.get_mut(filled..).unwrap_or_default()).await?;
        if read == 0 {
            if filled > 0 || reader.head().is_some() {
                reader.end()?;
            }
            return Ok(0);
        }
        filled += read;
    }
}

#[cfg(test)]
mod tests;

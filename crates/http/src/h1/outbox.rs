//! What is to be written to a connection: a head and what belongs to it in one go, and a body's parts as they come.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tokio::io::AsyncWrite;

use super::spelling::{SPELLING, Spelling, write_fields};

/// Up to this size a body's part is copied beside what is there already; a longer one is written from where it is.
const SMALL: usize = 4 * 1024;
/// From how many bytes on nothing more is put in before they are written.
const FULL: usize = 16 * 1024;

/// What is to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Comes first.
    flat: BytesMut,
    /// Then a large part of a body.
    large: Bytes,
    /// Then the end of its chunk.
    end: &'static [u8],
    /// Whether what the connection has taken may not have left it.
    unflushed: bool,
    /// Whether any byte of the message under way was written.
    pub(super) begun: bool,
    /// Whether any byte was written since this was last looked at.
    pub(super) moved: bool,
}

/// How a body is written (RFC 9112, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// So many bytes are left; 0 where there is no body.
    Length(u64),
    /// In chunks.
    Chunked,
    /// As it is: it ends with the connection.
    Close,
    /// It has ended.
    Done,
}

/// A body is not as long as its header says.
#[derive(Debug, thiserror::Error)]
#[error("the body is not as long as its Content-Length says")]
pub(super) struct WrongLength;

impl Outbox {
    /// For a head, and all that is small.
    pub(super) const fn flat(&mut self) -> &mut BytesMut {
        &mut self.flat
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flat.is_empty() && self.large.is_empty() && self.end.is_empty()
    }

    /// Whether something has to be written before more is put in.
    pub(super) fn is_full(&self) -> bool {
        !self.large.is_empty() || !self.end.is_empty() || self.flat.len() >= FULL
    }

    /// Puts in a part of a body. Not to be called while it is full.
    pub(super) fn push(&mut self, frame: Frame<Bytes>, coding: &mut Coding) -> Result<(), WrongLength> {
        match frame.into_data() {
            Ok(data) if data.is_empty() => Ok(()),
            Ok(data) => self.push_data(data, coding),
            Err(frame) => {
                if let (Ok(trailers), Coding::Chunked) = (frame.into_trailers(), *coding) {
                    self.finish_chunks(trailers);
                    *coding = Coding::Done;
                }
                Ok(())
            }
        }
    }

    fn push_data(&mut self, data: Bytes, coding: &mut Coding) -> Result<(), WrongLength> {
        let mut end: &'static [u8] = b"";
        match coding {
            Coding::Length(left) => *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?,
            Coding::Chunked => {
                hexadecimal(data.len(), &mut self.flat);
                end = b"\r\n";
            }
            Coding::Close => {}
            Coding::Done => return Err(WrongLength),
        }
        if data.len() <= SMALL {
            self.flat.reserve(data.len() + end.len());
            self.flat.put_slice(&data);
            self.flat.put_slice(end);
        } else {
            self.large = data;
            self.end = end;
        }
        Ok(())
    }

    /// Whether a body can be ended: not while the end of its last chunk alone is left.
    pub(super) fn has_room_for_end(&self) -> bool {
        !self.large.is_empty() || self.end.is_empty()
    }

    /// Ends a body. There must be room for it.
    pub(super) fn finish(&mut self, coding: &mut Coding) -> Result<(), WrongLength> {
        match std::mem::replace(coding, Coding::Done) {
            Coding::Length(0) | Coding::Close | Coding::Done => Ok(()),
            Coding::Length(_) => Err(WrongLength),
            Coding::Chunked if self.large.is_empty() => {
                self.flat.put_slice(b"0\r\n\r\n");
                Ok(())
            }
            Coding::Chunked => {
                self.end = b"\r\n0\r\n\r\n";
                Ok(())
            }
        }
    }

    fn finish_chunks(&mut self, mut trailers: HeaderMap) {
        self.flat.put_slice(b"0\r\n");
        let spelling = trailers.remove(SPELLING).map(|told| Spelling::from_value(&told));
        write_fields(&trailers, spelling.as_ref(), &mut self.flat);
        self.flat.put_slice(b"\r\n");
    }

    /// Writes all of it.
    pub(super) fn poll_flush<IO: AsyncWrite + Unpin>(
        &mut self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = ready!(self.poll_write(io, cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun = true;
            self.moved = true;
            self.unflushed = true;
            self.advance(written);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write<IO: AsyncWrite + Unpin>(
        &self,
        io: &mut IO,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let parts = [&*self.flat, &*self.large, self.end];
        let mut filled = parts.into_iter().filter(|part| !part.is_empty());
        let (first, more) = (filled.next().unwrap_or_default(), filled.next().is_some());
        if more && io.is_write_vectored() {
            return Pin::new(io).poll_write_vectored(cx, &parts.map(IoSlice::new));
        }
        Pin::new(io).poll_write(cx, first)
    }

    fn advance(&mut self, written: usize) {
        let flat = written.min(self.flat.len());
        self.flat.advance(flat);
        let large = (written - flat).min(self.large.len());
        self.large.advance(large);
        self.end = self.end.get(written - flat - large..).unwrap_or_default();
        if self.large.is_empty() {
            self.large = Bytes::new();
        }
        if self.flat.is_empty() {
            self.flat.clear();
        }
    }

    /// Gives back the room of what was written.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() && self.flat.capacity() > SMALL {
            self.flat = BytesMut::new();
        }
    }
}

/// Writes the first line of a chunk.
fn hexadecimal(length: usize, out: &mut BytesMut) {
    let mut digits = [0; 16];
    let mut left = length;
    let mut at = digits.len();
    while left > 0 || at == digits.len() {
        at -= 1;
        if let (Some(place), Some(digit)) = (digits.get_mut(at), char::from_digit((left % 16) as u32, 16)) {
            *place = digit as u8;
        }
        left /= 16;
    }
    out.reserve(length.min(SMALL) + 20);
    out.put_slice(digits.get(at..).unwrap_or_default());
    out.put_slice(b"\r\n");
}

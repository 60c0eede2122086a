//! Bytes read too early, put back in front of the stream they came from.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ENOUGH;

/// A stream whose first bytes have been looked at: reading gives them first, then the rest. Writing passes through.
#[derive(Debug)]
pub struct Prefixed<IO> {
    io: IO,
    bytes: [u8; ENOUGH],
    start: u8,
    end: u8,
}

impl<IO> Prefixed<IO> {
    /// The first `length` of `bytes`, then `io`.
    pub(super) fn new(bytes: [u8; ENOUGH], length: usize, io: IO) -> Self {
        Self { io, bytes, start: 0, end: length.min(ENOUGH) as u8 }
    }

    /// The stream behind, to ask it for what it knows (addresses, certificates). Not for reading.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }

    /// The first bytes that nobody has read yet.
    pub fn prefix(&self) -> &[u8] {
        self.bytes.get(self.start.into()..self.end.into()).unwrap_or_default()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Prefixed<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.start == this.end {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        }
        let prefix = this.prefix();
        let taken = prefix.len().min(buf.remaining());
        buf.put_slice(prefix.get(..taken).unwrap_or_default());
        this.start += taken as u8;
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Prefixed<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

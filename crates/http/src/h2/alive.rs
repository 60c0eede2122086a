//! Whether the peer of a connection is still there.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::h1::MAX_RECORD;
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// When a peer is asked whether it is there, and when it is given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// After how long a silence it is asked.
    pub(crate) silence: Duration,
    /// How long it then has to say anything.
    pub(crate) patience: Duration,
}

/// Asks a peer that is silent whether it is still there (RFC 9113, section 6.7).
pub(super) struct KeepAlive {
    pings: PingPong,
    terms: Terms,
    heard: Rc<Heard>,
    timer: Pin<Box<Sleep>>,
    asked: bool,
}

impl KeepAlive {
    /// Watches over the connection on an [`Ear`] that notes in `heard` what comes.
    pub(super) fn new(pings: PingPong, terms: Terms, heard: Rc<Heard>) -> Self {
        Self { pings, terms, heard, timer: Box::pin(sleep(terms.silence)), asked: false }
    }

    /// Ready once the peer has not answered. Asks only while it is `wanted`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, wanted: bool) -> Poll<()> {
        loop {
            if self.asked && matches!(self.pings.poll_pong(cx), Poll::Ready(Ok(_))) {
                self.asked = false;
                self.wait(self.terms.silence);
            }
            std::task::ready!(self.timer.as_mut().poll(cx));
            let heard = self.heard.any.replace(false);
            if self.asked && !heard {
                return Poll::Ready(());
            }
            // A ping that is still on its way back is not sent again.
            self.asked |= !heard && wanted && self.pings.send_ping(Ping::opaque()).is_ok();
            self.wait(if self.asked { self.terms.patience } else { self.terms.silence });
        }
    }

    fn wait(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }
}

/// How often something had been written to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u64);

/// What was heard of a peer, and whether anything was said to it.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Anything since this was last looked at.
    any: Cell<bool>,
    /// How many bytes of its first frame, which is its SETTINGS, are still to come; `None` while that is not known.
    greeting: Cell<Option<usize>>,
    /// The beginning of that frame: its length (RFC 9113, section 4.1).
    length: Cell<([u8; 3], usize)>,
    /// How often something was written to it, and whether something still waits to be.
    written: Cell<(u64, bool)>,
}

/// What precedes the payload of a frame.
const FRAME_HEAD: usize = 9;

impl Heard {
    /// Whether its SETTINGS have come.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeting.get() == Some(0)
    }

    /// What was written so far.
    pub(super) const fn mark(&self) -> Mark {
        Mark(self.written.get().0)
    }

    /// Whether not a byte was written since then, nor will be of what was put in before the connection ended.
    pub(super) const fn is_silent_since(&self, mark: Mark) -> bool {
        let (times, waits) = self.written.get();
        times == mark.0 && !waits
    }

    fn wrote(&self, bytes: usize, polled: &Poll<io::Result<usize>>) {
        let times = self.written.get().0;
        self.written.set(match polled {
            Poll::Pending => (times, true),
            Poll::Ready(Ok(_)) => (times + 1, false),
            Poll::Ready(Err(_)) => (times + u64::from(bytes > MAX_RECORD), false),
        });
    }

    fn note(&self, mut bytes: &[u8]) {
        self.any.set(true);
        while self.greeting.get().is_none()
            && let Some((&first, rest)) = bytes.split_first()
        {
            let (mut length, at) = self.length.get();
            if let Some(byte) = length.get_mut(at) {
                *byte = first;
            }
            self.length.set((length, at + 1));
            bytes = rest;
            if at + 1 == length.len() {
                let [a, b, c] = length;
                let payload = u32::from_be_bytes([0, a, b, c]) as usize;
                self.greeting.set(Some(FRAME_HEAD - length.len() + payload));
            }
        }
        self.greeting.set(self.greeting.get().map(|left| left.saturating_sub(bytes.len())));
    }
}

/// A connection's stream that notes when something comes or goes.
#[derive(Debug)]
pub(super) struct Ear<IO> {
    io: IO,
    heard: Rc<Heard>,
}

impl<IO> Ear<IO> {
    /// Listens to `io`. Also returns where it notes what it has heard.
    pub(super) fn new(io: IO) -> (Self, Rc<Heard>) {
        let heard = Rc::<Heard>::default();
        (Self { io, heard: heard.clone() }, heard)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Ear<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        this.heard.note(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Ear<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, buf);
        this.heard.wrote(buf.len(), &polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.heard.wrote(bufs.iter().map(|buf| buf.len()).sum(), &polled);
        polled
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_whole_when_its_last_byte_has_come() {
        // SETTINGS with one setting, then the beginning of another frame.
        let wire = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0];
        for part in 1..wire.len() {
            let heard = Heard::default();
            let mut sent = 0;
            for bytes in wire.chunks(part) {
                heard.note(bytes);
                sent += bytes.len();
                assert_eq!(heard.is_greeted(), sent >= 15, "after {sent} bytes, {part} at a time");
            }
        }
    }
}

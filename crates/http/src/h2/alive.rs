//! Whether the peer of a connection is still there.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

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
    heard: Rc<Cell<bool>>,
    timer: Pin<Box<Sleep>>,
    asked: bool,
}

impl KeepAlive {
    /// Watches over the connection on an [`Ear`] that notes in `heard` what comes.
    pub(super) fn new(pings: PingPong, terms: Terms, heard: Rc<Cell<bool>>) -> Self {
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
            let heard = self.heard.replace(false);
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

/// A connection's stream that notes when something comes.
#[derive(Debug)]
pub(super) struct Ear<IO> {
    io: IO,
    heard: Rc<Cell<bool>>,
}

impl<IO> Ear<IO> {
    /// Listens to `io`. Also returns where it notes that it has heard something.
    pub(super) fn new(io: IO) -> (Self, Rc<Cell<bool>>) {
        let heard = Rc::<Cell<bool>>::default();
        (Self { io, heard: heard.clone() }, heard)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Ear<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        if read.is_ready() {
            this.heard.set(true);
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Ear<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
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

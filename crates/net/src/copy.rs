//! Copying bytes both ways between two streams, each half closing on its own.
//!
//! A connection that waits holds no buffer: bytes are read into the stack and written from there, and only what the
//! other side does not take at once is put aside.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// The most that is read at once, and so the most that is put aside in each direction: one TLS record (RFC 8446, 5.1).
const PORTION: usize = 16 * 1024;

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

/// What was copied, and why it ended.
#[derive(Debug)]
pub struct Copied {
    /// Bytes read from A and taken by B.
    pub a_to_b: u64,
    /// Bytes read from B and taken by A.
    pub b_to_a: u64,
    /// The first error, and the stream that it came from. `None` if both halves closed, or if it was `idle`.
    pub error: Option<(Side, io::Error)>,
    /// Whether it ended because nothing moved for the idle time.
    pub idle: bool,
    /// Whether it ended because a stream could not be read any more: the other side did not get all of it.
    pub broken: bool,
}

/// Copies from A to B and from B to A until both ways are done.
///
/// The end of one stream is passed on by shutting down writing to the other, and the other way goes on. A stream that
/// cannot be read any more ends everything. A stream that cannot be written any more ends that way; what it still
/// has to say is delivered. With `idle`, it ends when no byte has moved either way for that long.
///
/// Give `&mut` streams to keep them: after an error the other side should see a reset, not an orderly end
/// (`TcpStream::set_zero_linger`), because it would take half an answer for a whole one.
pub async fn both<A, B>(mut a: A, mut b: B, idle: Option<Duration>) -> Copied
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let mut forth = Way::new(Side::A, Side::B);
    let mut back = Way::new(Side::B, Side::A);
    let mut watch = idle.map(Watch::new);
    let mut error = None;
    let idle = poll_fn(|cx| {
        let before = (forth.bytes, back.bytes);
        // Both are polled in any case: each has to leave its waker.
        for (side, failure) in
            [forth.poll(cx, &mut a, &mut b), back.poll(cx, &mut b, &mut a)].into_iter().flatten()
        {
            error.get_or_insert((side, failure));
        }
        let states = [forth.state, back.state];
        if states == [State::Done; 2] || states.contains(&State::Unreadable) {
            return Poll::Ready(false);
        }
        match &mut watch {
            Some(watch) => watch.poll(cx, before != (forth.bytes, back.bytes)).map(|()| true),
            None => Poll::Pending,
        }
    })
    .await;
    let broken = [forth.state, back.state].contains(&State::Unreadable);
    Copied { a_to_b: forth.bytes, b_to_a: back.bytes, error, idle, broken }
}

/// One direction.
struct Way {
    from: Side,
    to: Side,
    state: State,
    /// What has been read and not been taken, from `start` on.
    aside: Vec<u8>,
    start: usize,
    /// How many bytes have been taken.
    bytes: u64,
    /// Whether something was written since the last flush.
    unflushed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Copying,
    ShuttingDown,
    Done,
    Unreadable,
}

/// An error, and the side that it came from.
type Failure = (Side, io::Error);

impl Way {
    fn new(from: Side, to: Side) -> Self {
        Self { from, to, state: State::Copying, aside: Vec::new(), start: 0, bytes: 0, unflushed: false }
    }

    /// Goes as far as it can now. Leaves a waker unless it is at its end; an error is always its end.
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Option<Failure>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            match self.state {
                State::Copying => match self.portion(cx, from, to) {
                    Poll::Pending => return None,
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(Ok(false)) => self.state = State::ShuttingDown,
                    Poll::Ready(Err(failure)) => {
                        let unreadable = failure.0 == self.from;
                        self.state = if unreadable { State::Unreadable } else { State::Done };
                        return Some(failure);
                    }
                },
                State::ShuttingDown => {
                    let Poll::Ready(shut) = Pin::new(&mut *to).poll_shutdown(cx) else { return None };
                    self.state = State::Done;
                    // A peer that has gone needs no farewell, and if it went badly, reading from it says so.
                    let failed = shut.err().filter(|error| error.kind() != io::ErrorKind::NotConnected);
                    return failed.map(|error| (self.to, error));
                }
                State::Done | State::Unreadable => return None,
            }
        }
    }

    /// Moves what is aside, or else one portion; `false` at the end of the stream.
    fn portion<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<Result<bool, Failure>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while let Some(rest) = self.aside.get(self.start..).filter(|rest| !rest.is_empty()) {
            let taken = ready!(write(cx, to, rest)).map_err(|error| (self.to, error))?;
            self.start += taken;
            self.wrote(taken);
        }
        self.aside = Vec::new();
        let mut space = [const { MaybeUninit::uninit() }; PORTION];
        let mut portion = ReadBuf::uninit(&mut space);
        match Pin::new(from).poll_read(cx, &mut portion) {
            Poll::Ready(read) => read.map_err(|error| (self.from, error))?,
            Poll::Pending => {
                if self.unflushed {
                    ready!(Pin::new(to).poll_flush(cx)).map_err(|error| (self.to, error))?;
                    self.unflushed = false;
                }
                return Poll::Pending;
            }
        }
        let mut rest = portion.filled();
        let more = !rest.is_empty();
        while !rest.is_empty() {
            let Poll::Ready(taken) = write(cx, to, rest) else {
                self.aside = rest.to_vec();
                self.start = 0;
                return Poll::Pending;
            };
            let taken = taken.map_err(|error| (self.to, error))?;
            self.wrote(taken);
            rest = rest.get(taken..).unwrap_or_default();
        }
        Poll::Ready(Ok(more))
    }

    fn wrote(&mut self, taken: usize) {
        self.bytes += taken as u64;
        self.unflushed = true;
    }
}

/// Writes at least one byte, or fails.
fn write<W: AsyncWrite + Unpin>(cx: &mut Context<'_>, to: &mut W, bytes: &[u8]) -> Poll<io::Result<usize>> {
    Poll::Ready(match ready!(Pin::new(to).poll_write(cx, bytes)) {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        taken => taken,
    })
}

/// Notices when nothing moves. The timer is not set anew for each portion: when it fires too early, it is set to
/// what is left.
struct Watch {
    idle: Duration,
    moved: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Watch {
    fn new(idle: Duration) -> Self {
        Self { idle, moved: Instant::now(), timer: Box::pin(sleep(idle)) }
    }

    fn poll(&mut self, cx: &mut Context<'_>, moved: bool) -> Poll<()> {
        if moved {
            self.moved = Instant::now();
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.moved.elapsed() >= self.idle {
                return Poll::Ready(());
            }
            let due = self.moved + self.idle;
            self.timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests;

//! What is heard of the peer of a connection, as it comes in: whether there is anything, and which frames. `h2` reads
//! them; what it keeps to itself is noted here.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{DATA, HEAD, payload};
use crate::h1::MAX_RECORD;

/// The other types of frames that are told apart (RFC 9113, section 6).
const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;

/// What was heard of a peer.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Anything since this was last looked at.
    pub(super) any: Cell<bool>,
    /// Something of a message since this was last looked at.
    pub(super) message: Cell<bool>,
    /// Whether its first frame, which is its SETTINGS, has come.
    greeted: Cell<bool>,
    /// Whether it has said that it takes no more requests, without complaint.
    leaving: Cell<bool>,
    place: Cell<Place>,
    /// How often something was written to it, and whether something still waits to be.
    written: Cell<(u64, bool)>,
}

/// How often something had been written to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u64);

/// Where in its frames the stream of bytes is.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// The head of the frame, as far as it is there.
    head: [u8; HEAD],
    have: usize,
    /// How much of its payload is still to come.
    left: usize,
    /// The beginning of that of a GOAWAY: the last stream, then the code.
    last: [u8; 8],
    seen: usize,
}

impl Heard {
    /// Whether its SETTINGS have come.
    pub(super) const fn is_greeted(&self) -> bool {
        self.greeted.get()
    }

    /// Whether it has said in good order that it takes no more requests: GOAWAY, without an error (RFC 9113, section 6.8).
    pub(super) const fn is_leaving(&self) -> bool {
        self.leaving.get()
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
        let mut place = self.place.get();
        while !bytes.is_empty() {
            if place.have < HEAD {
                let taken = fill(&mut place.head, &mut place.have, bytes);
                bytes = bytes.get(taken..).unwrap_or_default();
                if place.have < HEAD {
                    break;
                }
                place.left = payload(&place.head);
                let [_, _, _, kind, ..] = place.head;
                if matches!(kind, DATA | HEADERS) {
                    self.message.set(true);
                }
            }
            let (some, rest) = bytes.split_at(place.left.min(bytes.len()));
            if place.head.get(3) == Some(&GOAWAY) {
                fill(&mut place.last, &mut place.seen, some);
            }
            place.left -= some.len();
            bytes = rest;
            if place.left == 0 {
                self.ended(&place);
                place = Place::default();
            }
        }
        self.place.set(place);
    }

    /// All of a frame has come.
    fn ended(&self, frame: &Place) {
        self.greeted.set(true);
        let [_, _, _, _, code @ ..] = frame.last;
        if frame.seen == frame.last.len() && code == [0; 4] {
            self.leaving.set(true);
        }
    }
}

/// Copies as much as there is room for; how much that is.
fn fill(room: &mut [u8], have: &mut usize, bytes: &[u8]) -> usize {
    let room = room.get_mut(*have..).unwrap_or_default();
    let taken = room.len().min(bytes.len());
    room.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    *have += taken;
    taken
}

/// A connection's stream that notes what comes.
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

    /// SETTINGS with one setting.
    const SETTINGS: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1];
    /// The first phase of a graceful end.
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
    /// HEADERS of one field.
    const HEADERS: [u8; 10] = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];

    /// What is known after how many bytes, with so many at a time.
    fn follow(wire: &[u8], part: usize, mut check: impl FnMut(&Heard, usize)) {
        let heard = Heard::default();
        let mut sent = 0;
        for bytes in wire.chunks(part) {
            heard.note(bytes);
            sent += bytes.len();
            check(&heard, sent);
        }
    }

    #[test]
    fn frames_are_told_apart_however_they_come() {
        let wire = [&SETTINGS[..], &HEADERS, &GOAWAY].concat();
        for part in 1..=wire.len() {
            follow(&wire, part, |heard, sent| {
                assert_eq!(heard.is_greeted(), sent >= 15, "after {sent} bytes, {part} at a time");
                assert_eq!(heard.message.get(), sent >= 24, "after {sent} bytes, {part} at a time");
                assert_eq!(heard.is_leaving(), sent >= 42, "after {sent} bytes, {part} at a time");
            });
        }
    }

    #[test]
    fn a_complaint_is_no_leave() {
        let mut wire = [&SETTINGS[..], &GOAWAY].concat();
        // ENHANCE_YOUR_CALM
        wire[31] = 11;
        follow(&wire, 7, |heard, _| assert!(!heard.is_leaving()));
    }
}

//! What a server sends, without its frames of nothing.
//!
//! `h2` ends a connection, and with it all requests on it, at the 101st empty frame of DATA that is not its stream's last
//! one, however long it took to get there, and cannot be told otherwise. Servers of gRPC that are
//! built on nghttp2 (Node.js), among others, send one with each response that has trailers. Such frames say nothing:
//! here they are taken out before they are counted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{DATA, HEAD, payload};

/// The flags of DATA that say that it is more than nothing (RFC 9113, section 6.1).
const END_STREAM_OR_PADDED: u8 = 0x1 | 0x8;

/// A connection's stream from a server, without empty frames of DATA.
#[derive(Debug)]
pub(super) struct Sieve<IO> {
    io: IO,
    /// How many bytes of the payload of the frame that was begun are still to come.
    payload: usize,
    /// The beginning of a frame's head, whose rest has not come.
    head: Few,
    /// A head that is to be handed on.
    out: Few,
}

/// A part of a frame's head.
#[derive(Debug, Default)]
struct Few {
    bytes: [u8; HEAD],
    from: usize,
    to: usize,
}

impl Few {
    fn of(from: &[u8]) -> Self {
        let mut few = Self::default();
        for (place, byte) in few.bytes.iter_mut().zip(from) {
            *place = *byte;
            few.to += 1;
        }
        few
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.from..self.to).unwrap_or_default()
    }
}

impl<IO> Sieve<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self { io, payload: 0, head: Few::default(), out: Few::default() }
    }

    /// Takes the empty frames out of `bytes`, and a head at the end that is not whole. Answers how many bytes are left.
    fn sift(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut kept) = (0, 0);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let mut length = rest.len().min(self.payload);
            self.payload -= length;
            if length == 0 {
                let Some(head) = rest.first_chunk::<HEAD>() else {
                    self.head = Few::of(rest);
                    break;
                };
                if is_nothing(head) {
                    at += HEAD;
                    continue;
                }
                (length, self.payload) = (HEAD, payload(head));
            }
            if kept != at {
                bytes.copy_within(at..at + length, kept);
            }
            (at, kept) = (at + length, kept + length);
        }
        kept
    }
}

/// Whether a frame is of DATA, of a stream, has no byte, and is not its stream's last.
fn is_nothing(head: &[u8; HEAD]) -> bool {
    let [_, _, _, kind, flags, stream @ ..] = head;
    payload(head) == 0 && *kind == DATA && flags & END_STREAM_OR_PADDED == 0 && *stream != [0; 4]
}

impl<IO: AsyncRead + Unpin> Sieve<IO> {
    /// Completes a head that was begun. Ready with whether there was more.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut bytes = [0; HEAD];
        let begun = self.head.to;
        bytes[..begun].copy_from_slice(self.head.rest());
        let mut buf = ReadBuf::new(&mut bytes);
        buf.advance(begun);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
        let come = buf.filled().len();
        if come == begun {
            self.out = std::mem::take(&mut self.head);
        } else if come < HEAD {
            self.head = Few::of(&bytes[..come]);
        } else {
            self.head = Few::default();
            if !is_nothing(&bytes) {
                self.payload = payload(&bytes);
                self.out = Few::of(&bytes);
            }
        }
        Poll::Ready(Ok(come > begun))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Sieve<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let rest = this.out.rest();
            if !rest.is_empty() {
                let some = rest.len().min(buf.remaining());
                buf.put_slice(&rest[..some]);
                this.out.from += some;
                return Poll::Ready(Ok(()));
            }
            if this.head.to > 0 {
                ready!(this.poll_head(cx))?;
                continue;
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            let come = &mut buf.filled_mut()[before..];
            if come.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let kept = this.sift(come);
            buf.set_filled(before + kept);
            if kept > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Sieve<IO> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// Gives what it has in parts of a size.
    struct Parts(Vec<u8>, usize);

    impl AsyncRead for Parts {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let some = self.1.min(self.0.len()).min(buf.remaining());
            let rest = self.0.split_off(some);
            buf.put_slice(&std::mem::replace(&mut self.0, rest));
            Poll::Ready(Ok(()))
        }
    }

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let head = [0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
        [&head[..], payload].concat()
    }

    #[tokio::test]
    async fn nothing_but_nothing_is_taken_out() {
        let nothing = || frame(DATA, 0, 3, b"");
        let kept = [
            frame(4, 0, 0, b""),
            frame(DATA, 0, 1, b"\0\0\0\0\0\0\0\0\x01\0\0"),
            frame(DATA, 1, 1, b""),
            frame(DATA, 8, 1, b"\0"),
            frame(DATA, 0, 0, b""),
            frame(1, 5, 3, b"fields"),
        ];
        let mut sent = [nothing(), nothing()].concat();
        for frame in &kept {
            sent.extend([frame.clone(), nothing(), nothing()].concat());
        }
        // A last one that is not whole is handed on as it is.
        sent.extend([0, 0, 0]);
        let expected = [kept.concat(), vec![0, 0, 0]].concat();
        for part in 1..=sent.len() {
            for room in [1, 2, 5, 8, 9, 10, 100] {
                let came = sifted(sent.clone(), part, room).await;
                assert_eq!(came, expected, "{part} at a time, with room for {room}");
            }
        }
    }

    /// All that comes out of what comes in parts of a size, read with so much room.
    async fn sifted(sent: Vec<u8>, part: usize, room: usize) -> Vec<u8> {
        let mut sieve = Sieve::new(Parts(sent, part));
        let (mut came, mut some) = (Vec::new(), vec![0; room]);
        loop {
            match sieve.read(&mut some).await.unwrap() {
                0 => return came,
                read => came.extend_from_slice(&some[..read]),
            }
        }
    }

    prop_compose! {
        /// A frame of any type, with any flags, of any stream; often one that is nothing.
        fn any_frame()(
            kind in prop_oneof![Just(DATA), 0..11_u8, any::<u8>()],
            flags in prop_oneof![Just(0), any::<u8>()],
            stream in prop_oneof![Just([0, 0, 0, 1]), any::<[u8; 4]>()],
            payload in prop_oneof![
                Just(Vec::new()),
                prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..300),
                Just(vec![0; 3_000]),
            ],
        ) -> Vec<u8> {
            let length = (payload.len() as u32).to_be_bytes();
            [&length[1..], &[kind, flags], &stream, &payload].concat()
        }
    }

    proptest! {
        #[test]
        fn of_any_frames_those_are_left_that_say_something(
            frames in prop::collection::vec(any_frame(), 0..12),
            cut in 0..9_usize,
            part in 1..40_usize,
            room in 1..40_usize,
        ) {
            // Their reader ends where it likes.
            let rest = vec![0; cut];
            let sent = [frames.concat(), rest.clone()].concat();
            let left = frames.into_iter().filter(|frame| frame.first_chunk().is_none_or(|head| !is_nothing(head)));
            let expected = [left.collect::<Vec<_>>().concat(), rest].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert_eq!(runtime.block_on(sifted(sent, part * part, room * room)), expected);
        }
    }
}

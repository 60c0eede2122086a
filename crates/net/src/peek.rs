//! Looking at the first bytes of a TCP connection without taking them.
//!
//! A socket with unread bytes stays readable, so waiting for *more* of them with readiness alone spins. The wait here
//! raises the socket's low-water mark (`SO_RCVLOWAT`, socket(7)) to one byte more than has been seen: the kernel
//! wakes when a further byte, the end of the stream or an error is there, and never in between.

use std::io;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// What came of looking.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Peeked<T> {
    /// The bytes were enough.
    Decided(T),
    /// They were not, and there will be no more: the stream ended (`closed`), the buffer is full, or time is up.
    Undecided {
        /// How many bytes there are to read.
        bytes: usize,
        /// Whether the peer has closed its half.
        closed: bool,
    },
}

/// Peeks until `decide` answers, at most `buffer.len()` bytes and for at most `timeout`.
///
/// `decide` sees everything from the first byte on, again each time that more has come, and never an empty slice.
/// Nothing is consumed, and the socket is left as it was, also when this future is dropped.
pub(crate) async fn until<T>(
    stream: &TcpStream,
    buffer: &mut [u8],
    timeout: Duration,
    mut decide: impl FnMut(&[u8]) -> Option<T>,
) -> io::Result<Peeked<T>> {
    let mut mark = LowWater { stream, raised: false };
    let mut bytes = 0;
    let looking = async {
        loop {
            let ready = stream.ready(Interest::READABLE).await?;
            let looked = stream.try_io(Interest::READABLE, || {
                bytes = recv(stream, &mut *buffer, RecvFlags::PEEK)?.0;
                if bytes == 0 {
                    return Ok(Peeked::Undecided { bytes, closed: true });
                }
                let seen = buffer.get(..bytes).unwrap_or_default();
                if let Some(answer) = decide(seen) {
                    return Ok(Peeked::Decided(answer));
                }
                if ready.is_read_closed() || bytes == buffer.len() {
                    return Ok(Peeked::Undecided { bytes, closed: ready.is_read_closed() });
                }
                mark.raise(bytes + 1)?;
                // Said inside `try_io`, this clears the readiness that tokio has noted, so that `ready` waits.
                Err(io::ErrorKind::WouldBlock.into())
            });
            match looked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    };
    match tokio::time::timeout(timeout, looking).await {
        Ok(looked) => looked,
        Err(_) => Ok(Peeked::Undecided { bytes, closed: false }),
    }
}

/// Puts the low-water mark back when the looking is over, however it ends; the kernel then reports what is unread
/// once more, so the next reader does not wait for bytes that are already there.
struct LowWater<'a> {
    stream: &'a TcpStream,
    raised: bool,
}

impl LowWater<'_> {
    fn raise(&mut self, bytes: usize) -> io::Result<()> {
        self.raised = true;
        set_low_water(self.stream, bytes)
    }
}

impl Drop for LowWater<'_> {
    fn drop(&mut self) {
        if self.raised {
            // Cannot fail on an open socket, and there is nobody to tell.
            let _ = set_low_water(self.stream, 1);
        }
    }
}

#[allow(unsafe_code, reason = "neither socket2 nor rustix offers SO_RCVLOWAT")]
fn set_low_water(stream: &TcpStream, bytes: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open for as long as `stream` is borrowed, and the kernel reads exactly the
    // `c_int` behind the pointer, which outlives the call.
    let answer = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

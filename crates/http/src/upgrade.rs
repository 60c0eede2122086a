//! A connection that both sides agreed to use for something else (RFC 9110, sections 7.8 and 9.3.6).

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use outrigger_net::copy::{Copied, both};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// One side of such a connection: what was read of it already, then all that follows.
pub struct Tunnel {
    before: Bytes,
    io: Box<dyn Io>,
}

/// What a tunnel is made of. Boxed, for upgrades are rare beside requests.
trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("before", &self.before.len()).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// A tunnel of which `before` was read already.
    pub fn new(before: Bytes, io: impl AsyncRead + AsyncWrite + Unpin + 'static) -> Self {
        Self { before, io: Box::new(io) }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.before.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let length = self.before.len().min(buf.remaining());
        buf.put_slice(&self.before.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// One side of a connection, once its messages are out of the way. Ends with `None` if that never happens.
#[derive(Debug)]
pub struct OnUpgrade(oneshot::Receiver<Tunnel>);

impl OnUpgrade {
    /// What is sent once it is there.
    pub(crate) fn pair() -> (oneshot::Sender<Tunnel>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(receiver))
    }
}

impl Future for OnUpgrade {
    type Output = Option<Tunnel>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Tunnel>> {
        Pin::new(&mut self.0).poll(cx).map(Result::ok)
    }
}

/// Waits for both sides of an upgrade, and copies until both have closed, or nothing has moved for the `idle` time. `None`
/// if one of them never came.
pub async fn relay(caller: OnUpgrade, callee: OnUpgrade, idle: Option<Duration>) -> Option<Copied> {
    let (caller, callee) = tokio::join!(caller, callee);
    Some(both(caller?, callee?, idle).await)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::serve::Settings;

    fn side() -> (DuplexStream, OnUpgrade) {
        let (far, near) = duplex(64);
        let (there, upgrade) = OnUpgrade::pair();
        there.send(Tunnel::new(Bytes::new(), near)).unwrap();
        (far, upgrade)
    }

    #[tokio::test(start_paused = true)]
    async fn a_websocket_that_is_silent_for_half_an_hour_is_kept_and_one_that_is_lost_is_not() {
        let ((mut caller, a), (mut callee, b)) = (side(), side());
        let story = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_mins(30)).await;
                caller.write_all(b"ping").await.unwrap();
                let mut heard = [0; 4];
                callee.read_exact(&mut heard).await.unwrap();
                assert_eq!(&heard, b"ping");
            }
            tokio::time::Instant::now()
        };
        let (copied, heard) = tokio::join!(relay(a, b, Settings::default().stream_timeout), story);
        let copied = copied.unwrap();
        assert!(copied.idle && copied.a_to_b == 12, "{copied:?}");
        assert_eq!(heard.elapsed(), Duration::from_hours(1));
    }
}

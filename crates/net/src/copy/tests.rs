use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::net::{TcpListener, TcpStream};

use super::{Side, both};

/// Two ends of users, and the two ends of the proxy between them.
fn ends(buffer: usize) -> (DuplexStream, DuplexStream, DuplexStream, DuplexStream) {
    let (caller, a) = duplex(buffer);
    let (b, callee) = duplex(buffer);
    (caller, a, b, callee)
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let (caller, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (caller.unwrap(), accepted.unwrap().0)
}

#[tokio::test]
async fn each_half_closes_on_its_own() {
    let (mut caller, a, b, mut callee) = ends(64);
    let copying = tokio::spawn(both(a, b, None));
    caller.write_all(b"question").await.unwrap();
    caller.shutdown().await.unwrap();
    let mut question = String::new();
    callee.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");
    // The way back is still open.
    callee.write_all(b"a longer answer").await.unwrap();
    callee.shutdown().await.unwrap();
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "a longer answer");
    let copied = copying.await.unwrap();
    assert_eq!((copied.a_to_b, copied.b_to_a, copied.idle), (8, 15, false));
    assert!(copied.error.is_none());
}

/// More than fits anywhere, against a reader that takes a little at a time: nothing lost, nothing reordered.
#[tokio::test]
async fn a_slow_reader_gets_everything_in_order() {
    let (caller, proxy_a) = pair().await;
    let (proxy_b, callee) = pair().await;
    let copying = tokio::spawn(both(proxy_a, proxy_b, None));
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let sending = async {
        let (mut from, mut to) = caller.into_split();
        let echo = tokio::spawn(async move {
            let mut echo = Vec::new();
            from.read_to_end(&mut echo).await.unwrap();
            echo
        });
        to.write_all(&bytes).await.unwrap();
        drop(to);
        echo.await.unwrap()
    };
    let echoing = async {
        let (mut from, mut to) = callee.into_split();
        let mut portion = vec![0; 70_001];
        loop {
            let read = from.read(&mut portion).await.unwrap();
            if read == 0 {
                break;
            }
            to.write_all(&portion[..read]).await.unwrap();
        }
    };
    let (echo, ()) = tokio::join!(sending, echoing);
    assert!(echo == bytes);
    let copied = copying.await.unwrap();
    assert_eq!((copied.a_to_b, copied.b_to_a), (12_000_000, 12_000_000));
    assert!(copied.error.is_none());
}

#[tokio::test]
async fn a_reset_is_an_error_of_its_side_and_ends_both_ways() {
    let (caller, mut a) = pair().await;
    let (b, _callee) = pair().await;
    caller.set_zero_linger().unwrap();
    drop(caller);
    let copied = both(&mut a, b, None).await;
    let (side, error) = copied.error.unwrap();
    assert_eq!((side, error.kind()), (Side::A, io::ErrorKind::ConnectionReset));
}

/// A stream that takes nothing more, while what its peer said can still be read.
struct Deaf(DuplexStream);

impl AsyncRead for Deaf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_cannot_be_written_any_more_can_still_be_read() {
    let (mut caller, a, b, mut callee) = ends(4);
    let copying = tokio::spawn(both(a, Deaf(b), None));
    caller.write_all(b"ask").await.unwrap();
    let answering = tokio::spawn(async move {
        callee.write_all(b"an early answer").await.unwrap();
        callee.shutdown().await.unwrap();
    });
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "an early answer");
    answering.await.unwrap();
    let copied = copying.await.unwrap();
    assert_eq!((copied.a_to_b, copied.b_to_a), (0, 15));
    let (side, error) = copied.error.unwrap();
    assert_eq!((side, error.kind()), (Side::B, io::ErrorKind::BrokenPipe));
}

#[tokio::test(start_paused = true)]
async fn idleness_ends_it_and_any_movement_puts_that_off() {
    let (mut caller, a, b, mut callee) = ends(64);
    let start = tokio::time::Instant::now();
    let copying = tokio::spawn(both(a, b, Some(Duration::from_secs(10))));
    let mut byte = [0];
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        callee.write_all(b"x").await.unwrap();
        caller.read_exact(&mut byte).await.unwrap();
    }
    let copied = copying.await.unwrap();
    assert!(copied.idle && copied.error.is_none());
    assert_eq!(start.elapsed().as_secs(), 37);
}

#[test]
fn a_waiting_connection_is_small() {
    let (_, a, b, _) = ends(1);
    let copying = both(a, b, Some(Duration::from_secs(1)));
    assert!(size_of_val(&copying) <= 512, "{} bytes", size_of_val(&copying));
}

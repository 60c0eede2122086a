//! What a silent peer is asked, and how often: by a clock that is wound forward. And how often is written.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::uri::Scheme;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::{Callee, Connection, handshake};
use crate::body::{Incoming, RequestBody, Upload};
use crate::h1::Limits;
use crate::message::{Interim, Outgoing};

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;

const MINUTE: Duration = Duration::from_mins(1);

/// What a peer does with what it gets.
#[derive(Debug, Clone, Copy)]
struct Peer {
    /// After how long it answers a request.
    answers: Duration,
    /// Whether it says that it is there.
    alive: bool,
}

fn frame(kind: u8, flags: u8, stream: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream, payload].concat()
}

/// Speaks HTTP/2 by hand. Returns when it was asked whether it is there.
async fn peer(mut stream: DuplexStream, peer: Peer, pings: Rc<Cell<Vec<Instant>>>) {
    stream.write_all(&frame(SETTINGS, 0, [0; 4], &[])).await.unwrap();
    stream.read_exact(&mut [0; 24]).await.unwrap();
    let mut due: Option<(Instant, [u8; 4])> = None;
    loop {
        let mut head = [0; 9];
        let answer = async {
            match due {
                Some((at, stream)) => {
                    tokio::time::sleep_until(at).await;
                    stream
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            id = answer => {
                due = None;
                stream.write_all(&frame(HEADERS, 5, id, &[0x88])).await.unwrap();
                continue;
            }
            read = stream.read_exact(&mut head) => if read.is_err() { return },
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        match (head[3], head[4]) {
            (HEADERS, _) => due = Some((Instant::now() + peer.answers, head[5..9].try_into().unwrap())),
            (SETTINGS, 0) => stream.write_all(&frame(SETTINGS, ACK, [0; 4], &[])).await.unwrap(),
            (PING, 0) => {
                let mut asked = pings.take();
                asked.push(Instant::now());
                pings.set(asked);
                if peer.alive {
                    stream.write_all(&frame(PING, ACK, [0; 4], &payload)).await.unwrap();
                }
            }
            _ => {}
        }
    }
}

/// Has a connection to a peer; and when that was asked whether it is there, as times after the beginning.
async fn connection(sidecar: bool, to: Peer) -> (Connection, Rc<Cell<Vec<Instant>>>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let pings = Rc::<Cell<Vec<Instant>>>::default();
    spawn_local(peer(far, to, pings.clone()));
    let (connection, driver) = handshake(near, callee(sidecar)).await.unwrap();
    spawn_local(driver);
    (connection, pings)
}

fn callee(sidecar: bool) -> Callee {
    Callee {
        scheme: Scheme::HTTP,
        carried: false,
        sidecar,
        streams: Rc::new(Cell::new(usize::MAX)),
        expires: None,
        room: None,
    }
}

/// Whether a request is answered.
async fn ask(connection: &Connection) -> bool {
    let request = Request::get("http://shop/").body(RequestBody::Empty).unwrap();
    let mut slot = Some(Outgoing { request, spelling: None, interim: Interim::default() });
    let _under_way = connection.begin();
    connection.send(&mut slot, Limits::default(), false).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn an_application_that_takes_long_is_asked_as_seldom_as_grpc_servers_want() {
    let story = async {
        let to = Peer { answers: 21 * MINUTE, alive: true };
        let (connection, pings) = connection(false, to).await;
        assert!(ask(&connection).await);
        let asked = pings.take();
        // The first is free; two strikes are borne, the third ends the connection.
        let strikes = asked.windows(2).filter(|pair| pair[1] - pair[0] < 5 * MINUTE).count();
        assert!(strikes == 0 && (3..=5).contains(&asked.len()), "{asked:?}");
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_while_nothing_is_under_way_or_answers_come() {
    let story = async {
        for sidecar in [false, true] {
            let to = Peer { answers: Duration::from_secs(9), alive: true };
            let (connection, pings) = connection(sidecar, to).await;
            for _ in 0..20 {
                assert!(ask(&connection).await);
                sleep(Duration::from_secs(47)).await;
            }
            assert_eq!(pings.take(), []);
        }
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_sidecar_is_asked_every_ten_seconds() {
    let story = async {
        let (connection, pings) = connection(true, Peer { answers: 2 * MINUTE, alive: true }).await;
        assert!(ask(&connection).await);
        let asked = pings.take().len();
        assert!((5..=12).contains(&asked), "{asked}");
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_gone_is_found_within_half_a_minute() {
    let story = async {
        for sidecar in [false, true] {
            let (connection, _) = connection(sidecar, Peer { answers: 60 * MINUTE, alive: false }).await;
            sleep(3 * MINUTE).await;
            let begun = Instant::now();
            assert!(!ask(&connection).await);
            assert!(begun.elapsed() <= Duration::from_secs(30), "{:?}", begun.elapsed());
        }
    };
    LocalSet::new().run_until(story).await;
}

/// Counts how often is written.
struct Counted(DuplexStream, Rc<Cell<usize>>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.1.set(self.1.get() + 1);
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_and_its_small_body_are_one_write() {
    let story = async {
        let ((near, far), writes) = (tokio::io::duplex(64 * 1024), Rc::<Cell<usize>>::default());
        spawn_local(peer(far, Peer { answers: MINUTE, alive: true }, Rc::default()));
        let (connection, driver) = handshake(Counted(near, writes.clone()), callee(true)).await.unwrap();
        spawn_local(driver);
        // Until both have greeted each other.
        sleep(Duration::from_secs(1)).await;
        writes.set(0);
        let body = futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"hello")))]);
        let upload = Upload::new(Incoming::changed(StreamBody::new(body)), 0);
        let request = Request::post("http://shop/").body(upload.attempt().unwrap()).unwrap();
        let mut slot = Some(Outgoing { request, spelling: None, interim: Interim::default() });
        let sent = connection.send(&mut slot, Limits::default(), false);
        assert!(timeout(Duration::from_secs(1), sent).await.is_err(), "its answer takes longer");
        assert_eq!((writes.get(), upload.bytes()), (1, 5));
    };
    LocalSet::new().run_until(story).await;
}

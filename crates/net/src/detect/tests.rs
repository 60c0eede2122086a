use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{Detected, ENOUGH, PREFACE, Prefixed, decide, tcp};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(20);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let (caller, accepted) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    let (caller, accepted) = (caller.unwrap(), accepted.unwrap().0);
    caller.set_nodelay(true).unwrap();
    (caller, accepted)
}

#[test]
fn tells_protocols_apart() {
    for (bytes, expected) in [
        (&b"GET / HTTP/1.1\r\n"[..], Detected::Http1),
        (b"GET /", Detected::Http1),
        (b"\r\nGET /", Detected::Http1),
        (b"PROPFIND /dav HTTP/1.1", Detected::Http1),
        (b"x-own!method /", Detected::Http1),
        (b"OPTIONS * HTTP/1.1", Detected::Http1),
        (b"CONNECT example.org:443 HTTP/1.1", Detected::Http1),
        (b"GET http://example.org/ HTTP/1.1", Detected::Http1),
        (b"GET HTTPS://example.org/ HTTP/1.1", Detected::Http1),
        (b"PRI /not-a-preface HTTP/1.1", Detected::Http1),
        (b"UPDATEREDIRECTREFUPDATEREDIRECTR /", Detected::Http1),
        (PREFACE, Detected::Http2),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04", Detected::Http2),
        (b"\x16\x03", Detected::Tls),
        (b"\x16\x03\x01\x02\x00\x01", Detected::Tls),
        (b"\x16\x04", Detected::Opaque),
        (b"\0\0\0\x08\x04\xd2\x16\x2f", Detected::Opaque), // PostgreSQL's SSLRequest
        (b"*1\r\n$4\r\nPING\r\n", Detected::Opaque),       // Redis
        (b"SET key value\r\n", Detected::Opaque),
        (b"EHLO example.org\r\n", Detected::Opaque),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Detected::Opaque),
        (b"GET  / HTTP/1.1", Detected::Opaque),
        (b" GET / HTTP/1.1", Detected::Opaque),
        (b"GET ftp://example.org", Detected::Opaque),
        (b"UPDATEREDIRECTREFUPDATEREDIRECTRE", Detected::Opaque),
    ] {
        assert_eq!(decide(bytes), Some(expected), "{}", bytes.escape_ascii());
    }
}

#[test]
fn waits_for_as_much_as_it_needs() {
    for bytes in
        [&b""[..], b"\x16", b"G", b"GET", b"GET ", b"GET https:/", b"OPTIONS *", b"P", b"\r", b"\r\n"]
    {
        assert_eq!(decide(bytes), None, "{}", bytes.escape_ascii());
    }
    assert_eq!(decide(&PREFACE[..PREFACE.len() - 1]), None);
}

proptest! {
    #[test]
    fn an_answer_comes_in_time_and_stays(bytes in prop_oneof![
        proptest::collection::vec(any::<u8>(), ENOUGH..100),
        "(\r\n)?(GET|CONNECT|PRI|[A-Z-]{1,34}) ?(/|\\*|https?://|[a-z]{0,9})[ -~]{43}".prop_map(String::into_bytes),
    ]) {
        let answers: Vec<_> = (0..=bytes.len()).map(|length| decide(&bytes[..length])).collect();
        let first = answers.iter().position(Option::is_some).expect("an answer");
        prop_assert!(first <= ENOUGH);
        prop_assert!(answers[first..].iter().all(|answer| *answer == answers[first]));
    }
}

#[tokio::test]
async fn peeks_and_leaves_every_byte() {
    let (mut caller, mut accepted) = pair().await;
    caller.write_all(b"GET /a HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(tcp(&accepted, LONG).await.unwrap(), Detected::Http1);
    assert_eq!(tcp(&accepted, LONG).await.unwrap(), Detected::Http1);
    drop(caller);
    let mut all = String::new();
    accepted.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "GET /a HTTP/1.1\r\n\r\n");
}

/// A detection that runs, and how often it was polled.
struct Looking {
    task: JoinHandle<io::Result<Detected>>,
    polls: Arc<AtomicUsize>,
}

impl Looking {
    fn at(stream: TcpStream) -> Self {
        let polls = Arc::new(AtomicUsize::new(0));
        let count = polls.clone();
        let task = tokio::spawn(async move {
            let mut looking = pin!(tcp(&stream, LONG));
            std::future::poll_fn(|cx| {
                count.fetch_add(1, Ordering::Relaxed);
                looking.as_mut().poll(cx)
            })
            .await
        });
        Self { task, polls }
    }

    fn polls(&self) -> usize {
        self.polls.load(Ordering::Relaxed)
    }

    /// Waits until it has looked once more.
    async fn looked(&self, before: usize) {
        while self.polls() == before {
            tokio::task::yield_now().await;
        }
    }
}

/// While the rest is held back, looking must sleep: it wakes once per portion, not over and over.
#[tokio::test]
async fn a_preface_in_portions_wakes_once_each() {
    let (mut caller, accepted) = pair().await;
    let looking = Looking::at(accepted);
    looking.looked(0).await;
    for portion in PREFACE.chunks(6) {
        let before = looking.polls();
        caller.write_all(portion).await.unwrap();
        looking.looked(before).await;
        // Many turns of the runtime and of its I/O driver, in which a busy loop would show.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(looking.polls(), before + 1);
    }
    assert_eq!(looking.task.await.unwrap().unwrap(), Detected::Http2);
}

#[tokio::test]
async fn an_end_after_too_few_bytes_is_noticed() {
    let (mut caller, accepted) = pair().await;
    let looking = Looking::at(accepted);
    looking.looked(0).await;
    let before = looking.polls();
    caller.write_all(b"GE").await.unwrap();
    looking.looked(before).await;
    caller.shutdown().await.unwrap();
    assert_eq!(looking.task.await.unwrap().unwrap(), Detected::Opaque);
}

#[tokio::test]
async fn after_a_timeout_the_next_reader_gets_what_is_there() {
    let (mut caller, mut accepted) = pair().await;
    assert_eq!(tcp(&accepted, SHORT).await.unwrap(), Detected::Silent);
    caller.write_all(b"PRI * ").await.unwrap();
    assert_eq!(tcp(&accepted, SHORT).await.unwrap(), Detected::Opaque);
    let mut bytes = [0; 6];
    tokio::time::timeout(LONG, accepted.read_exact(&mut bytes)).await.expect("woken for old bytes").unwrap();
    assert_eq!(&bytes, b"PRI * ");
}

#[tokio::test]
async fn dropped_while_it_waits_it_leaves_the_socket_as_it_was() {
    let (mut caller, mut accepted) = pair().await;
    caller.write_all(b"PRI * ").await.unwrap();
    {
        let looking = tcp(&accepted, LONG);
        assert!(tokio::time::timeout(SHORT, looking).await.is_err());
    }
    let mut bytes = [0; 6];
    tokio::time::timeout(LONG, accepted.read_exact(&mut bytes)).await.expect("woken for old bytes").unwrap();
}

#[tokio::test]
async fn an_end_decides() {
    let (caller, accepted) = pair().await;
    drop(caller);
    assert_eq!(tcp(&accepted, LONG).await.unwrap(), Detected::Closed);

    let (caller, accepted) = pair().await;
    caller.set_zero_linger().unwrap();
    drop(caller);
    assert_eq!(tcp(&accepted, LONG).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn inside_a_stream_the_bytes_are_given_back() {
    let (mut caller, accepted) = duplex(7);
    let message = [PREFACE, b"settings and more"].concat();
    let sending = async {
        caller.write_all(&message).await.unwrap();
        caller.shutdown().await.unwrap();
        let mut answer = String::new();
        caller.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let serving = async {
        let (detected, mut stream): (_, Prefixed<_>) = super::io(accepted, LONG).await.unwrap();
        assert!(message.starts_with(stream.prefix()));
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(b"answer").await.unwrap();
        (detected, all)
    };
    let (answer, (detected, all)) = tokio::join!(sending, serving);
    assert_eq!((answer.as_str(), detected), ("answer", Detected::Http2));
    assert_eq!(all, message);
}

#[tokio::test(start_paused = true)]
async fn inside_a_stream_silence_ends_and_loses_nothing() {
    let (mut caller, accepted) = duplex(64);
    let (detected, stream) = super::io(accepted, SHORT).await.unwrap();
    assert_eq!(detected, Detected::Silent);
    caller.write_all(b"GET").await.unwrap();
    let (detected, mut stream) = super::io(stream, SHORT).await.unwrap();
    assert_eq!(detected, Detected::Opaque);
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!((&bytes, stream.prefix()), (b"GE", &b"T"[..]));

    let (caller, accepted) = duplex(64);
    drop(caller);
    assert_eq!(super::io(accepted, LONG).await.unwrap().0, Detected::Closed);
}

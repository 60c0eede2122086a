//! What an HTTP/2 backend says that it has not processed (RFC 9113, sections 6.8 and 8.7), frame by frame.

use outrigger_testkit::app::App;
use tokio::net::TcpListener;

use crate::support::{Message, Running, Wire, listen, one_backend, with_rule};

const HEADERS: u8 = 1;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Error codes.
const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;

/// A backend's end of a connection of HTTP/2.
struct Http2 {
    wire: Wire,
    /// Whether the proxy has taken up the settings.
    acknowledged: bool,
}

impl Http2 {
    async fn accept(listener: &TcpListener) -> Self {
        Self::accept_with(listener, &[]).await
    }

    async fn accept_with(listener: &TcpListener, settings: &[u8]) -> Self {
        let mut wire = Wire::accept(listener).await;
        assert_eq!(wire.exactly(24).await, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut this = Self { wire, acknowledged: false };
        this.send(SETTINGS, 0, 0, settings).await;
        this
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.wire.send(frame).await;
    }

    /// The stream of the next request, once all of it is there.
    async fn request(&mut self) -> u32 {
        loop {
            let (kind, flags, stream) = self.frame().await;
            if [HEADERS, DATA].contains(&kind) && flags & END_STREAM != 0 {
                return stream;
            }
        }
    }

    /// The kind, flags and stream of the next frame.
    async fn frame(&mut self) -> (u8, u8, u32) {
        let head = self.wire.exactly(9).await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        self.wire.exactly(length as usize).await;
        self.acknowledged |= head[3] == SETTINGS && head[4] == ACK;
        (head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]))
    }

    async fn reset(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    async fn go_away(&mut self, last: u32, code: u32) {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat()).await;
    }

    /// Answers 200 without a body.
    async fn answer(&mut self, stream: u32) {
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &[0x88]).await;
    }
}

/// A POST on its way to a backend that the test plays.
async fn post() -> (Running, TcpListener, Wire) {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
    let mut caller = proxy.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nhi").await;
    (proxy, backend, caller)
}

async fn refused_with_502(mut caller: Wire) {
    let response: Message = caller.response().await;
    assert_eq!(response.status(), 502, "it was sent again: {response:?}");
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_whatever_the_method() {
    let (proxy, backend, mut caller) = post().await;
    let mut callee = Http2::accept(&backend).await;
    let stream = callee.request().await;
    callee.reset(stream, REFUSED_STREAM).await;
    let again = callee.request().await;
    assert!(again > stream);
    callee.answer(again).await;
    assert_eq!(caller.response().await.status(), 200);
    proxy.metric_is("outrigger_retries_total", &[], 1.0).await;
}

#[tokio::test]
async fn a_stream_reset_for_another_reason_is_not_sent_again() {
    let (_proxy, backend, caller) = post().await;
    let mut callee = Http2::accept(&backend).await;
    let stream = callee.request().await;
    callee.reset(stream, INTERNAL_ERROR).await;
    refused_with_502(caller).await;
}

#[tokio::test]
async fn a_stream_beyond_the_last_is_sent_again_elsewhere() {
    let (_proxy, backend, mut caller) = post().await;
    let mut callee = Http2::accept(&backend).await;
    callee.request().await;
    callee.go_away(0, NO_ERROR).await;
    let mut next = Http2::accept(&backend).await;
    let stream = next.request().await;
    next.answer(stream).await;
    assert_eq!(caller.response().await.status(), 200);
}

#[tokio::test]
async fn a_stream_up_to_the_last_is_finished() {
    let (_proxy, backend, mut caller) = post().await;
    let mut callee = Http2::accept(&backend).await;
    let stream = callee.request().await;
    callee.go_away(stream, NO_ERROR).await;
    callee.answer(stream).await;
    assert_eq!(caller.response().await.status(), 200);
}

#[tokio::test]
async fn a_stream_up_to_the_last_that_breaks_off_is_not_sent_again() {
    let (_proxy, backend, caller) = post().await;
    let mut callee = Http2::accept(&backend).await;
    let stream = callee.request().await;
    callee.go_away(stream, NO_ERROR).await;
    drop(callee);
    refused_with_502(caller).await;
}

#[tokio::test]
async fn a_connection_that_ends_in_an_error_is_no_proof() {
    let (_proxy, backend, caller) = post().await;
    let mut callee = Http2::accept(&backend).await;
    let stream = callee.request().await;
    callee.go_away(stream, INTERNAL_ERROR).await;
    drop(callee);
    refused_with_502(caller).await;
}

#[tokio::test]
async fn a_stream_that_is_refused_for_ever_is_given_up() {
    let (_proxy, backend, mut caller) = post().await;
    let mut callee = Http2::accept(&backend).await;
    for _ in 0..2 {
        let stream = callee.request().await;
        callee.reset(stream, REFUSED_STREAM).await;
    }
    assert_eq!(caller.response().await.status(), 502);
}

#[tokio::test]
async fn a_backend_that_takes_few_streams_at_a_time_gets_another_connection_for_more() {
    const MAX_CONCURRENT_STREAMS_1: [u8; 6] = [0, 3, 0, 0, 0, 1];
    let (proxy, backend, mut caller) = post().await;
    let mut callee = Http2::accept_with(&backend, &MAX_CONCURRENT_STREAMS_1).await;
    let stream = callee.request().await;
    while !callee.acknowledged {
        callee.frame().await;
    }
    let mut second = proxy.connect().await;
    second.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut other = Http2::accept_with(&backend, &MAX_CONCURRENT_STREAMS_1).await;
    let others = other.request().await;
    other.answer(others).await;
    assert_eq!(second.response().await.status(), 200);
    callee.answer(stream).await;
    assert_eq!(caller.response().await.status(), 200);
}

#[tokio::test]
async fn requests_that_wait_for_the_same_connection_do_not_wait_for_one_after_the_other() {
    const CALLERS: usize = 8;
    // It takes connections, and never says a word of TLS.
    let (_backend, address) = listen().await;
    let backend = "protocol: H2C, connectTimeout: 500ms, tls: { hostname: shop.test }";
    let proxy = Running::start(&with_rule("", backend, &[address])).await;
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        let mut caller = proxy.connect().await;
        caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        callers.push(caller);
    }
    for mut caller in callers {
        let response = caller.response().await;
        assert_eq!(response.status(), 504, "{response:?}");
    }
    let tried = proxy.metric("outrigger_backend_connections_total", &["result=\"timeout\""]);
    assert!(tried < CALLERS as f64, "each request waited for a connection of its own: {tried}");
}

#[tokio::test]
async fn one_connection_too_many_is_turned_away() {
    let app = App::builder().name("app").start().await;
    let yaml =
        one_backend(&[app.address()]).replace(crate::support::PLAIN, "http: { limits: { connections: 2 } }");
    let proxy = Running::start(&yaml).await;
    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut first, mut second) = (proxy.connect().await, proxy.connect().await);
    for wire in [&mut first, &mut second] {
        wire.send(GET).await;
        assert_eq!(wire.response().await.status(), 200);
    }
    let mut third = proxy.connect().await;
    third.send(GET).await;
    let response = third.response().await;
    assert_eq!(response.status(), 503);
    let why = response.header("proxy-status").unwrap();
    assert!(why.contains("error=connection_limit_reached; details=\"listener web has"), "{why}");
    assert!(third.closed().await);
    // Who was there is served on, and who leaves makes room.
    first.send(GET).await;
    assert_eq!(first.response().await.status(), 200);
    drop(second);
    proxy.metric_is("outrigger_connections_open", &["listener=\"web\""], 1.0).await;
    assert_eq!(proxy.ask(GET).await.status(), 200);
}

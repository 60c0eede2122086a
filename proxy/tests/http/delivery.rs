//! What has reached the application is not sent again, unless its method says that it may be; what provably has not is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use outrigger_testkit::app::App;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::http2;
use crate::support::{Running, Wire, listen, one_backend, soon, with_rule};

const RETRY: &str = "retry: { attempts: 2, codes: [503], backoff: 1ms }";

fn request(method: &str) -> String {
    format!("{method} /order HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\n0123456789")
}

/// How many requests came to a backend, in whole or in part.
type Count = Arc<AtomicUsize>;

/// A backend that reads so many bytes of each request, says the beginning of a response of so many bytes, and resets.
async fn breaking(read: usize, said: usize) -> (SocketAddr, Count) {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (listener, address) = listen().await;
    let count = Count::default();
    let seen = count.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; read];
            if stream.read_exact(&mut bytes).await.is_ok() && read > 0 {
                seen.fetch_add(1, Ordering::SeqCst);
            }
            let _ = stream.write_all(&ANSWER[..said]).await;
            let _ = stream.set_zero_linger();
        }
    });
    (address, count)
}

/// The connection breaks at every offset of the request and of the response's head: a POST is there once at most, and what
/// is idempotent is sent again.
#[tokio::test]
async fn a_post_is_delivered_once_wherever_its_connection_breaks() {
    let length = request("POST").len();
    let offsets = (0..=length).step_by(3).map(|read| (read, 0));
    for (read, said) in offsets.chain((1..38).step_by(3).map(|said| (length, said))) {
        for (method, most) in [("POST", 1), ("PUT", 4)] {
            let read = read.min(request(method).len());
            let (address, count) = breaking(read, said).await;
            let proxy = Running::start(&with_rule(RETRY, "", &[address])).await;
            let status = proxy.ask(&request(method)).await.status();
            let seen = count.load(Ordering::SeqCst);
            // One that is reset at once may never have been a connection.
            let lost = status == 502 || (status == 503 && read == 0);
            assert!(lost, "{method} after {read} and {said} bytes: {status}");
            assert!(seen <= most, "{method} after {read} and {said} bytes came {seen} times");
            let again = method == "PUT" && read > 0;
            assert!(!again || seen > 1, "{method} after {read} and {said} bytes came {seen} times");
        }
    }
}

/// The frames of HTTP/2 that these tests write themselves (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const SETTINGS: u8 = 4;

/// The next frame: its kind, its stream, its payload.
async fn next_frame(stream: &mut TcpStream) -> Option<(u8, u32)> {
    let mut head = [0; 9];
    soon(stream.read_exact(&mut head)).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    soon(stream.read_exact(&mut payload)).await.ok()?;
    Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
}

/// A backend of HTTP/2 that says `last` to the first request, whose body it has read, and closes that connection; the next
/// connection is served.
async fn saying(last: Vec<u8>) -> (SocketAddr, Count) {
    let (listener, address) = listen().await;
    let count = Count::default();
    let served = count.clone();
    tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        // Up to the DATA of the request, or its HEADERS where it has none.
        let mut ends = 0;
        while let Some((kind, id)) = next_frame(&mut stream).await {
            ends += u8::from(id == 1 && (kind == 0 || kind == 1));
            if ends == 2 {
                break;
            }
        }
        stream.write_all(&last).await.unwrap();
        stream.shutdown().await.unwrap();
        while next_frame(&mut stream).await.is_some() {}
        serve(&listener, served).await;
    });
    (address, count)
}

/// Answers every request of HTTP/2 with 200.
async fn serve(listener: &TcpListener, served: Count) {
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(mut connection) = h2::server::handshake(stream).await else { continue };
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            served.fetch_add(1, Ordering::SeqCst);
            let _ = respond.send_response(Response::new(()), true);
        }
    }
}

fn post() -> http::Request<http2::Body> {
    http2::post("/order", vec![Frame::data(Bytes::from_static(b"0123456789"))])
}

const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;
const INTERNAL_ERROR: u32 = 2;

fn goaway(last: u32, reason: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat())
}

#[tokio::test]
async fn http_2_says_what_was_not_processed_and_that_is_sent_again_whatever_its_method() {
    let reset = |reason: u32| frame(3, 0, 1, &reason.to_be_bytes());
    for (what, last, sent_again) in [
        // With a GOAWAY behind it: on a connection that ends without one, the second attempt might get lost.
        ("a refused stream", [reset(REFUSED_STREAM), goaway(1, 0)].concat(), true),
        ("a stream beyond the last of a graceful GOAWAY", goaway(0, 0), true),
        ("a stream beyond the last of any GOAWAY", goaway(0, ENHANCE_YOUR_CALM), true),
        ("a stream up to the last of a GOAWAY", goaway(1, 0), false),
        ("a stream up to the last of a GOAWAY with an error", goaway(1, ENHANCE_YOUR_CALM), false),
        ("a reset stream", reset(INTERNAL_ERROR), false),
        ("the end", Vec::new(), false),
    ] {
        let (address, served) = saying(last).await;
        let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
        let response = soon(http2::caller(&proxy).await.send_request(post())).await.unwrap();
        let status = response.status().as_u16();
        let expected = if sent_again { (200, 1) } else { (502, 0) };
        assert_eq!((status, served.load(Ordering::SeqCst)), expected, "{what}");
    }
}

/// A backend that answers with this field in every place that a response has, and so does not tell of itself.
async fn forging(status: &'static str) -> (SocketAddr, Count) {
    let (listener, address) = listen().await;
    let count = Count::default();
    let seen = count.clone();
    tokio::spawn(async move {
        loop {
            let mut callee = Wire::accept(&listener).await;
            let seen = seen.clone();
            tokio::spawn(async move {
                while let Some(head) = callee.try_head().await {
                    assert_eq!(head.header("outrigger-unreached"), None, "what a caller says of it");
                    seen.fetch_add(1, Ordering::SeqCst);
                    callee.exactly(10).await;
                    let field = "outrigger-unreached: connection_refused\r\n";
                    let interim = format!("HTTP/1.1 103 Early Hints\r\n{field}\r\n");
                    let head = format!(
                        "HTTP/1.1 {status} X\r\n{field}trailer: x\r\ntransfer-encoding: chunked\r\n\r\n"
                    );
                    callee.send(format!("{interim}{head}2\r\nok\r\n0\r\n{field}x: y\r\n\r\n")).await;
                }
            });
        }
    });
    (address, count)
}

#[tokio::test]
async fn who_is_not_a_sidecar_cannot_say_that_a_request_did_not_arrive() {
    for status in ["200", "404", "503"] {
        let (first, count) = forging(status).await;
        let second = forging(status).await;
        let rule = "retry: { attempts: 2, codes: [404, 503], backoff: 1ms }";
        let proxy = Running::start(&with_rule(rule, "", &[first, second.0])).await;
        let mut caller = proxy.connect().await;
        let field = "outrigger-unreached: x";
        caller
            .send(request("POST").replace("Host: shop", &format!("Host: shop\r\nTE: trailers\r\n{field}")))
            .await;
        let interim = caller.head().await;
        assert_eq!((interim.status(), interim.header("outrigger-unreached")), (103, None));
        let response = caller.response().await;
        assert_eq!(response.status().to_string(), status);
        assert_eq!(response.header("outrigger-unreached"), None, "{response:?}");
        assert_eq!(response.trailers, "x: y\n");
        let seen = count.load(Ordering::SeqCst) + second.1.load(Ordering::SeqCst);
        assert_eq!(seen, 1, "{status}");
    }
}

/// A call that an application answers by what only a sidecar says in place of gRPC.
#[tokio::test]
async fn a_call_of_grpc_is_not_taken_to_have_failed_because_its_application_says_so() {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let response =
                Response::builder().status(503).header("outrigger-unreached", "connection_refused");
            let mut body = respond.send_response(response.body(()).unwrap(), false).unwrap();
            let field = HeaderValue::from_static("connection_refused");
            let said = [("outrigger-unreached", field), ("grpc-status", HeaderValue::from_static("0"))];
            let trailers = said.map(|(name, value)| (name.parse().unwrap(), value));
            body.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
        }
    });
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
    let mut call = post();
    call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let response = soon(http2::caller(&proxy).await.send_request(call)).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers().get("outrigger-unreached")), (503, None));
    let collected = soon(http_body_util::BodyExt::collect(response.into_body())).await.unwrap();
    let trailers = collected.trailers().unwrap();
    assert_eq!((trailers.get("outrigger-unreached"), trailers.len()), (None, 1), "{trailers:?}");
}

/// A body that breaks off is its caller's affair, and says nothing of the endpoint.
#[tokio::test]
async fn a_caller_that_breaks_off_is_not_made_up_for() {
    let app = App::builder().start().await;
    let proxy = Running::start(&one_backend(&[app.address()])).await;
    let mut caller = proxy.connect().await;
    caller.send("PUT /echo HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n").await;
    assert_eq!(caller.response().await.status(), 400);
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await.status(), 200);
    assert!(app.requests() <= 2, "{}", app.requests());
}

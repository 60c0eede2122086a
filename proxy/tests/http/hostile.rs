//! Callers and backends that mean no good, or are not careful: what must not pass, and what must not stay.

use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;

use crate::peer::{Callee, caller, request, response};
use crate::support::{Running, Wire, listen, one_backend, poll, soon, with_rule};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A proxy before a backend that the test plays itself.
async fn scripted() -> (Running, TcpListener) {
    let (backend, address) = listen().await;
    (Running::start(&one_backend(&[address])).await, backend)
}

#[tokio::test]
async fn no_line_of_upgrade_smuggles_a_change_to_http_2() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller
        .send(
            "GET / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        )
        .await;
    let mut callee = Wire::accept(&backend).await;
    let received = callee.request().await;
    assert_eq!(received.header("upgrade"), None, "{}", received.head);
    callee.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").await;
    assert_eq!(caller.response().await.status(), 502);
}

#[tokio::test]
async fn a_length_that_was_said_twice_is_said_once() {
    let (proxy, backend) = scripted().await;
    for lengths in ["Content-Length: 2\r\nContent-Length: 2", "Content-Length: 2, 2"] {
        let mut caller = proxy.connect().await;
        caller.send(format!("POST / HTTP/1.1\r\nHost: shop\r\n{lengths}\r\n\r\nhi")).await;
        let mut callee = Wire::accept(&backend).await;
        let received = callee.request().await;
        assert_eq!(
            (received.header("content-length").as_deref(), received.text()),
            (Some("2"), "hi"),
            "{}",
            received.head
        );
        callee.send(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{lengths}\r\n\r\nok")).await;
        let answer = caller.response().await;
        assert_eq!((answer.header("content-length").as_deref(), answer.text()), (Some("2"), "ok"));
        assert!(callee.closed().await);
    }
}

#[tokio::test]
async fn a_length_that_http_2_says_twice_is_said_once() {
    let (proxy, backend) = scripted().await;
    let mut caller = caller(&proxy).await;
    let twice = [("content-length", "2"), ("content-length", "2")];
    let (answer, mut upload) = caller.send_request(request("POST", "/", &twice), false).unwrap();
    upload.send_data(Bytes::from_static(b"hi"), true).unwrap();
    let mut callee = Wire::accept(&backend).await;
    let received = callee.request().await;
    assert_eq!(received.header("content-length").as_deref(), Some("2"), "{}", received.head);
    callee.send(OK).await;
    assert_eq!(soon(answer).await.unwrap().status(), 200);
    let differ = [("content-length", "2"), ("content-length", "0")];
    let (answer, _upload) = caller.send_request(request("POST", "/", &differ), false).unwrap();
    assert!(soon(answer).await.is_err());
}

#[tokio::test]
async fn a_status_line_without_words_takes_none_of_the_next_line() {
    let (proxy, backend) = scripted().await;
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 200 Fine"] {
        let mut caller = proxy.connect().await;
        caller.send("GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").await;
        let mut callee = Wire::accept(&backend).await;
        callee.request().await;
        callee
            .send(format!("{line}\r\nX-Secret: 1\r\nContent-Length: 2\r\nConnection: x-secret\r\n\r\nok"))
            .await;
        callee.finish().await;
        let answer = String::from_utf8(caller.rest().await).unwrap();
        assert!(answer.starts_with(line) && answer.ends_with("\r\n\r\nok"), "{answer:?}");
        assert!(!answer.contains("X-Secret"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_target_of_http_2_that_is_no_path_does_not_pass() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&one_backend(&[address])).await;
    // Written by hand: no client would send these.
    for (method, path) in
        [("GET", "*"), ("GET", "admin"), ("GET", "@evil/"), ("GET", "?q"), ("POST", "http://b/")]
    {
        let status = soon(by_hand(&proxy, method, path)).await;
        assert!(matches!(status, None | Some(400)), "{method} {path}: {status:?}");
    }
    let asked = tokio::spawn(async move { by_hand(&proxy, "OPTIONS", "*").await });
    let mut callee = Wire::accept(&backend).await;
    let received = callee.request().await;
    assert!(received.head.starts_with("OPTIONS * HTTP/1.1\r\n"), "{}", received.head);
    callee.send(OK).await;
    assert_eq!(soon(asked).await.unwrap(), Some(200));
}

/// Sends a request of HTTP/2 frame by frame; its status, unless its stream was reset.
async fn by_hand(proxy: &Running, method: &str, path: &str) -> Option<u16> {
    let mut wire = proxy.connect().await;
    let mut block = vec![0x86];
    for (name, value) in [(":method", method), (":path", path), (":authority", "shop")] {
        block.push(0x00);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 0x05, 0, 0, 0, 1]);
    bytes.extend(block);
    wire.send(bytes).await;
    loop {
        let head = wire.exactly(9).await;
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = wire.exactly(length).await;
        match (head[3], head[8]) {
            (1, 1) => {
                return Some(match payload[0] {
                    0x88 => 200,
                    0x8c => 400,
                    // A literal, or a code of the table that is none of these.
                    other => u16::from(other),
                });
            }
            (3, 1) | (7, _) => return None,
            _ => {}
        }
    }
}

#[tokio::test]
async fn interim_responses_do_not_pile_up_before_a_caller_that_does_not_read() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    let interim = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(32 * 1024));
    for _ in 0..1024 {
        callee.send(&interim).await;
    }
    callee.send(OK).await;
    // All of them have gone through the proxy, and most of them nowhere.
    let mut passed = 0;
    while caller.head().await.status() == 103 {
        passed += 1;
    }
    assert!((1..768).contains(&passed), "{passed} of 1024");
}

#[tokio::test]
async fn an_interim_response_says_nothing_of_its_connection() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    callee
        .send("HTTP/1.1 103 Early Hints\r\nConnection: close, x-own\r\nX-Own: 1\r\nTransfer-Encoding: chunked\r\nLink: a\r\n\r\n")
        .await;
    let interim = caller.head().await;
    assert_eq!(interim.head, "HTTP/1.1 103 Early Hints\r\nLink: a");
    callee.send(OK).await;
    assert_eq!(caller.response().await.text(), "ok");
}

#[tokio::test]
async fn the_request_timeout_passes_while_the_backend_never_pauses() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule("timeouts: { request: 300ms }", "", &[address])).await;
    let mut caller = proxy.connect().await;
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    callee.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n").await;
    let reading = tokio::spawn(async move { while !caller.some().await.is_empty() {} });
    let part = vec![0; 256 * 1024];
    while callee.try_send(&part).await {}
    soon(reading).await.unwrap();
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn the_last_answer_is_read_whatever_was_asked_after_it() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    // The rest of these lies unread when the connection ends: closed then, it would be reset, and the answer lost.
    let more = "GET /more HTTP/1.1\r\nHost: shop\r\n\r\n".repeat(20_000);
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    caller.send(&more).await;
    callee.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000))).await;
    assert_eq!(caller.response().await.body.len(), 100_000);
}

#[tokio::test]
async fn an_upload_that_nobody_takes_ends_with_its_caller() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
    let mut caller = proxy.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 100000000\r\n\r\n").await;
    let mut callee = Callee::accept(&backend, &h2::server::Builder::new()).await;
    let (_received, mut respond) = callee.next().await;
    respond.send_response(response(200, &[("content-length", "0")]), true).unwrap();
    assert_eq!(caller.response().await.status(), 200);
    drop(caller);
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
    assert!(poll(|| proxy.metric("outrigger_connections_open", &[]) < 0.5).await);
}
#[tokio::test]
async fn the_request_timeout_passes_while_the_caller_does_not_read() {
    for http2 in [false, true] {
        let (backend, address) = listen().await;
        let proxy = Running::start(&with_rule("timeouts: { request: 500ms }", "", &[address])).await;
        let mut plain = None;
        let mut shared = None;
        if http2 {
            let mut caller = caller(&proxy).await;
            let (answer, _) = caller.send_request(request("GET", "/", &[]), true).unwrap();
            shared = Some((caller, answer));
        } else {
            let mut caller = proxy.connect().await;
            caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
            plain = Some(caller);
        }
        let mut callee = Wire::accept(&backend).await;
        callee.request().await;
        callee.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
        let part = vec![0; 1024 * 1024];
        let until = tokio::time::Instant::now() + Duration::from_secs(10);
        let mut ended = false;
        while !ended && tokio::time::Instant::now() < until {
            // Sent until nobody takes it any more, or the proxy closes.
            let sent = tokio::time::timeout(Duration::from_secs(5), callee.try_send(&part)).await;
            ended = sent == Ok(false);
            if sent.is_err() {
                break;
            }
        }
        assert!(ended, "the backend is let go (HTTP/2: {http2})");
        let timed_out = ["code=\"200\"", "reason=\"http_response_timeout\""];
        proxy.metric_is("outrigger_requests_total", &timed_out, 1.0).await;
        proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
        drop((plain, shared));
    }
}

//! Bodies on their way: streamed, held back by whoever is slow, broken off by either side.

use std::time::Duration;

use outrigger_testkit::app::App;
use tokio::net::TcpListener;

use crate::support::{Running, Wire, listen, one_backend, poll};

async fn scripted() -> (Running, TcpListener) {
    let (backend, address) = listen().await;
    (Running::start(&one_backend(&[address])).await, backend)
}

/// More than all socket buffers and windows on the way take.
const ENDLESS: usize = 256 * 1024 * 1024;
/// Far more than the socket buffers on the way take, and far less than what is sent.
const BOUND: usize = 64 * 1024 * 1024;

/// Sends until nothing is taken for a while; how much was.
async fn send_until_stuck(wire: &mut Wire) -> usize {
    let block = vec![b'x'; 256 * 1024];
    let mut sent = 0;
    while sent < ENDLESS {
        match tokio::time::timeout(Duration::from_millis(300), wire.try_send(&block)).await {
            Ok(true) => sent += block.len(),
            Ok(false) => panic!("the connection broke after {sent} bytes"),
            Err(_) => break,
        }
    }
    sent
}

#[tokio::test]
async fn a_slow_reader_stops_a_fast_backend() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    callee.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {ENDLESS}\r\n\r\n")).await;
    let sent = send_until_stuck(&mut callee).await;
    assert!(sent < BOUND, "{sent} bytes were taken, of which none was read");
    // It goes on as soon as somebody reads.
    assert_eq!(caller.head().await.status(), 200);
    assert_eq!(caller.exactly(4 * 1024 * 1024).await.len(), 4 * 1024 * 1024);
}

#[tokio::test]
async fn a_slow_backend_stops_a_fast_caller() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send(format!("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: {ENDLESS}\r\n\r\n")).await;
    let sent = send_until_stuck(&mut caller).await;
    assert!(sent < BOUND, "{sent} bytes were taken, of which none was read");
    let mut callee = Wire::accept(&backend).await;
    callee.head().await;
    assert_eq!(callee.exactly(4 * 1024 * 1024).await.len(), 4 * 1024 * 1024);
}

#[tokio::test]
async fn each_chunk_arrives_before_the_next_is_sent_both_ways() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    callee.head().await;
    callee.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
    assert_eq!(caller.head().await.status(), 200);
    for _ in 0..3 {
        caller.send("4\r\nping\r\n").await;
        assert_eq!(callee.chunk().await, b"ping");
        callee.send("4\r\npong\r\n").await;
        assert_eq!(caller.chunk().await, b"pong");
    }
}

#[tokio::test]
async fn an_early_response_is_passed_on_while_the_request_is_still_sent() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1000000\r\n\r\nfirst").await;
    let mut callee = Wire::accept(&backend).await;
    callee.head().await;
    assert_eq!(callee.exactly(5).await, b"first");
    callee.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    drop(callee);
    assert_eq!(caller.response().await.status(), 413);
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
    // The next request, on whichever connection, is not mixed up with what is left of this one.
    let mut next = proxy.connect().await;
    next.send("GET /next HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    assert!(callee.request().await.head.starts_with("GET /next "));
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_response_is_noticed_by_the_backend_and_counted() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    assert_eq!(proxy.metric("outrigger_requests_in_flight", &[]), 1.0);
    caller.reset();
    assert!(callee.closed().await);
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
    proxy.metric_is("outrigger_requests_total", &["code=\"0\""], 1.0).await;
}

#[tokio::test]
async fn a_caller_that_leaves_while_it_sends_is_noticed_by_the_backend() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\nhalf").await;
    let mut callee = Wire::accept(&backend).await;
    callee.head().await;
    assert_eq!(callee.exactly(4).await, b"half");
    drop(caller);
    assert!(callee.closed().await, "the end of half a body is not the end of it");
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn a_caller_that_leaves_while_it_reads_is_noticed_by_the_backend() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    callee.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nping\r\n").await;
    caller.head().await;
    assert_eq!(caller.chunk().await, b"ping");
    caller.reset();
    // It has to try to pass something on in order to learn of it.
    while callee.try_send("4\r\nping\r\n").await {
        tokio::task::yield_now().await;
    }
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn a_response_that_breaks_off_does_not_look_whole() {
    let heads = ["content-length: 100", "transfer-encoding: chunked"];
    for (head, part) in heads.iter().zip(["hello", "5\r\nhello\r\n"]) {
        let (proxy, backend) = scripted().await;
        let mut caller = proxy.connect().await;
        caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        let mut callee = Wire::accept(&backend).await;
        callee.request().await;
        callee.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{part}")).await;
        let got = caller.head().await;
        assert_eq!(got.status(), 200);
        assert_eq!(caller.exactly(part.len()).await, part.as_bytes());
        drop(callee);
        assert_eq!(caller.rest().await, b"", "after {head}");
        proxy.metric_is("outrigger_requests_total", &["reason=\"http_response_incomplete\""], 1.0).await;
        proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
    }
}

#[tokio::test]
async fn a_backend_that_breaks_off_before_its_response_is_a_502_with_a_reason() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nhi").await;
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    callee.reset();
    let response = caller.response().await;
    assert_eq!(response.status(), 502);
    let status = response.header("proxy-status").unwrap();
    assert!(status.starts_with("outrigger; error=connection_terminated; details="), "{status}");
}

#[tokio::test]
async fn what_a_backend_says_that_is_not_http_is_a_502_with_a_reason() {
    let (proxy, backend) = scripted().await;
    let mut caller = proxy.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    callee.send("SSH-2.0-OpenSSH_9.9\r\n\r\n").await;
    let response = caller.response().await;
    assert_eq!(response.status(), 502);
    assert!(response.header("proxy-status").unwrap().contains("error=http_response_incomplete"));
}

#[tokio::test]
async fn large_bodies_arrive_as_they_were_sent() {
    let app = App::builder().start().await;
    let proxy = Running::start(&one_backend(&[app.address()])).await;
    let mut wire = proxy.connect().await;
    wire.send("GET /bytes/5000000 HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert_eq!(wire.response().await.body.len(), 5_000_000);
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    wire.send(format!("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    wire.send(&body).await;
    assert_eq!(wire.response().await.json()["body"]["length"], body.len());
    assert!(poll(|| proxy.metric("outrigger_response_bytes_total", &[]) > 5_000_000.0).await);
    proxy.metric_is("outrigger_request_bytes_total", &[], 3_000_000.0).await;
}

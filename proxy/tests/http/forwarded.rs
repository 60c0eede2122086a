//! What an application is told of where a request came from, and whom it believes.

use crate::peer::{caller, request};
use crate::support::{Message, Running, Wire, listen, one_backend};

/// What a backend gets of a request, and the caller of the response, with a listener of this `http`.
async fn exchange(http: &str, sent: &str) -> (Message, Message) {
    let (backend, address) = listen().await;
    let proxy = Running::start(&one_backend(&[address]).replace(crate::support::PLAIN, http)).await;
    let mut caller = proxy.connect().await;
    caller.send(sent).await;
    let mut callee = Wire::accept(&backend).await;
    let received = callee.request().await;
    callee.send("HTTP/1.1 200 OK\r\nVia: 1.0 fred\r\nContent-Length: 0\r\n\r\n").await;
    (received, caller.response().await)
}

const FORGED: &str = "GET / HTTP/1.1\r\nHost: shop:8080\r\nX-Forwarded-For: 10.0.0.1\r\n\
                      X-Forwarded-Proto: https\r\nX-Forwarded-Host: bank\r\nX-Forwarded-Port: 443\r\n\
                      X-Real-IP: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\nX-Forwarded-Client-Cert: By=me\r\n\r\n";

#[tokio::test]
async fn an_edge_tells_who_called_and_believes_nobody() {
    let (received, response) = exchange("http: {}", FORGED).await;
    for (name, value) in [
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("shop:8080")),
        ("x-forwarded-port", Some("8080")),
        ("x-real-ip", None),
        ("forwarded", None),
        ("x-forwarded-client-cert", Some("By=me")),
        ("via", Some("1.1 outrigger")),
    ] {
        assert_eq!(received.header(name).as_deref(), value, "{name}");
    }
    assert_eq!(response.header("via").as_deref(), Some("1.0 fred, 1.1 outrigger"));
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_added_to() {
    let http = "http: { forwarded: { forwarded: true, trust: [127.0.0.0/8] }, via: edge-1 }";
    let (received, _) = exchange(http, FORGED).await;
    for (name, value) in [
        ("x-forwarded-for", "10.0.0.1, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "bank"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1, for=127.0.0.1;proto=http;host=\"shop:8080\""),
        ("via", "1.1 edge-1"),
    ] {
        assert_eq!(received.header(name).as_deref(), Some(value), "{name}");
    }
}

#[tokio::test]
async fn a_listener_that_tells_nothing_leaves_the_fields_as_they_are() {
    let (received, response) = exchange(crate::support::PLAIN, FORGED).await;
    let mut lines: Vec<_> = received.head.lines().skip(1).map(str::to_ascii_lowercase).collect();
    let mut sent: Vec<_> = FORGED.trim_end().lines().skip(1).map(str::to_ascii_lowercase).collect();
    lines.sort_unstable();
    sent.sort_unstable();
    assert_eq!(lines, sent);
    assert_eq!(response.header("via").as_deref(), Some("1.0 fred"));
}

#[tokio::test]
async fn via_names_the_version_that_was_received() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&one_backend(&[address]).replace(crate::support::PLAIN, "http: {}")).await;
    let mut http2 = caller(&proxy).await;
    let (_answer, _) = http2.send_request(request("GET", "/", &[("via", "1.1 first")]), true).unwrap();
    let mut callee = Wire::accept(&backend).await;
    let received = callee.request().await;
    assert_eq!(received.header("via").as_deref(), Some("1.1 first, 2.0 outrigger"));
    assert_eq!(received.header("x-forwarded-host").as_deref(), Some("shop"));
    let mut http10 = proxy.connect().await;
    http10.send("GET / HTTP/1.0\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    let received = callee.request().await;
    assert_eq!(received.header("via").as_deref(), Some("1.0 outrigger"));
    assert_eq!(received.header("x-forwarded-host"), None, "it named none");
}

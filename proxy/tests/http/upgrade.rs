//! Connections that become something else than HTTP.

use outrigger_testkit::app::App;

use crate::support::{Running, Wire, listen, one_backend};

const REQUEST: &str = "GET /upgrade HTTP/1.1\r\nHost: shop\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways_until_both_have_closed() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&one_backend(&[address])).await;
    let mut caller = proxy.connect().await;
    caller.send(REQUEST).await;
    let mut callee = Wire::accept(&backend).await;
    let received = callee.head().await;
    assert_eq!(received.header("upgrade").as_deref(), Some("websocket"));
    assert_eq!(received.header("connection").unwrap().to_ascii_lowercase(), "upgrade");
    assert_eq!(received.header("sec-websocket-key").as_deref(), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    // The backend's first bytes come with its answer.
    callee
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
        .await;
    let response = caller.head().await;
    assert_eq!((response.status(), response.header("upgrade").as_deref()), (101, Some("websocket")));
    assert_eq!(response.header("connection").unwrap().to_ascii_lowercase(), "upgrade");
    assert_eq!(caller.exactly(5).await, b"hello");
    caller.send([0, 1, 2, 255]).await;
    assert_eq!(callee.exactly(4).await, [0, 1, 2, 255]);
    caller.finish().await;
    assert!(callee.closed().await);
    callee.send("after the caller's last word").await;
    assert_eq!(caller.exactly(28).await, b"after the caller's last word");
    assert_eq!(proxy.metric("outrigger_requests_in_flight", &[]), 1.0);
    assert_eq!(proxy.metric("outrigger_connections_open", &[]), 1.0);
    callee.finish().await;
    assert!(caller.closed().await);
    proxy.metric_is("outrigger_requests_total", &["code=\"101\""], 1.0).await;
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
    proxy.metric_is("outrigger_response_bytes_total", &[], 33.0).await;
    proxy.metric_is("outrigger_connections_open", &[], 0.0).await;
}

#[tokio::test]
async fn a_caller_that_leaves_an_upgraded_connection_takes_the_backend_along() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&one_backend(&[address])).await;
    let mut caller = proxy.connect().await;
    caller.send(REQUEST).await;
    let mut callee = Wire::accept(&backend).await;
    callee.head().await;
    callee
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    caller.head().await;
    caller.reset();
    assert!(callee.closed().await);
    drop(callee);
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn an_upgrade_that_is_declined_is_an_ordinary_response() {
    let app = App::builder().start().await;
    let proxy = Running::start(&one_backend(&[app.address()])).await;
    let mut wire = proxy.connect().await;
    wire.send("GET /status/200 HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: unheard-of\r\n\r\n")
        .await;
    assert_eq!(wire.response().await.status(), 200);
    wire.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert_eq!(wire.response().await.status(), 200);
}

#[tokio::test]
async fn an_application_that_changes_the_protocol_unasked_is_a_502() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&one_backend(&[address])).await;
    let mut caller = proxy.connect().await;
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    callee.head().await;
    callee
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    assert_eq!(caller.response().await.status(), 502);
}

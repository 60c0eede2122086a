//! How full what is limited is, as an operator sees it who wants to know why requests are refused.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{Running, Wire, listen, with_rule};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A limit of the backend, or the listener, and how much of it is taken, as soon as it is so.
async fn stands(proxy: &Running, whose: &str, of: &str, used: f64, limit: f64) {
    let of = format!("of=\"{of}\"");
    proxy.metric_is(&format!("outrigger_{whose}_limit_used"), &[&of], used).await;
    proxy.metric_is(&format!("outrigger_{whose}_limit"), &[&of], limit).await;
}

async fn limits(proxy: &Running) -> Value {
    let mut wire = Wire::connect(proxy.proxy.addresses().admin.unwrap()).await;
    wire.send("GET /endpoints HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    wire.response().await.json()["backends"][0]["limits"].clone()
}

fn config(limits: &str, address: SocketAddr) -> String {
    with_rule("", &format!("limits: {{ {limits} }}"), &[address])
        .replace("http: {", "http: { limits: { connections: 100, requests: 50 },")
}

#[tokio::test]
async fn requests_in_flight_and_those_that_wait() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&config(
        "requests: 2, waiting: 5, waitTimeout: 20s, connections: 9, retries: 3",
        address,
    ))
    .await;
    let (mut callers, mut callees) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let mut caller = proxy.connect().await;
        caller.send(GET).await;
        let mut callee = Wire::accept(&backend).await;
        callee.request().await;
        callers.push(caller);
        callees.push(callee);
    }
    for _ in 0..3 {
        let mut caller = proxy.connect().await;
        caller.send(GET).await;
        callers.push(caller);
    }
    stands(&proxy, "backend", "waiting_requests", 3.0, 5.0).await;
    stands(&proxy, "backend", "requests", 2.0, 2.0).await;
    stands(&proxy, "backend", "connections", 2.0, 9.0).await;
    stands(&proxy, "backend", "waiting_for_connection", 0.0, 5.0).await;
    stands(&proxy, "backend", "retries", 0.0, 3.0).await;
    stands(&proxy, "listener", "connections", 5.0, 100.0).await;
    stands(&proxy, "listener", "requests", 5.0, 50.0).await;
    let shown = limits(&proxy).await;
    assert_eq!(shown["requests"], json!({ "used": 2, "limit": 2 }), "{shown}");
    assert_eq!(shown["waiting_requests"], json!({ "used": 3, "limit": 5 }), "{shown}");
    for callee in &mut callees {
        callee.send(OK).await;
    }
    stands(&proxy, "backend", "waiting_requests", 1.0, 5.0).await;
    drop((callers, callees, backend));
    stands(&proxy, "listener", "connections", 0.0, 100.0).await;
    stands(&proxy, "backend", "requests", 0.0, 2.0).await;
}

#[tokio::test]
async fn what_an_adaptive_limit_allows_now() {
    let (_backend, address) = listen().await;
    let proxy = Running::start(&config("adaptive: { min: 3, max: 3 }", address)).await;
    stands(&proxy, "backend", "requests", 0.0, 3.0).await;
    assert_eq!(limits(&proxy).await["requests"], json!({ "used": 0, "limit": 3 }));
}

#[tokio::test]
async fn where_nothing_is_limited_nothing_is_said() {
    let (_backend, address) = listen().await;
    let proxy = Running::start(&with_rule("", "", &[address])).await;
    assert!(!proxy.proxy.metrics().contains("_limit_used"), "{}", proxy.proxy.metrics());
    assert_eq!(limits(&proxy).await, Value::Null);
}

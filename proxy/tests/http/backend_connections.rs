//! How many connections a backend may have, over all workers, and what becomes of requests beyond.

use std::time::{Duration, Instant};

use outrigger_testkit::app::App;
use tokio::task::JoinSet;

use crate::support::{Running, Wire, listen, with_rule};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n")
}

async fn with_workers(yaml: &str, workers: usize) -> Running {
    Running::start_with(yaml, |options| options.workers = Some(workers)).await
}

/// The most connections that an application ever had, as the proxy sees it, while `requests` are under way at a time.
async fn all_at_once(proxy: &Running, requests: usize, path: &str) -> (Vec<u16>, f64) {
    let mut under_way = JoinSet::new();
    for _ in 0..requests {
        let (at, request) = (proxy.at("web"), get(path));
        under_way.spawn(async move {
            let mut wire = Wire::connect(at).await;
            wire.send(request).await;
            wire.response().await.status()
        });
    }
    let (mut statuses, mut most) = (Vec::new(), 0.0_f64);
    while statuses.len() < requests {
        let look = tokio::time::sleep(Duration::from_millis(2));
        tokio::select! {
            Some(ended) = under_way.join_next() => statuses.push(ended.unwrap()),
            () = look => {}
        }
        most = most.max(proxy.metric("outrigger_backend_connections_open", &["backend=\"app\""]));
    }
    (statuses, most)
}

#[tokio::test]
async fn a_request_beyond_the_limit_is_refused_at_once_and_told_when_to_come_again() {
    let app = App::builder().start().await;
    let proxy = with_workers(&with_rule("", "limits: { connections: 2 }", &[app.address()]), 2).await;
    let mut slow = Vec::new();
    for open in [1.0, 2.0] {
        let mut wire = proxy.connect().await;
        wire.send(get("/delay/1000")).await;
        proxy.metric_is("outrigger_backend_connections_open", &["backend=\"app\""], open).await;
        slow.push(wire);
    }
    let refused = proxy.ask(&get("/")).await;
    assert_eq!((refused.status(), refused.header("retry-after").as_deref()), (503, Some("1")));
    let why = refused.header("proxy-status").unwrap();
    assert!(why.contains("error=connection_limit_reached") && why.contains("backend app has 2"), "{why}");
    for wire in &mut slow {
        assert_eq!(wire.response().await.status(), 200);
    }
    // Whichever worker it comes to, a request gets a connection that rests now, or the place of one.
    for _ in 0..20 {
        assert_eq!(proxy.ask(&get("/")).await.status(), 200);
    }
}

#[tokio::test]
async fn requests_wait_for_a_connection_where_they_may() {
    let app = App::builder().start().await;
    for workers in [1, 3] {
        let limits = "limits: { connections: 2, waiting: 20, waitTimeout: 20s }";
        let proxy = with_workers(&with_rule("", limits, &[app.address()]), workers).await;
        let (statuses, most) = all_at_once(&proxy, 20, "/delay/20").await;
        assert!(statuses.iter().all(|status| *status == 200), "{workers}: {statuses:?}");
        assert!(most <= 2.0, "{most}");
    }
}

#[tokio::test]
async fn no_more_wait_than_may_and_not_for_longer() {
    let (_backend, address) = listen().await;
    let limits = "limits: { connections: 1, waiting: 2, waitTimeout: 100ms }";
    let proxy = Running::start(&with_rule("", limits, &[address])).await;
    let mut first = proxy.connect().await;
    first.send(get("/never")).await;
    proxy.metric_is("outrigger_backend_connections_open", &["backend=\"app\""], 1.0).await;
    let (statuses, most) = all_at_once(&proxy, 6, "/").await;
    assert_eq!((statuses, most), (vec![503; 6], 1.0));
}

/// A limit is the backend's: who has waited for one endpoint does not wait again for each of the others.
#[tokio::test]
async fn a_request_waits_once_however_many_endpoints_there_are() {
    let (mut backends, mut addresses) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let (backend, address) = listen().await;
        backends.push(backend);
        addresses.push(address);
    }
    for waiting in [5, 0] {
        let limits = format!("limits: {{ connections: 1, waiting: {waiting}, waitTimeout: 400ms }}");
        let proxy = Running::start(&with_rule("", &limits, &addresses)).await;
        let mut first = proxy.connect().await;
        first.send(get("/never")).await;
        proxy.metric_is("outrigger_backend_connections_open", &["backend=\"app\""], 1.0).await;
        let before = Instant::now();
        assert_eq!(proxy.ask(&get("/")).await.status(), 503);
        assert!(before.elapsed() < Duration::from_millis(1_200), "{:?}", before.elapsed());
    }
}

/// That a request has waited too long for a connection that others have says nothing of an endpoint.
#[tokio::test]
async fn an_endpoint_is_not_unreachable_because_others_have_all_connections() {
    let (backend, address) = listen().await;
    let (another, other) = listen().await;
    let fields = "outlierDetection: { consecutiveFailures: 1, consecutiveConnectFailures: 1 }, \
        limits: { connections: 1, waiting: 5, waitTimeout: 20s }, balance: { type: RoundRobin }";
    for timeouts in ["backendRequest: 100ms", "request: 100ms"] {
        let rule = format!("timeouts: {{ {timeouts} }}");
        let proxy = Running::start(&with_rule(&rule, fields, &[address, other])).await;
        let mut first = proxy.connect().await;
        first.send("GET / HTTP/1.1\r\nHost: shop\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n").await;
        let mut callee = tokio::select! {
            callee = Wire::accept(&backend) => callee,
            callee = Wire::accept(&another) => callee,
        };
        callee.request().await;
        callee.send("HTTP/1.1 101 Go\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n").await;
        assert_eq!(first.head().await.status(), 101);
        for _ in 0..3 {
            assert_eq!(proxy.ask(&get("/")).await.status(), 504, "{timeouts}");
        }
        let well = proxy.metric("outrigger_backend_endpoints", &["backend=\"app\"", "state=\"well\""]);
        assert_eq!(well, 2.0, "{timeouts}: {}", proxy.proxy.metrics());
    }
}

/// Whoever waits when a connection of HTTP/2 comes to rest elsewhere gets its place then.
#[tokio::test]
async fn a_connection_that_comes_to_rest_elsewhere_makes_room() {
    let (a, b) = (App::builder().start().await, App::builder().start().await);
    for (protocol, workers) in [("HTTP", 1), ("H2C", 1), ("HTTP", 3), ("H2C", 3)] {
        let limits = "limits: { connections: 1, waiting: 50, waitTimeout: 20s }";
        let fields = format!("protocol: {protocol}, balance: {{ type: RoundRobin }}, {limits}");
        let proxy = with_workers(&with_rule("", &fields, &[a.address(), b.address()]), workers).await;
        let before = Instant::now();
        let (statuses, most) = all_at_once(&proxy, 8, "/delay/50").await;
        assert_eq!((statuses, most), (vec![200; 8], 1.0), "{protocol}, {workers}");
        assert!(before.elapsed() < Duration::from_secs(10), "{protocol}, {workers}: {:?}", before.elapsed());
    }
}

#[tokio::test]
async fn idle_connections_to_other_endpoints_make_room() {
    let (a, b) = (App::builder().start().await, App::builder().start().await);
    for (protocol, workers) in [("HTTP", 1), ("HTTP", 2), ("H2C", 1), ("H2C", 2)] {
        let fields =
            format!("protocol: {protocol}, balance: {{ type: RoundRobin }}, limits: {{ connections: 1 }}");
        let proxy = with_workers(&with_rule("", &fields, &[a.address(), b.address()]), workers).await;
        for _ in 0..10 {
            let response = proxy.ask(&get("/")).await;
            assert_eq!(response.status(), 200, "{protocol}, {workers}: {response:?}");
            let open = proxy.metric("outrigger_backend_connections_open", &["backend=\"app\""]);
            assert!(open <= 1.0, "{open}");
        }
    }
}

#[tokio::test]
async fn http_2_shares_what_there_is() {
    let app = App::builder().start().await;
    let fields = "protocol: H2C, limits: { connections: 1 }";
    let proxy = Running::start(&with_rule("", fields, &[app.address()])).await;
    // More than share a connection where there is no limit.
    let (statuses, most) = all_at_once(&proxy, 150, "/delay/50").await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(most, 1.0);
}

#[tokio::test]
async fn connections_that_are_not_http_count_too() {
    let (backend, address) = listen().await;
    let yaml = with_rule("", "limits: { connections: 1 }", &[address])
        .replace("protocol: HTTP }", "protocol: TCP }")
        .replace("httpRoutes", "tcpRoutes");
    let proxy = Running::start(&yaml).await;
    let mut first = proxy.connect().await;
    first.send("hi").await;
    let mut callee = Wire::accept(&backend).await;
    assert_eq!(callee.exactly(2).await, b"hi");
    assert!(proxy.connect().await.closed().await, "there is no room for it");
    drop(first);
    assert!(callee.closed().await);
    drop(callee);
    proxy.metric_is("outrigger_backend_connections_open", &["backend=\"app\""], 0.0).await;
    let mut third = proxy.connect().await;
    third.send("hi").await;
    assert_eq!(Wire::accept(&backend).await.exactly(2).await, b"hi");
}

#[tokio::test]
async fn a_limit_that_changes_counts_what_is_open() {
    let (backend, address) = listen().await;
    let yaml = with_rule("", "limits: { connections: 2 }", &[address]);
    let proxy = Running::start(&yaml).await;
    let mut wire = proxy.connect().await;
    wire.send(get("/slow")).await;
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    let lowered = yaml.replace("connections: 2", "connections: 1");
    std::fs::write(&proxy.file, lowered.replace("127.0.0.1:0", &proxy.at("web").to_string())).unwrap();
    let revised = crate::support::poll(|| proxy.proxy.revision() == Some(2));
    assert!(revised.await);
    assert_eq!(proxy.ask(&get("/")).await.status(), 503);
    callee.send(OK).await;
    assert_eq!(wire.response().await.status(), 200);
}

#[tokio::test]
async fn a_tls_handshake_that_takes_too_long_is_named() {
    let (backend, address) = listen().await;
    let fields = "tls: { hostname: localhost }, timeouts: { tlsHandshake: 100ms }";
    let proxy = Running::start(&with_rule("", fields, &[address])).await;
    let silent = tokio::spawn(async move { (Wire::accept(&backend).await, backend) });
    let late = proxy.ask(&get("/")).await;
    assert_eq!(late.status(), 504);
    let why = late.header("proxy-status").unwrap();
    assert!(why.contains("connection_timeout") && why.contains("tlsHandshake timeout of 100ms"), "{why}");
    drop(silent);
}

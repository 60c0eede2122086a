//! Kept connections to a backend: for how long they are used again, and what becomes of requests when they close.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use outrigger_testkit::app::App;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::{Running, Wire, listen, one_backend, soon, with_rule};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nhi";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

async fn accept(listener: &TcpListener) -> Wire {
    Wire::new(listener.accept().await.unwrap().0)
}

/// Answers requests, and closes connections on which none has come for `idle`. Counts POSTs by their path.
async fn closes_after(listener: TcpListener, idle: Duration, posts: Arc<[AtomicUsize]>) {
    loop {
        let mut wire = accept(&listener).await;
        let posts = posts.clone();
        tokio::spawn(async move {
            while let Ok(Some(head)) = tokio::time::timeout(idle, wire.try_head()).await {
                let path = head.head.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
                if head.head.starts_with("POST") {
                    wire.exactly(2).await;
                    posts[path.parse::<usize>().unwrap()].fetch_add(1, Relaxed);
                }
                if !wire.try_send(OK).await {
                    break;
                }
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_closes_idle_connections_fails_no_request() {
    const CALLERS: usize = 48;
    const ROUNDS: usize = 16;
    let idle = Duration::from_millis(250);
    let (listener, address) = listen().await;
    let posts: Arc<[AtomicUsize]> = (0..CALLERS * ROUNDS).map(|_| AtomicUsize::new(0)).collect();
    tokio::spawn(closes_after(listener, idle, posts.clone()));
    let proxy = Running::start(&one_backend(&[address])).await;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let at = proxy.at("web");
        callers.spawn(async move {
            let mut wire = Wire::connect(at).await;
            let (mut gets, mut lost) = (0, 0);
            let mut next = tokio::time::Instant::now();
            for round in 0..ROUNDS {
                let get = (caller + round) % 2 == 0;
                let id = caller * ROUNDS + round;
                wire.send(if get { GET.into() } else { POST.replacen('/', &format!("/{id}"), 1) }).await;
                let answered = wire.response().await.status() == 200;
                gets += usize::from(get && !answered);
                lost += usize::from(!get && !answered);
                next += idle.mul_f64(0.9 + 0.2 * fastrand::f64());
                tokio::time::sleep_until(next).await;
            }
            (gets, lost)
        });
    }
    let (mut gets, mut lost) = (0, 0);
    while let Some(ended) = soon(callers.join_next()).await {
        let (some, more) = ended.unwrap();
        gets += some;
        lost += more;
    }
    let twice = posts.iter().filter(|times| times.load(Relaxed) > 1).count();
    println!("{} requests: {gets} GETs and {lost} POSTs failed, {twice} POSTs came twice", CALLERS * ROUNDS);
    assert_eq!((gets, twice), (0, 0));
    // Before the first is seen to close, a POST may be on its way to it.
    assert!(lost <= 2, "{lost} POSTs failed");
    let learned = proxy.metric("outrigger_backend_idle_timeout_seconds", &["backend=\"app\""]);
    assert!((0.2..=0.3).contains(&learned), "{learned}");
}

#[tokio::test]
async fn what_a_server_says_of_its_idle_time_is_kept_to() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&one_backend(&[address])).await;
    let caller = tokio::spawn({
        let mut wire = proxy.connect().await;
        async move {
            wire.send(GET).await;
            assert_eq!(wire.response().await.status(), 200);
            wire
        }
    });
    let mut first = Wire::accept(&backend).await;
    first.request().await;
    first.send("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1, max=100\r\nContent-Length: 0\r\n\r\n").await;
    let mut wire = soon(caller).await.unwrap();
    assert_eq!(proxy.metric("outrigger_backend_idle_timeout_seconds", &["backend=\"app\""]), 1.0);
    // At once, on the same connection; after 0.8 s, on another.
    wire.send(GET).await;
    first.request().await;
    first.send(OK).await;
    assert_eq!(wire.response().await.status(), 200);
    tokio::time::sleep(Duration::from_millis(850)).await;
    wire.send(POST).await;
    let mut second = Wire::accept(&backend).await;
    second.request().await;
    second.send(OK).await;
    assert_eq!(wire.response().await.status(), 200);
}

#[tokio::test]
async fn a_connection_that_closes_while_it_rests_is_let_go_at_once_and_its_time_learned() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&one_backend(&[address])).await;
    let mut wire = proxy.connect().await;
    wire.send(GET).await;
    let mut first = Wire::accept(&backend).await;
    first.request().await;
    let rests = Instant::now();
    first.send(OK).await;
    assert_eq!(wire.response().await.status(), 200);
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(first);
    proxy.metric_is("outrigger_backend_connections_open", &["backend=\"app\""], 0.0).await;
    let longest = rests.elapsed().as_secs_f64();
    let learned = proxy.metric("outrigger_backend_idle_timeout_seconds", &["backend=\"app\""]);
    assert!((0.09..=longest).contains(&learned), "{learned}");
}

#[tokio::test]
async fn connections_are_kept_as_long_as_the_backend_says() {
    let app = App::builder().start().await;
    let fields = "timeouts: { idleConnection: 50ms }";
    let proxy = Running::start(&with_rule("", fields, &[app.address()])).await;
    let mut wire = proxy.connect().await;
    let mut peers = Vec::new();
    for _ in 0..2 {
        wire.send(GET).await;
        peers.push(wire.response().await.json()["peer"].clone());
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_ne!(peers[0], peers[1]);
}

#[tokio::test]
async fn a_connection_gets_no_more_requests_once_it_is_too_old() {
    for protocol in ["HTTP", "H2C"] {
        let app = App::builder().start().await;
        let fields = format!("protocol: {protocol}, timeouts: {{ maxConnectionAge: 300ms }}");
        let proxy = Running::start(&with_rule("", &fields, &[app.address()])).await;
        let mut wire = proxy.connect().await;
        let mut connections: Vec<(serde_json::Value, Instant, Instant)> = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(1) {
            let asked = Instant::now();
            wire.send(GET).await;
            let response = wire.response().await;
            assert_eq!(response.status(), 200);
            let peer = response.json()["peer"].clone();
            match connections.last_mut() {
                Some((last, _, until)) if *last == peer => *until = asked,
                // It was made before it answered, however long ago it was asked for.
                _ => connections.push((peer, Instant::now(), asked)),
            }
        }
        assert!((3..=5).contains(&connections.len()), "{protocol}: {connections:?}");
        for (_, from, until) in connections {
            let age = until.saturating_duration_since(from);
            assert!(age <= Duration::from_millis(300), "{protocol}: {age:?}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_is_gone_from_the_configuration_loses_its_idle_connections_at_once() {
    for protocol in ["HTTP", "H2C"] {
        let (app, other) = (App::builder().start().await, App::builder().start().await);
        let fields = format!("protocol: {protocol}");
        let proxy = Running::start(&with_rule("", &fields, &[app.address()])).await;
        // A request under way still has the table before.
        let mut slow = proxy.connect().await;
        slow.send(GET.replacen('/', "/delay/400", 1)).await;
        proxy.metric_is("outrigger_requests_in_flight", &[], 1.0).await;
        let mut wire = proxy.connect().await;
        wire.send(GET).await;
        assert_eq!(wire.response().await.status(), 200);
        let yaml = with_rule("", &fields, &[other.address()]);
        std::fs::write(&proxy.file, yaml.replace("127.0.0.1:0", &proxy.at("web").to_string())).unwrap();
        // That of the request under way is left; over HTTP/2 there was no other.
        proxy.metric_is("outrigger_backend_connections_open", &["backend=\"app\""], 1.0).await;
        assert_eq!(proxy.metric("outrigger_requests_in_flight", &[]), 1.0, "{protocol}");
        assert_eq!(slow.response().await.status(), 200);
        proxy.metric_is("outrigger_backend_connections_open", &["backend=\"app\""], 0.0).await;
    }
}

/// How long a connection has rested is counted to when the request is written to it, not to when its caller began it.
#[tokio::test]
async fn a_request_that_takes_long_to_come_is_not_written_to_a_connection_that_rested_meanwhile() {
    let (backend, address) = listen().await;
    let rule = "filters: [{ type: Buffer, buffer: { maxBytes: 100 } }]";
    let proxy = Running::start(&with_rule(rule, "", &[address])).await;
    let mut caller = proxy.connect().await;
    caller.send(GET).await;
    let mut callee = accept(&backend).await;
    callee.request().await;
    callee.send("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(caller.response().await.status(), 200);
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nh").await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    caller.send("i").await;
    let mut another = soon(accept(&backend)).await;
    assert_eq!(another.request().await.text(), "hi");
    another.send(OK).await;
    assert_eq!(caller.response().await.status(), 200);
}

//! Outlier detection: what is seen of an endpoint by the requests that it gets.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::stub::{Mood, Stub};
use crate::support::{Running, Wire, nowhere, poll, soon, with_rule};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop\r\n\r\n";
const ENDPOINTS: &str = "outrigger_backend_endpoints";

fn backend(detection: &str) -> String {
    format!("balance: {{ type: RoundRobin }}, outlierDetection: {{ {detection} }}")
}

async fn start(rule: &str, detection: &str, endpoints: &[SocketAddr]) -> Running {
    Running::start(&with_rule(rule, &backend(detection), endpoints)).await
}

/// How many of so many requests failed, each on a connection of its own.
async fn failures(proxy: &Running, count: usize) -> usize {
    let mut failures = 0;
    for _ in 0..count {
        let mut wire = proxy.connect().await;
        wire.send(GET).await;
        failures += usize::from(!whole(&mut wire).await);
    }
    failures
}

/// Whether a response of 200 comes, to its end.
async fn whole(wire: &mut Wire) -> bool {
    let Some(head) = wire.try_head().await else { return false };
    if head.status() != 200 {
        return false;
    }
    head.header("transfer-encoding").is_none() || wire.some().await.ends_with(b"0\r\n\r\n")
}

#[tokio::test]
async fn exactly_so_many_failures_in_a_row_are_seen_by_callers() {
    let cases = [
        ("", Mood::Status(503)),
        ("", Mood::Status(500)),
        ("", Mood::Break),
        ("timeouts: { backendRequest: 50ms }", Mood::Hang),
        ("timeouts: { request: 50ms }", Mood::Hang),
    ];
    for (rule, mood) in cases {
        let (good, bad) = (Stub::start().await, Stub::start().await);
        let config = with_rule(rule, &backend("consecutiveFailures: 3"), &[good.address, bad.address]);
        let proxy = Running::start_with(&config, |options| options.workers = Some(2)).await;
        assert_eq!(failures(&proxy, 10).await, 0);
        let before = bad.requests();
        bad.is(mood);
        assert_eq!(failures(&proxy, 40).await, 3, "{mood:?} {rule}");
        assert_eq!(bad.requests() - before, 3, "{mood:?} {rule}");
        let ejections = ["backend=\"app\"", "cause=\"consecutive_failures\""];
        assert!((proxy.metric("outrigger_backend_ejections_total", &ejections) - 1.0).abs() < 0.1);
        assert!((proxy.metric(ENDPOINTS, &["state=\"ejected\""]) - 1.0).abs() < 0.1);
        assert!((proxy.metric(ENDPOINTS, &["state=\"well\""]) - 1.0).abs() < 0.1);
    }
}

#[tokio::test]
async fn successes_between_failures_keep_an_endpoint_in() {
    let (good, bad) = (Stub::start().await, Stub::start().await);
    let proxy = start("", "consecutiveFailures: 3", &[good.address, bad.address]).await;
    for _ in 0..5 {
        for (mood, count) in [(Mood::Status(500), 2), (Mood::Status(404), 1)] {
            bad.is(mood);
            let until = bad.requests() + count;
            while bad.requests() < until {
                proxy.ask(&GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
            }
        }
    }
    assert!((proxy.metric(ENDPOINTS, &["state=\"well\""]) - 2.0).abs() < 0.1);
}

#[tokio::test]
async fn an_endpoint_returns_after_its_time_and_is_ejected_for_longer_the_next_time() {
    let (good, bad) = (Stub::start().await, Stub::start().await);
    let detection = "consecutiveFailures: 2, baseEjectionTime: 400ms, maxEjectionTime: 10s";
    let proxy = start("", detection, &[good.address, bad.address]).await;
    bad.is(Mood::Status(500));
    let left = async || {
        let shown = endpoints(&proxy).await;
        shown["backends"][0]["endpoints"][1]["stillSeconds"].as_f64()
    };
    assert_eq!(failures(&proxy, 20).await, 2);
    assert!(left().await.is_some_and(|left| left <= 0.4));
    while bad.requests() < 4 {
        failures(&proxy, 1).await;
    }
    assert!(left().await.is_some_and(|left| left > 0.4 && left <= 0.8), "twice as long");
    bad.is(Mood::Status(200));
    while bad.requests() < 6 {
        assert_eq!(failures(&proxy, 1).await, 0);
    }
    proxy.metric_is(ENDPOINTS, &["state=\"well\""], 2.0).await;
}

/// What the admin interface shows of the endpoints.
pub async fn endpoints(proxy: &Running) -> serde_json::Value {
    let mut wire = Wire::connect(proxy.proxy.addresses().admin.unwrap()).await;
    wire.send("GET /endpoints HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    wire.response().await.json()
}

#[tokio::test]
async fn no_more_are_ejected_than_may_be() {
    let stubs = [Stub::start().await, Stub::start().await, Stub::start().await, Stub::start().await];
    for stub in &stubs {
        stub.is(Mood::Status(500));
    }
    let detection = "consecutiveFailures: 1, maxEjectionPercent: 50";
    let proxy = start("", detection, &stubs.each_ref().map(|stub| stub.address)).await;
    assert_eq!(failures(&proxy, 40).await, 40);
    assert!((proxy.metric(ENDPOINTS, &["state=\"ejected\""]) - 2.0).abs() < 0.1);
    let alone = start("", "consecutiveFailures: 1", &[stubs[0].address]).await;
    assert_eq!(failures(&alone, 10).await, 10);
    assert!((alone.metric(ENDPOINTS, &["state=\"well\""]) - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn failed_connections_are_counted_apart_and_nobody_sees_them() {
    let (good, gone) = (Stub::start().await, nowhere().await);
    let detection = "consecutiveFailures: 1, consecutiveConnectFailures: 1";
    let proxy = start("", detection, &[good.address, gone]).await;
    assert_eq!(failures(&proxy, 20).await, 0);
    let causes = |cause: &str| proxy.metric("outrigger_backend_ejections_total", &[cause]);
    assert!((causes("cause=\"consecutive_connect_failures\"") - 1.0).abs() < 0.1);
    assert!(causes("cause=\"consecutive_failures\"") < 0.1);
    let shown = endpoints(&proxy).await;
    let shown = &shown["backends"][0]["endpoints"][1];
    assert_eq!(
        (&shown["state"], &shown["address"]),
        (&"ejected".into(), &gone.to_string().into()),
        "{shown}"
    );
    assert_eq!(shown["why"], "too many connections to it in a row failed");
}

#[tokio::test]
async fn without_detection_only_failed_connections_keep_requests_away() {
    let (bad, gone) = (Stub::start().await, nowhere().await);
    bad.is(Mood::Status(500));
    let config = with_rule("", "balance: { type: RoundRobin }", &[bad.address, gone]);
    let proxy = Running::start(&config).await;
    assert_eq!(failures(&proxy, 20).await, 20);
    let shown = endpoints(&proxy).await;
    let states = |at: usize| shown["backends"][0]["endpoints"][at]["state"].clone();
    assert_eq!((states(0), states(1)), ("well".into(), "unreachable".into()), "{shown}");
}

#[tokio::test]
async fn comparison_finds_who_is_slower_or_fails_more_than_the_others() {
    let stubs = [Stub::start().await, Stub::start().await, Stub::start().await];
    stubs[1].is(Mood::Status(500));
    let detection = "consecutiveFailures: 0, interval: 100ms, \
                     successRate: { minRequests: 2, minEndpoints: 3, stdevFactor: 1000 }";
    let proxy = start("", detection, &stubs.each_ref().map(|stub| stub.address)).await;
    let cause = ["cause=\"success_rate\""];
    while proxy.metric("outrigger_backend_ejections_total", &cause) < 0.5 {
        failures(&proxy, 10).await;
    }
    assert_eq!(failures(&proxy, 20).await, 0);
    let shown = endpoints(&proxy).await;
    assert_eq!(shown["backends"][0]["endpoints"][1]["state"], "ejected", "{shown}");
}

#[tokio::test]
async fn comparison_finds_who_is_far_slower_than_the_others() {
    let stubs = [Stub::start().await, Stub::start().await, Stub::start().await];
    stubs[2].is(Mood::Late(40));
    let detection = "consecutiveFailures: 0, interval: 100ms, latency: { minRequests: 2, minEndpoints: 3 }";
    let proxy = start("", detection, &stubs.each_ref().map(|stub| stub.address)).await;
    while proxy.metric("outrigger_backend_ejections_total", &["cause=\"latency\""]) < 0.5 {
        assert_eq!(failures(&proxy, 3).await, 0);
    }
    let before = stubs[2].requests();
    assert_eq!(failures(&proxy, 20).await, 0);
    assert_eq!(stubs[2].requests(), before, "it gets no more");
    let shown = endpoints(&proxy).await;
    let states: Vec<_> = (0..3).map(|at| shown["backends"][0]["endpoints"][at]["state"].clone()).collect();
    assert_eq!(states, ["well", "well", "ejected"], "{shown}");
}

async fn call(caller: &mut SendRequest<Full<Bytes>>) -> String {
    let mut request = Request::post("http://shop/shop.Shop/Buy").body(Full::default()).unwrap();
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let (parts, body) = soon(caller.send_request(request)).await.unwrap().into_parts();
    let body = soon(body.collect()).await.unwrap();
    let fields = body.trailers().unwrap_or(&parts.headers);
    fields["grpc-status"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_status_of_grpc_counts_in_the_head_and_in_the_trailers() {
    let cases = [
        (Mood::Trailers(14), 2),
        (Mood::TrailersOnly(13), 2),
        (Mood::Trailers(4), 2),
        // The call's own doing.
        (Mood::Trailers(5), 10),
        (Mood::TrailersOnly(3), 10),
    ];
    for (mood, seen) in cases {
        let (good, bad) = (Stub::start_http2().await, Stub::start_http2().await);
        let backend = backend("consecutiveFailures: 2") + ", protocol: H2C";
        let proxy = Running::start(&with_rule("", &backend, &[good.address, bad.address])).await;
        good.is(Mood::Trailers(0));
        bad.is(mood);
        let stream = TcpStream::connect(proxy.at("web")).await.unwrap();
        let (mut caller, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut failures = 0;
        for _ in 0..20 {
            failures += usize::from(call(&mut caller).await != "0");
        }
        assert_eq!((failures, bad.requests()), (seen, seen), "{mood:?}");
    }
}

#[tokio::test]
async fn detection_that_is_taken_away_lets_everybody_return() {
    let (good, bad) = (Stub::start().await, Stub::start().await);
    let addresses = [good.address, bad.address];
    let proxy = start("", "consecutiveFailures: 1", &addresses).await;
    bad.is(Mood::Status(500));
    assert_eq!(failures(&proxy, 10).await, 1);
    std::fs::write(&proxy.file, with_rule("", "balance: { type: RoundRobin }", &addresses)).unwrap();
    let revision = proxy.proxy.revision();
    assert!(poll(|| proxy.proxy.revision() > revision).await);
    assert_eq!(failures(&proxy, 10).await, 5);
}

//! Active checks: endpoints that are asked.

use std::net::SocketAddr;

use crate::outliers::endpoints;
use crate::stub::{Mood, Stub};
use crate::support::{Running, nowhere, poll, with_rule};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
const HTTP: &str = "type: HTTP, path: /health, interval: 20ms";
const CHECKS: &str = "outrigger_backend_health_checks_total";

fn config(check: &str, more: &str, addresses: &[SocketAddr]) -> String {
    let backend = format!("balance: {{ type: RoundRobin }}, healthCheck: {{ {check} }}{more}");
    with_rule("", &backend, addresses)
}

async fn start(check: &str, addresses: &[SocketAddr]) -> Running {
    Running::start(&config(check, "", addresses)).await
}

async fn state_is(proxy: &Running, state: &str, count: f64) {
    let state = format!("state=\"{state}\"");
    proxy.metric_is("outrigger_backend_endpoints", &[&state], count).await;
}

#[tokio::test]
async fn an_endpoint_whose_health_fails_gets_nothing_until_it_is_well_again() {
    let (good, bad) = (Stub::start().await, Stub::start().await);
    bad.says_of_its_health(Mood::Status(503));
    let proxy = start(HTTP, &[good.address, bad.address]).await;
    // The first answer counts at once.
    state_is(&proxy, "ill", 1.0).await;
    let before = bad.requests();
    for _ in 0..20 {
        assert_eq!(proxy.ask(GET).await.status(), 200);
    }
    assert_eq!(bad.requests(), before);
    let shown = endpoints(&proxy).await;
    let shown = &shown["backends"][0]["endpoints"][1];
    assert_eq!(
        (&shown["state"], &shown["lastCheck"]),
        (&"ill".into(), &"answered 503 Service Unavailable".into()),
        "{shown}"
    );
    bad.says_of_its_health(Mood::Status(204));
    state_is(&proxy, "well", 2.0).await;
    let before = bad.requests();
    for _ in 0..10 {
        assert_eq!(proxy.ask(GET).await.status(), 200);
    }
    assert_eq!(bad.requests() - before, 5);
    assert!(proxy.metric(CHECKS, &["backend=\"app\"", "result=\"ok\""]) > 1.0);
    assert!(proxy.metric(CHECKS, &["backend=\"app\"", "result=\"failed\""]) > 0.5);
}

#[tokio::test]
async fn thresholds_are_answers_in_a_row() {
    let (good, bad) = (Stub::start().await, Stub::start().await);
    let proxy = start(
        "type: HTTP, path: /health, interval: 5ms, unhealthyThreshold: 5, statuses: [418]",
        &[good.address, bad.address],
    )
    .await;
    // By statuses, both are ill: then both are used.
    state_is(&proxy, "ill", 2.0).await;
    for stub in [&good, &bad] {
        stub.says_of_its_health(Mood::Status(418));
    }
    state_is(&proxy, "well", 2.0).await;
    bad.says_of_its_health(Mood::Status(200));
    let from = bad.checks();
    state_is(&proxy, "ill", 1.0).await;
    assert!(bad.checks() - from >= 5);
}

#[tokio::test]
async fn where_nobody_is_well_everybody_is_used() {
    let only = Stub::start().await;
    only.says_of_its_health(Mood::Status(500));
    let proxy = start(HTTP, &[only.address]).await;
    state_is(&proxy, "ill", 1.0).await;
    assert_eq!(proxy.ask(GET).await.status(), 200);
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_in_time_is_ill() {
    let (good, bad) = (Stub::start().await, Stub::start().await);
    bad.says_of_its_health(Mood::Hang);
    let check = format!("{HTTP}, timeout: 50ms");
    let proxy = start(&check, &[good.address, bad.address]).await;
    state_is(&proxy, "ill", 1.0).await;
    assert!(proxy.metric(CHECKS, &["result=\"timeout\""]) > 0.5);
    let shown = endpoints(&proxy).await;
    assert_eq!(shown["backends"][0]["endpoints"][1]["lastCheck"], "no answer in time", "{shown}");
}

#[tokio::test]
async fn a_connection_is_enough_where_nothing_else_is_asked() {
    let (good, gone) = (Stub::start().await, nowhere().await);
    let proxy = start("type: TCP, interval: 20ms", &[good.address, gone]).await;
    state_is(&proxy, "ill", 1.0).await;
    let _back = Stub::start_at(&gone.to_string(), false).await;
    state_is(&proxy, "well", 2.0).await;
    assert_eq!(good.requests() + good.checks(), 0, "nothing was said");
}

#[tokio::test]
async fn grpc_is_asked_by_its_own_protocol() {
    let (good, bad) = (Stub::start_http2().await, Stub::start_http2().await);
    good.says_of_its_health(Mood::Serving(1));
    for (mood, said) in [
        (Mood::Serving(2), "answered NOT_SERVING"),
        (Mood::Serving(3), "answered SERVICE_UNKNOWN"),
        (Mood::TrailersOnly(12), "answered the status 12 of gRPC"),
        (Mood::Status(404), "answered 404 Not Found"),
    ] {
        bad.says_of_its_health(mood);
        let check = "type: GRPC, service: shop.Shop, interval: 20ms";
        let proxy = Running::start(&config(check, ", protocol: H2C", &[good.address, bad.address])).await;
        state_is(&proxy, "ill", 1.0).await;
        let shown = endpoints(&proxy).await;
        assert_eq!(shown["backends"][0]["endpoints"][1]["lastCheck"], said, "{shown}");
        bad.says_of_its_health(Mood::Serving(1));
        state_is(&proxy, "well", 2.0).await;
    }
}

#[tokio::test]
async fn http_2_is_asked_in_http_2_and_another_port_in_its_place() {
    let stub = Stub::start_http2().await;
    let beside = Stub::start_http2().await;
    let proxy = Running::start(&config(HTTP, ", protocol: H2C", &[stub.address])).await;
    assert!(poll(|| stub.checks() > 1).await);
    state_is(&proxy, "well", 1.0).await;
    let elsewhere = format!("{HTTP}, port: {}", beside.address.port());
    let proxy = Running::start(&config(&elsewhere, ", protocol: H2C", &[stub.address])).await;
    beside.says_of_its_health(Mood::Status(500));
    state_is(&proxy, "ill", 1.0).await;
    beside.says_of_its_health(Mood::Status(200));
    state_is(&proxy, "well", 1.0).await;
}

#[tokio::test]
async fn what_is_known_survives_a_change_of_the_configuration() {
    let (good, bad) = (Stub::start().await, Stub::start().await);
    bad.says_of_its_health(Mood::Status(503));
    let check = "type: HTTP, path: /health, interval: 1h";
    let addresses = [good.address, bad.address];
    let proxy = start(check, &addresses).await;
    state_is(&proxy, "ill", 1.0).await;
    assert_eq!((good.checks(), bad.checks()), (1, 1));
    for turn in 0..3 {
        let before = proxy.proxy.revision();
        let third = Stub::start().await;
        let all = [good.address, bad.address, third.address];
        std::fs::write(&proxy.file, config(check, ", connectTimeout: 2s", &all[..2 + turn % 2])).unwrap();
        assert!(poll(|| proxy.proxy.revision() > before).await);
        state_is(&proxy, "ill", 1.0).await;
        for _ in 0..10 {
            assert_eq!(proxy.ask(GET).await.status(), 200);
        }
    }
    assert_eq!((bad.requests(), bad.checks()), (0, 1), "it was asked once, and never used");
    let before = proxy.proxy.revision();
    std::fs::write(&proxy.file, with_rule("", "", &addresses)).unwrap();
    assert!(poll(|| proxy.proxy.revision() > before).await);
    state_is(&proxy, "well", 2.0).await;
    assert_eq!(bad.checks(), 1, "nobody is asked any more");
}

#[tokio::test]
async fn many_endpoints_are_asked_a_few_at_a_time() {
    let stub = Stub::start_at("0.0.0.0:0", false).await;
    let port = stub.address.port();
    let addresses: Vec<SocketAddr> =
        (0..600).map(|n: u32| ([127, 1, (n / 200) as u8, (n % 200) as u8 + 1], port).into()).collect();
    stub.says_of_its_health(Mood::Status(500));
    let proxy = start("type: HTTP, path: /health, interval: 500ms", &addresses).await;
    state_is(&proxy, "ill", 600.0).await;
    stub.says_of_its_health(Mood::Status(200));
    state_is(&proxy, "well", 600.0).await;
    assert!(stub.most_open() <= 64, "{}", stub.most_open());
}

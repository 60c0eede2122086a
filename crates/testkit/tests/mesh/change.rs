//! Ten thousand requests, while what carries them changes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use crate::identity::certificate;
use crate::load::Load;
use crate::story::{DAY, Shop};

const REQUESTS: usize = 10_000;

#[tokio::test]
async fn no_request_fails_while_weights_change() {
    let shop = Shop::open(DAY).await;
    let shares = |first: u32| json!({ "backendRefs": [{ "name": "v1", "weight": first }, { "name": "v2", "weight": 100 - first }] });
    shop.route(shares(50)).await;
    let mut load = Load::start(&shop.web, Method::GET, "/");
    for change in 0..100 {
        load.reached(REQUESTS / 100 * change).await;
        shop.route(shares(change as u32)).await;
    }
    load.reached(REQUESTS).await;
    let tally = load.end().await;
    tally.is_whole(REQUESTS);
    for version in ["v1", "v2"] {
        assert!(tally.by_app.get(version).is_some_and(|requests| *requests > 1000), "{tally:?}");
    }
    assert_eq!(tally.connections, 8, "no caller loses its connection by a change");
}

#[tokio::test]
async fn no_request_fails_while_an_application_restarts() {
    let mut shop = Shop::open(DAY).await;
    shop.route_to_both().await;
    let mut load = Load::start(&shop.web, Method::GET, "/");
    load.more(1000).await;
    for _ in 0..4 {
        shop.v1.app.stop().await;
        load.more(1000).await;
        shop.v1.restart_app().await.unwrap();
        load.more(1000).await;
    }
    load.reached(REQUESTS).await;
    load.end().await.is_whole(REQUESTS);
}

#[tokio::test]
async fn no_request_fails_while_a_sidecar_restarts() {
    let mut shop = Shop::open(DAY).await;
    shop.route_to_both().await;
    // Not idempotent: each is sent again only where it is known not to have reached the application.
    let mut load = Load::start(&shop.web, Method::POST, "/");
    load.more(1000).await;
    for _ in 0..4 {
        shop.v1.sidecar.stop().await;
        load.more(1000).await;
        shop.v1.sidecar.start().await.unwrap();
        load.more(1000).await;
    }
    load.reached(REQUESTS).await;
    load.end().await.is_whole(REQUESTS);
}

#[tokio::test]
async fn no_idempotent_request_fails_when_an_application_is_killed() {
    let mut shop = Shop::open(DAY).await;
    let retry = json!({ "attempts": 2, "codes": [502, 503], "backoff": "10ms" });
    shop.route(json!({ "backendRefs": [{ "name": "api" }], "retry": retry })).await;
    let mut load = Load::start(&shop.web, Method::GET, "/delay/2");
    load.more(500).await;
    for _ in 0..3 {
        shop.v1.app.kill().await;
        load.more(500).await;
        shop.v1.restart_app().await.unwrap();
        load.more(500).await;
    }
    load.end().await.is_whole(3500);
}

#[tokio::test]
async fn no_request_fails_when_a_sidecar_is_killed() {
    let mut shop = Shop::open(DAY).await;
    let retry = json!({ "attempts": 2, "codes": [502, 503], "backoff": "10ms" });
    shop.route(json!({ "backendRefs": [{ "name": "api" }], "retry": retry })).await;
    let mut load = Load::start(&shop.web, Method::GET, "/delay/2");
    load.more(500).await;
    for _ in 0..3 {
        shop.v1.sidecar.kill();
        load.more(500).await;
        shop.v1.sidecar.start().await.unwrap();
        load.more(500).await;
    }
    load.end().await.is_whole(3500);
}

#[tokio::test]
async fn no_request_fails_while_certificates_rotate() {
    // Renewed at half life: several times within the test.
    let shop = Shop::open(Duration::from_secs(4)).await;
    shop.route_to_both().await;
    let mut load = Load::start(&shop.web, Method::GET, "/");
    let (mut seen, started) = (BTreeSet::new(), Instant::now());
    // Beside those who keep their connections, somebody new comes now and then.
    while seen.len() < 4 {
        assert!(started.elapsed() < Duration::from_secs(30), "{} certificates", seen.len());
        load.more(50).await;
        seen.insert(certificate(&shop.mesh, &shop.v1.sidecar).await);
        assert_eq!(shop.web.caller().get("api", "/").await.unwrap().status, 200);
    }
    load.reached(REQUESTS).await;
    let tally = load.end().await;
    tally.is_whole(REQUESTS);
    assert_eq!(tally.connections, 8, "no connection is dropped by a rotation");
}

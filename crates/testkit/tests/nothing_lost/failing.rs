//! A backend that always fails is not buried under what is sent again.

use std::time::Duration;

use outrigger_testkit::load::{Kind, Load, Traffic};
use outrigger_testkit::mesh::Mesh;
use serde_json::json;
use tokio::time::Instant;

use crate::stage::{put_backend, route};

/// Counts at the application what arrives of so many seconds of requests for `path`.
async fn fail(path: &str, per_second: u32, length: Duration) {
    let mesh = Mesh::start().await.unwrap();
    let (one, two) = (mesh.app("api-1").start().await.unwrap(), mesh.app("api-2").start().await.unwrap());
    let web = mesh.sidecar("web").start().await.unwrap();
    put_backend(&mesh, json!({ "endpoints": [one.sidecar.endpoint(), two.sidecar.endpoint()] })).await;
    route(&mesh, &web, json!({ "retry": { "attempts": 5, "codes": [502, 503], "backoff": "2ms" } })).await;
    let traffic = Traffic { path: path.into(), ..Traffic::new(Kind::Http1, per_second) };
    let began = Instant::now();
    let load = Load::start(web.outbound(), traffic);
    tokio::time::sleep(length).await;
    let tally = load.end().await;
    let took = began.elapsed().as_secs_f64();
    let arrived = one.app.requests() + two.app.requests();
    println!("{path}: {} requests in {took:.1} s, {arrived} arrived", tally.requests);
    assert_eq!(tally.failures.len() as u64, tally.requests, "all fail");
    let most = tally.requests as f64 * 1.2 + 10.0 * took.ceil();
    assert!(arrived as f64 <= most, "{arrived} arrived of {} requests, more than {most}", tally.requests);
    assert!(arrived > tally.requests, "some are sent again");
}

#[tokio::test]
async fn a_backend_that_always_answers_503_gets_a_fifth_more_at_most() {
    fail("/status/503", 200, Duration::from_secs(6)).await;
}

#[tokio::test]
async fn a_backend_that_always_breaks_off_gets_a_fifth_more_at_most() {
    fail("/break", 200, Duration::from_secs(6)).await;
}

/// `cargo test --release -p outrigger-testkit --test nothing_lost -- --ignored --exact failing::a_backend_that_fails_for_a_minute`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: 1,000 requests a second for a minute, of each kind"]
async fn a_backend_that_fails_for_a_minute() {
    fail("/status/503", 1000, Duration::from_mins(1)).await;
    fail("/break", 1000, Duration::from_mins(1)).await;
}

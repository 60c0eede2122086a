//! A sidecar that leaves: those that hold connections to it hear it there, before anybody else tells them.
#![allow(clippy::float_cmp, reason = "metrics are whole numbers")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use outrigger_config::Kind;
use outrigger_testkit::mesh::{Member, Mesh, Sidecar};
use serde_json::json;

/// Two instances of an application, and a sidecar that calls them in turn.
async fn stage(mesh: &Mesh) -> (Member, Member, Sidecar) {
    let (one, two) = (mesh.app("one").start().await.unwrap(), mesh.app("two").start().await.unwrap());
    let web = mesh.sidecar("web").start().await.unwrap();
    let endpoints = [one.sidecar.endpoint(), two.sidecar.endpoint()];
    let spec = json!({ "endpoints": endpoints, "balance": { "type": "RoundRobin" } });
    mesh.put(Kind::Backend, "api", spec).await.unwrap();
    let route =
        json!({ "listeners": [web.outbound_name()], "rules": [{ "backendRefs": [{ "name": "api" }] }] });
    let revision = mesh.put(Kind::HttpRoute, "api", route).await.unwrap();
    mesh.settled(revision).await.unwrap();
    (one, two, web)
}

/// The sum of a metric of a sidecar over the lines that have all of these parts.
fn metric(of: &Sidecar, name: &str, parts: &[&str]) -> f64 {
    let text = of.proxy().unwrap().metrics();
    let mine =
        text.lines().filter(|line| line.starts_with(name) && parts.iter().all(|part| line.contains(part)));
    mine.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < patience, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn peers_with_idle_connections_go_elsewhere_before_any_configuration_says_so() {
    let mesh = Mesh::start().await.unwrap();
    let (mut one, _two, web) = stage(&mesh).await;
    let mut caller = web.caller();
    let mut apps = Vec::new();
    for _ in 0..4 {
        apps.push(caller.get("api", "/").await.unwrap().app().to_owned());
    }
    assert!(apps.contains(&"one".into()) && apps.contains(&"two".into()), "{apps:?}");
    let revision = web.proxy().unwrap().revision();
    one.sidecar.stop().await;
    until("the word of it has come", || {
        metric(&web, "outrigger_backend_endpoints", &["backend=\"api\"", "state=\"leaving\""]) == 1.0
    })
    .await;
    for nth in 0..40 {
        let method = if nth % 2 == 0 { Method::GET } else { Method::POST };
        let answer = caller.call(method, "api", "/", Bytes::from_static(b"hi")).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.app()), (200, "two"));
    }
    // It was not even tried.
    let refused = ["refused", "failed"].map(|result| format!("result=\"{result}\""));
    for result in &refused {
        assert_eq!(metric(&web, "outrigger_backend_connections_total", &["backend=\"api\"", result]), 0.0);
    }
    assert_eq!(web.proxy().unwrap().revision(), revision);
}

#[tokio::test]
async fn one_that_was_said_to_leave_and_is_there_again_is_found_to_stay() {
    let mesh = Mesh::start().await.unwrap();
    let (mut one, mut two, web) = stage(&mesh).await;
    let mut caller = web.caller();
    for _ in 0..4 {
        assert_eq!(caller.get("api", "/").await.unwrap().status, 200);
    }
    one.sidecar.stop().await;
    until("the word of it has come", || {
        metric(&web, "outrigger_backend_endpoints", &["backend=\"api\"", "state=\"leaving\""]) == 1.0
    })
    .await;
    // Started anew where it was; but now there is no other that could be asked instead.
    one.sidecar.start().await.unwrap();
    two.sidecar.stop().await;
    until("the word of the other has come", || {
        metric(&web, "outrigger_backend_endpoints", &["backend=\"api\"", "state=\"leaving\""]) == 2.0
    })
    .await;
    for _ in 0..20 {
        let answer = caller.get("api", "/").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.app()), (200, "one"));
    }
    assert_eq!(metric(&web, "outrigger_backend_endpoints", &["backend=\"api\"", "state=\"well\""]), 1.0);
}

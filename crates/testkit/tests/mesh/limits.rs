//! A sidecar whose application has enough to do sends callers elsewhere, with proof that nothing was delivered.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use outrigger_config::Kind;
use outrigger_testkit::mesh::{Member, Mesh};
use serde_json::json;

/// Its application works on one request at a time.
async fn limit(mesh: &Mesh, member: &Member) {
    let name = format!("app-{}", member.sidecar.name());
    let backend = json!({ "endpoints": [{ "address": member.app.address() }], "limits": { "requests": 1 } });
    mesh.put(Kind::Backend, &name, backend).await.unwrap();
}

/// Has one more request hang that one of the applications has.
async fn hang(web: &outrigger_testkit::mesh::Sidecar, apps: [&Member; 2]) -> tokio::task::JoinHandle<()> {
    let arrived = || apps.iter().map(|member| member.app.requests()).sum::<u64>();
    let (before, mut caller) = (arrived(), web.caller());
    let hanging = tokio::spawn(async move {
        let _ = caller.call(Method::POST, "api", "/hang", Bytes::from_static(b"x")).await;
    });
    let there = async {
        while arrived() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), there).await.expect("the request arrives");
    hanging
}

#[tokio::test]
async fn a_request_goes_elsewhere_where_one_application_has_enough_to_do() {
    let mesh = Mesh::start().await.unwrap();
    let (one, two) = (mesh.app("one").start().await.unwrap(), mesh.app("two").start().await.unwrap());
    let web = mesh.sidecar("web").start().await.unwrap();
    limit(&mesh, &one).await;
    limit(&mesh, &two).await;
    let endpoints = [one.sidecar.endpoint(), two.sidecar.endpoint()];
    let backend = json!({ "endpoints": endpoints, "balance": { "type": "RoundRobin" } });
    mesh.put(Kind::Backend, "api", backend).await.unwrap();
    let route =
        json!({ "listeners": [web.outbound_name()], "rules": [{ "backendRefs": [{ "name": "api" }] }] });
    let revision = mesh.put(Kind::HttpRoute, "api", route).await.unwrap();
    mesh.settled(revision).await.unwrap();

    let first = hang(&web, [&one, &two]).await;
    let (full, free) = if one.app.requests() > 0 { (&one, &two) } else { (&two, &one) };
    let mut caller = web.caller();
    for number in 0..20 {
        let answer = caller.call(Method::POST, "api", "/", Bytes::from_static(b"once")).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.app()), (200, free.app.name()), "{number}");
    }
    // Every other of them came to the one that is full first, which is not taken for one that is gone.
    assert_eq!((full.app.requests(), free.app.requests()), (1, 20));
    let second = hang(&web, [&one, &two]).await;
    let refused = caller.call(Method::POST, "api", "/", Bytes::from_static(b"never")).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.headers["retry-after"].as_bytes()), (503, &b"1"[..]));
    let status = refused.proxy_status();
    assert!(status.starts_with("outrigger; error=http_request_limit_reached"), "{status}");
    assert!(!refused.headers.contains_key("outrigger-unreached"), "that is between sidecars");
    assert_eq!((full.app.requests(), free.app.requests()), (1, 21));
    first.abort();
    second.abort();
}

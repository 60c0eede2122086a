//! A sidecar that leaves: its peers hear it from itself, and its application is served until it is gone.

use std::time::Duration;

use http::Method;
use outrigger_config::Kind;
use outrigger_testkit::mesh::{Leaving, Mesh};
use serde_json::json;

use crate::load::Load;
use crate::story::{DAY, Shop};

/// The usual mesh, where `v1` leaves so.
async fn shop(certificates_for: Duration, leaving: Leaving) -> Shop {
    let mesh = Mesh::with_certificates_for(certificates_for).await.unwrap();
    let v1 = mesh.app("v1").leaving(leaving).start().await.unwrap();
    let v2 = mesh.app("v2").start().await.unwrap();
    let web = mesh.sidecar("web").start().await.unwrap();
    for (name, members) in [("v2", vec![&v2]), ("api", vec![&v1, &v2])] {
        let endpoints: Vec<_> = members.iter().map(|member| member.sidecar.endpoint()).collect();
        mesh.put(Kind::Backend, name, json!({ "endpoints": endpoints })).await.unwrap();
    }
    Shop { web, v1, v2, mesh }
}

#[tokio::test]
async fn callers_go_elsewhere_as_soon_as_an_instance_says_that_it_leaves() {
    let mut shop = shop(DAY, Leaving { delay: Duration::from_secs(2), quiet: None }).await;
    shop.route_to_both().await;
    // Not idempotent: each is sent again only where it is known not to have reached the application.
    let mut load = Load::start(&shop.web, Method::POST, "/");
    load.more(1000).await;
    assert!(shop.v1.app.requests() > 100);
    let leaving = shop.v1.sidecar.leave();
    // A round trip for each of the callers, and more: all that was under way has been answered.
    load.more(100).await;
    let before = shop.v1.app.requests();
    load.more(1000).await;
    assert!(!leaving.is_finished(), "it still accepts");
    assert_eq!(shop.v1.app.requests(), before, "nobody asks there any more");
    leaving.await.unwrap();
    load.more(1000).await;
    // Discovery hears of it long after.
    let endpoints = [shop.v2.sidecar.endpoint()];
    shop.mesh.put(Kind::Backend, "api", json!({ "endpoints": endpoints })).await.unwrap();
    load.more(500).await;
    load.end().await.is_whole(3500);
    assert_eq!(shop.v1.app.requests(), before);
}

#[tokio::test]
async fn an_application_that_stops_slowly_is_served_with_news_and_fresh_certificates() {
    let lifetime = Duration::from_secs(3);
    let leaving = Leaving { delay: Duration::from_millis(100), quiet: Some(Duration::from_millis(800)) };
    let mut shop = shop(lifetime, leaving).await;
    let route = |status: u16| {
        let tell = json!({ "set": [{ "name": "x-route", "value": status.to_string() }] });
        let filters = json!([{ "type": "ResponseHeaderModifier", "responseHeaderModifier": tell }]);
        let rule = json!({ "filters": filters, "backendRefs": [{ "name": "v2" }] });
        json!({ "listeners": ["outbound-v1"], "rules": [rule] })
    };
    let revision = shop.mesh.put(Kind::HttpRoute, "from-v1", route(1)).await.unwrap();
    shop.mesh.settled(revision).await.unwrap();
    let leaving = shop.v1.sidecar.leave();
    shop.v1.app.stop().await;
    let mut every = tokio::time::interval(Duration::from_millis(100));
    for turn in 0..40 {
        every.tick().await;
        if turn == 20 {
            let revision = shop.mesh.put(Kind::HttpRoute, "from-v1", route(2)).await.unwrap();
            shop.mesh.settled(revision).await.unwrap();
        }
        if turn == 35 {
            // The certificate that it left with is over, and a new handshake needs another.
            shop.v2.sidecar.stop().await;
            shop.v2.sidecar.start().await.unwrap();
        }
        // A connection of its own each time.
        let answer = shop.v1.sidecar.caller().get("v2", "/").await.unwrap();
        let seen = answer.headers.get("x-route").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(
            (answer.status.as_u16(), answer.app()),
            (200, "v2"),
            "at {turn}: {}",
            answer.proxy_status()
        );
        assert_eq!(seen.as_deref(), Some(if turn < 20 { "1" } else { "2" }), "at {turn}");
    }
    let gone = tokio::time::Instant::now();
    leaving.await.unwrap();
    assert!(gone.elapsed() < Duration::from_secs(3), "{:?} after its application", gone.elapsed());
    assert!(shop.v1.sidecar.caller().get("v2", "/").await.is_err());
}

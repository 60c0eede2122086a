//! A mesh whose control API comes and goes, and what it is told by its nodes.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use http::Method;
use outrigger_config::Kind;
use serde_json::json;

use crate::load::Load;
use crate::story::{DAY, Shop};

#[tokio::test]
async fn the_mesh_goes_on_without_its_control_api_and_catches_up_with_it() {
    let mut shop = Shop::open(DAY).await;
    shop.route(json!({ "backendRefs": [{ "name": "v1" }] })).await;
    let mut load = Load::start(&shop.web, Method::GET, "/");
    load.more(300).await;
    shop.mesh.kill_control().await;
    load.more(1000).await;
    shop.mesh.restart_control().await.unwrap();
    let back = Instant::now();
    shop.route(json!({ "backendRefs": [{ "name": "v2" }] })).await;
    let took = back.elapsed();
    println!("a change made right after was live after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(shop.web.caller().get("api", "/").await.unwrap().app(), "v2");
    load.more(300).await;
    let tally = load.end().await;
    tally.is_whole(1600);
    assert_eq!(tally.connections, 8);
}

#[tokio::test]
async fn a_sidecar_that_starts_without_the_control_api_runs_from_what_it_last_applied() {
    let mut shop = Shop::open(DAY).await;
    shop.route_to_both().await;
    shop.mesh.kill_control().await;
    for sidecar in [&mut shop.web, &mut shop.v1.sidecar, &mut shop.v2.sidecar] {
        let (before, inbound) = (sidecar.outbound(), sidecar.inbound());
        sidecar.stop().await;
        sidecar.start().await.unwrap();
        assert_eq!((sidecar.outbound(), sidecar.inbound()), (before, inbound), "it is where it was");
    }
    // Ready means ready: the first request is answered, and over mutual TLS.
    for _ in 0..20 {
        let answer = shop.web.caller().get("api", "/").await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    shop.mesh.restart_control().await.unwrap();
    shop.route(json!({ "backendRefs": [{ "name": "v2" }] })).await;
    assert_eq!(shop.web.caller().get("api", "/").await.unwrap().app(), "v2");
}

#[tokio::test]
async fn what_a_node_cannot_take_is_shown_and_the_rest_is_live() {
    let shop = Shop::open(DAY).await;
    shop.route(json!({ "backendRefs": [{ "name": "v1" }] })).await;
    let taken = TcpListener::bind((shop.web.outbound().ip(), 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let blocked = json!({ "address": address, "direction": "Outbound", "nodes": ["web"] });
    shop.mesh.put(Kind::Listener, "blocked", blocked).await.unwrap();
    shop.route(json!({ "backendRefs": [{ "name": "v2" }] })).await;
    assert_eq!(shop.web.caller().get("api", "/").await.unwrap().app(), "v2");

    let nodes = shop.mesh.control().unwrap().nodes();
    let refused = |name: &str| &nodes.iter().find(|node| node.name.as_str() == name).unwrap().refused;
    let refusal = refused("web").first().unwrap();
    assert_eq!((&*refusal.kind, refusal.name.as_str(), &*refusal.field), ("Listener", "blocked", "address"));
    assert!(refusal.reason.contains(&format!("cannot listen on {address}")), "{}", refusal.reason);
    assert!(refused("v1").is_empty(), "it does not concern the others");
    assert!(shop.web.complaints().iter().any(|line| line.contains("blocked")), "{:?}", shop.web.complaints());

    // Once the port is free, the next change has it all.
    drop(taken);
    shop.route(json!({ "backendRefs": [{ "name": "v1" }] })).await;
    let nodes = shop.mesh.control().unwrap().nodes();
    assert!(nodes.iter().all(|node| node.refused.is_empty()), "{nodes:?}");
    assert_eq!(shop.web.proxy().unwrap().listener("blocked"), Some(address));
}

#[tokio::test]
async fn a_listener_that_is_renamed_goes_on_listening() {
    let shop = Shop::open(DAY).await;
    let address = std::net::SocketAddr::new(shop.web.outbound().ip(), 0);
    let spec = |address| json!({ "address": address, "direction": "Outbound", "nodes": ["web"] });
    let route =
        |listener: &str| json!({ "listeners": [listener], "rules": [{ "backendRefs": [{ "name": "v1" }] }] });
    shop.mesh.put(Kind::HttpRoute, "extra", route("old")).await.unwrap();
    let revision = shop.mesh.put(Kind::Listener, "old", spec(address)).await.unwrap();
    shop.mesh.settled(revision).await.unwrap();
    let address = shop.web.proxy().unwrap().listener("old").unwrap();
    let revision = shop.mesh.put(Kind::Listener, "old", spec(address)).await.unwrap();
    shop.mesh.settled(revision).await.unwrap();
    assert_eq!(outrigger_testkit::mesh::Caller::new(address).get("api", "/").await.unwrap().status, 200);

    shop.mesh.put(Kind::HttpRoute, "extra", route("new")).await.unwrap();
    let parse = |name| outrigger_config::Resource::parse(Kind::Listener, name, spec(address)).unwrap();
    shop.mesh.put_all([parse("new")]).await.unwrap();
    let revision = shop.mesh.delete(Kind::Listener, "old").await.unwrap();
    shop.mesh.settled(revision).await.unwrap();
    for _ in 0..10 {
        let get = async { outrigger_testkit::mesh::Caller::new(address).get("api", "/").await };
        let answer = tokio::time::timeout(Duration::from_secs(10), get).await.unwrap().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// Whoever writes to the control API is not thereby let into the nodes' files.
#[tokio::test]
async fn a_control_api_cannot_have_a_nodes_files_served() {
    let shop = Shop::open(DAY).await;
    shop.mesh.put(Kind::Backend, "files", json!({ "folder": "/" })).await.unwrap();
    shop.route(json!({ "backendRefs": [{ "name": "files" }] })).await;
    let answer = shop.web.caller().get("api", "/etc/hosts").await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.proxy_status().contains("destination_unavailable"), "{answer:?}");
    let said = shop.web.complaints();
    assert!(said.iter().any(|line| line.contains("only where the configuration is a file")), "{said:?}");
}

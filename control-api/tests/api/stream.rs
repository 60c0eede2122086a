//! The stream: each node gets what concerns it, as one change each time, and no more than it lacks.

use std::collections::BTreeMap;

use outrigger_certs::control;
use outrigger_config::{Key, Kind};
use outrigger_control::lines::encode;
use outrigger_control::message::{FromControl, FromNode, Refusal};
use outrigger_control_api::start;
use serde_json::json;

use crate::support::{
    backend, enroll, get, hello, listener, mesh, name, node, open, options, resource, route,
};

fn key(kind: Kind, text: &str) -> Key {
    Key { kind, name: name(text) }
}

#[tokio::test]
async fn a_node_gets_what_concerns_it_and_then_every_change_of_it() {
    let mesh = mesh().await;
    let control = &mesh.control;
    let objects = [
        listener("web", &["web-1"]),
        route("shop", "web", "api"),
        backend("api", 3000),
        backend("unused", 3001),
    ];
    control.put(objects).await.unwrap();
    let mut web = node(control, "web-1").await;
    let mut other = node(control, "other").await;
    let all = ["put Listener/web", "put HTTPRoute/shop", "put Backend/api"].map(String::from).to_vec();
    assert_eq!(web.change().await, (all, 1));
    assert_eq!(other.change().await, (vec![], 1));

    // One change: the route goes elsewhere. What it no longer needs goes, what it needs comes.
    control.put([route("shop", "web", "unused")]).await.unwrap();
    let change =
        ["put HTTPRoute/shop", "delete Backend/api", "put Backend/unused"].map(String::from).to_vec();
    assert_eq!(web.change().await, (change, 2));
    assert_eq!(
        other.change().await,
        (vec![], 2),
        "a change that is nothing to a node still moves its revision"
    );

    control.delete(key(Kind::Listener, "web")).await.unwrap();
    let change = ["delete Listener/web", "delete HTTPRoute/shop", "delete Backend/unused"];
    assert_eq!(web.change().await, (change.map(String::from).to_vec(), 3));
}

#[tokio::test]
async fn every_node_knows_every_backend_of_the_mesh() {
    let mesh = mesh().await;
    let mut anyone = node(&mesh.control, "anyone").await;
    assert_eq!(anyone.change().await, (vec![], 0));
    let endpoint = json!({ "address": "10.0.0.1:80", "identity": "spiffe://outrigger.local/node/api-1" });
    let api = resource(Kind::Backend, "api", json!({ "endpoints": [endpoint] }));
    mesh.control.put([api]).await.unwrap();
    assert_eq!(anyone.change().await, (vec!["put Backend/api".into()], 1));
}

#[tokio::test]
async fn a_node_that_comes_back_gets_what_it_lacks() {
    let mesh = mesh().await;
    let control = &mesh.control;
    control.put([listener("web", &[])]).await.unwrap();
    control.put([route("shop", "web", "api"), backend("api", 3000)]).await.unwrap();
    let identity = enroll(control, "web-1", None).await;
    let tls = control::client_config(&identity);
    let mut first = open(control.stream(), tls.clone(), &hello("web-1")).await.unwrap();
    let Some(FromControl::Welcome { store, revision: 2 }) = first.next().await else { panic!("no welcome") };
    assert_eq!(first.change().await.0.len(), 3);
    drop(first);

    control.put([backend("api", 3001)]).await.unwrap();
    control.delete(key(Kind::HttpRoute, "shop")).await.unwrap();
    let back = |store: &str| FromNode::Hello {
        node: name("web-1"),
        version: "1.2.3".into(),
        store: Some(store.into()),
        revision: 2,
        have: BTreeMap::from(
            [("Listener/web", 1), ("HTTPRoute/shop", 2), ("Backend/api", 2)]
                .map(|(key, revision)| (key.to_owned(), revision)),
        ),
    };
    let mut second = open(control.stream(), tls.clone(), &back(&store)).await.unwrap();
    let lacks = ["delete Backend/api", "delete HTTPRoute/shop"].map(String::from).to_vec();
    let (mut steps, revision) = second.change().await;
    steps.sort();
    assert_eq!((steps, revision), (lacks, 4));

    // Of another store it has nothing that counts: it gets all, and loses what is not here.
    let mut third = open(control.stream(), tls, &back("another")).await.unwrap();
    let (mut steps, _) = third.change().await;
    steps.sort();
    assert_eq!(steps, ["delete Backend/api", "delete HTTPRoute/shop", "put Listener/web"]);
}

#[tokio::test]
async fn a_node_that_comes_back_after_a_restart_gets_nothing_twice() {
    let mesh = mesh().await;
    let revision = mesh.control.put([listener("web", &[])]).await.unwrap();
    let identity = enroll(&mesh.control, "web-1", None).await;
    let tls = control::client_config(&identity);
    let mut link = open(mesh.control.stream(), tls.clone(), &hello("web-1")).await.unwrap();
    let Some(FromControl::Welcome { store, .. }) = link.next().await else { panic!("no welcome") };
    link.change().await;
    mesh.control.shutdown().await;
    assert_eq!(link.next().await, None, "the stream ends with the control API");

    let control = start(options(mesh.data.path())).await.unwrap();
    let have = BTreeMap::from([("Listener/web".to_owned(), revision)]);
    let (node, version) = (name("web-1"), "1.2.3".into());
    let hello = FromNode::Hello { node, version, store: Some(store), revision, have };
    let mut link = open(control.stream(), tls, &hello).await.unwrap();
    assert_eq!(link.change().await, (vec![], revision));
}

#[tokio::test]
async fn the_list_of_nodes_says_what_each_runs_and_refused() {
    let mesh = mesh().await;
    let control = &mesh.control;
    let mut link = node(control, "web-1").await;
    control.put([listener("web", &[])]).await.unwrap();
    assert_eq!(link.change().await.1, 0);
    let refusal = Refusal {
        kind: "Listener".into(),
        name: name("web"),
        field: "address".into(),
        reason: "is taken".into(),
    };
    let (_, revision) = link.change().await;
    link.applied(revision, vec![refusal.clone()]).await;
    control.wait_for_nodes(|nodes| nodes[0].revision == 1).await;

    let shown = get(control.rest(), "/v1/nodes").await.body;
    let one = &shown[0];
    assert_eq!(one["name"], json!("web-1"));
    assert_eq!(one["identity"], json!("spiffe://outrigger.local/node/web-1"));
    assert_eq!((&one["connected"], &one["version"]), (&json!(true), &json!("1.2.3")));
    assert_eq!((&one["revision"], &one["storeRevision"], &one["behind"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!(one["refused"], json!([refusal]));
    assert!(one["address"].as_str().unwrap().starts_with("127.0.0.1:"));

    control.put([backend("api", 1), backend("web", 2)]).await.unwrap();
    assert_eq!(control.nodes()[0].behind, 1);
    drop(link);
    control.wait_for_nodes(|nodes| !nodes[0].connected).await;
}

#[tokio::test]
async fn the_younger_of_two_streams_of_a_node_stays() {
    let mesh = mesh().await;
    let identity = enroll(&mesh.control, "web-1", None).await;
    let tls = control::client_config(&identity);
    let mut old = open(mesh.control.stream(), tls.clone(), &hello("web-1")).await.unwrap();
    old.change().await;
    let mut young = open(mesh.control.stream(), tls, &hello("web-1")).await.unwrap();
    young.change().await;
    assert_eq!(old.next().await, None);
    mesh.control.put([listener("web", &[])]).await.unwrap();
    assert_eq!(young.change().await.1, 1);
    assert!(mesh.control.nodes()[0].connected);
}

#[tokio::test]
async fn a_silent_node_is_dropped_and_a_talking_one_is_not() {
    let mesh = mesh().await;
    let clock = tokio::time::Instant::now();
    let mut silent = node(&mesh.control, "silent").await;
    silent.change().await;
    let mut talking = node(&mesh.control, "talking").await;
    talking.change().await;
    // From here on time jumps to the next timer whenever nothing else is to be done.
    tokio::time::pause();
    let beats = tokio::spawn(async move {
        let mut beat = tokio::time::interval(std::time::Duration::from_secs(5));
        loop {
            beat.tick().await;
            let line = encode(&FromNode::Heartbeat {}).unwrap();
            if talking.say.send_data(line).await.is_err() {
                return;
            }
        }
    });
    assert_eq!(silent.next().await, None);
    let silence = clock.elapsed().as_secs();
    assert!((15..60).contains(&silence), "{silence}");
    let nodes = mesh.control.nodes();
    assert_eq!(nodes.iter().map(|node| node.connected).collect::<Vec<_>>(), [false, true]);
    beats.abort();
}

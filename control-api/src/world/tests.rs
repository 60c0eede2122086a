//! Which objects concern which nodes, and what a node that is behind is sent.

use serde_json::json;

use super::*;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn key(kind: Kind, text: &str) -> Key {
    Key { kind, name: name(text) }
}

/// Objects by kind, name and spec, each at revision 1.
fn objects(all: &[(Kind, &str, serde_json::Value)]) -> BTreeMap<Key, Arc<Object>> {
    let object = |(kind, name, spec): &(Kind, &str, serde_json::Value)| {
        let resource = Resource::parse(*kind, name, spec.clone()).unwrap();
        (resource.key(), Arc::new(Object::new(1, Arc::new(resource)).unwrap()))
    };
    all.iter().map(object).collect()
}

fn world(all: &[(Kind, &str, serde_json::Value)]) -> World {
    World::new("store".into(), 1, objects(all), BTreeSet::new())
}

fn listener(nodes: &[&str]) -> serde_json::Value {
    json!({ "address": "127.0.0.1:8080", "nodes": nodes })
}

fn route(listeners: &[&str], backends: &[&str]) -> serde_json::Value {
    let references: Vec<_> = backends.iter().map(|name| json!({ "name": name })).collect();
    json!({ "listeners": listeners, "rules": [{ "backendRefs": references }] })
}

fn backend() -> serde_json::Value {
    json!({ "endpoints": [{ "address": "10.0.0.1:80" }] })
}

/// What concerns a node, as `HTTPRoute/shop`.
fn concern(world: &World, node: &str) -> Vec<String> {
    let concerns = world.objects().keys().filter(|key| world.concerns(&name(node), key).is_some());
    concerns.map(ToString::to_string).collect()
}

#[test]
fn listeners_bring_their_routes_backends_and_certificates() {
    let secure = json!({
        "address": "127.0.0.1:8443", "protocol": "HTTPS", "nodes": ["a"],
        "tls": { "certificateRefs": [{ "name": "shop" }] },
    });
    let world = world(&[
        (Kind::Listener, "secure", secure),
        (Kind::Listener, "plain", listener(&["b"])),
        (Kind::Listener, "all", listener(&[])),
        (Kind::Certificate, "shop", json!({ "chain": "shop.pem", "key": "shop.key" })),
        (Kind::Certificate, "spare", json!({ "chain": "spare.pem", "key": "spare.key" })),
        (Kind::HttpRoute, "shop", route(&["secure"], &["api"])),
        (Kind::HttpRoute, "both", route(&["secure", "plain"], &["both"])),
        (Kind::TcpRoute, "db", route(&["plain", "gone"], &["db"])),
        (Kind::HttpRoute, "lost", route(&["gone"], &["lost"])),
        (Kind::HttpRoute, "all", route(&["all"], &["missing"])),
        (Kind::Backend, "api", backend()),
        (Kind::Backend, "both", backend()),
        (Kind::Backend, "db", backend()),
        (Kind::Backend, "lost", backend()),
    ]);
    let of_a = [
        "Listener/all",
        "Listener/secure",
        "HTTPRoute/all",
        "HTTPRoute/both",
        "HTTPRoute/shop",
        "Backend/api",
        "Backend/both",
        "Certificate/shop",
    ];
    assert_eq!(concern(&world, "a"), of_a);
    let of_b = [
        "Listener/all",
        "Listener/plain",
        "HTTPRoute/all",
        "HTTPRoute/both",
        "TCPRoute/db",
        "Backend/both",
        "Backend/db",
    ];
    assert_eq!(concern(&world, "b"), of_b);
    assert_eq!(concern(&world, "c"), ["Listener/all", "HTTPRoute/all"]);
}

#[test]
fn routes_of_the_listeners_that_every_node_has_concern_everyone() {
    let world = world(&[
        (Kind::Listener, "inbound", listener(&["a"])),
        (Kind::HttpRoute, "out", route(&["outbound"], &["plain"])),
        (Kind::TcpRoute, "in", route(&["inbound"], &["local"])),
        (Kind::Backend, "plain", backend()),
        (Kind::Backend, "local", backend()),
    ]);
    assert_eq!(concern(&world, "b"), ["HTTPRoute/out", "TCPRoute/in", "Backend/local", "Backend/plain"]);
    assert_eq!(concern(&world, "a").len(), 5);
}

#[test]
fn backends_of_the_mesh_concern_everyone() {
    let meshed = json!({ "endpoints": [
        { "address": "10.0.0.1:80" },
        { "address": "10.0.0.2:80", "identity": "spiffe://outrigger.local/node/api" },
    ] });
    let world = world(&[(Kind::Backend, "meshed", meshed), (Kind::Backend, "plain", backend())]);
    assert_eq!(concern(&world, "anyone"), ["Backend/meshed"]);
}

#[test]
fn a_node_a_little_behind_is_sent_the_same_as_one_that_is_compared_with_everything() {
    let mut world = world(&[
        (Kind::Listener, "web", listener(&["a"])),
        (Kind::HttpRoute, "shop", route(&["web"], &["api"])),
        (Kind::Backend, "api", backend()),
        (Kind::Backend, "other", backend()),
    ]);
    let node = name("a");
    let mut near = BTreeMap::new();
    world.catch_up(&node, &mut near, None);
    let (start, mut since) = (near.clone(), 1);
    assert_eq!(start.len(), 3);

    let edits: [(Key, Option<serde_json::Value>); 5] = [
        (key(Kind::HttpRoute, "shop"), Some(route(&["web"], &["other"]))),
        (key(Kind::Backend, "api"), None),
        (key(Kind::Listener, "web"), Some(listener(&["b"]))),
        (key(Kind::Listener, "web"), Some(listener(&[]))),
        (key(Kind::HttpRoute, "shop"), Some(route(&["web"], &["other", "api"]))),
    ];
    // A batch of several writes moves the revision by more than one.
    for (edit, revision) in edits.into_iter().zip([2, 5, 6, 7, 9]) {
        let (changed, spec) = edit;
        let mut objects = world.objects().clone();
        objects.remove(&changed);
        if let Some(spec) = spec {
            let resource = Resource::parse(changed.kind, changed.name.as_str(), spec).unwrap();
            objects.insert(changed.clone(), Arc::new(Object::new(revision, Arc::new(resource)).unwrap()));
        }
        world = world.next(revision, objects, BTreeSet::from([changed]));

        world.catch_up(&node, &mut near, Some(since));
        since = revision;
        let (mut far, mut fresh) = (start.clone(), BTreeMap::new());
        world.catch_up(&node, &mut far, None);
        world.catch_up(&node, &mut fresh, None);
        assert_eq!(near, fresh, "revision {revision}");
        assert_eq!(far, fresh, "revision {revision}");
        assert!(world.catch_up(&node, &mut near, Some(revision)).is_empty());
    }
    let (mut far, fresh) = (start, near);
    world.catch_up(&node, &mut far, Some(1));
    assert_eq!(far, fresh, "from as far back as is remembered");
}

#[test]
fn what_lies_too_far_back_is_compared_with_everything() {
    let mut world = world(&[(Kind::Listener, "web", listener(&[]))]);
    for revision in 2..RECENT as u64 + 10 {
        world = world.next(revision, world.objects().clone(), BTreeSet::new());
    }
    let mut held = BTreeMap::from([(key(Kind::Backend, "gone"), 1)]);
    let steps = world.catch_up(&name("a"), &mut held, Some(1));
    assert_eq!(steps.len(), 2, "{steps:?}");
    assert_eq!(held, BTreeMap::from([(key(Kind::Listener, "web"), 1)]));
}

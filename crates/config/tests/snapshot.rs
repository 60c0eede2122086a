//! From resources to snapshots: what refers to what, the shares of backends, and the last good versions.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;

use outrigger_config::{Accepted, File, Key, Kind, Resource, Shares, Snapshot, Spec, file};
use serde_json::json;

const DESIGN: &str = include_str!("files/design.yaml");

fn accepted(text: &str) -> Accepted {
    let mut accepted = Accepted::default();
    accepted.replace(file::parse(text).unwrap());
    accepted
}

fn parse(text: &str) -> File {
    file::parse(text).unwrap()
}

#[test]
fn each_rule_has_an_entry_at_each_listener() {
    let snapshot = accepted(DESIGN).snapshot(7);
    assert_eq!(snapshot.revision, 7);
    let names = |listeners: &[outrigger_config::ListenerEntry]| {
        listeners.iter().map(|listener| listener.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&snapshot.listeners), ["db", "secure", "web"]);
    let rules: Vec<String> = snapshot
        .http_rules
        .iter()
        .map(|entry| format!("{}/{}/{}/{}", entry.listener, entry.route, entry.rule, entry.index))
        .collect();
    assert_eq!(rules, ["secure/shop/0/0", "secure/shop/1/1", "web/shop/0/0", "web/shop/1/1"]);
    let db = &snapshot.listeners[0];
    let tcp = &snapshot.tcp_rules[db.tcp.unwrap()];
    assert_eq!((tcp.listener.as_str(), tcp.route.as_str(), &*tcp.rule), ("db", "db", "0"));
    assert!(db.http.is_empty() && snapshot.listeners[1].tcp.is_none());
    let postgres = &snapshot.backends[tcp.shares.backend(0).unwrap()];
    assert_eq!(postgres.name.as_str(), "postgres");
    assert_eq!(snapshot.backend("postgres"), tcp.shares.backend(0));
    assert_eq!(snapshot.backend("gone"), None);
    assert_eq!(snapshot.certificates.len(), 1);
}

#[test]
fn the_resources_are_a_file_again() {
    let snapshot = accepted(DESIGN).snapshot(1);
    let file = parse(&snapshot.resources_json().to_string());
    assert_eq!(file.rejected, []);
    let again = Snapshot::build(1, file.resources.into_iter().map(Arc::new));
    assert!(again.resources().eq(snapshot.resources()));
}

#[test]
fn what_is_not_there_is_waited_for() {
    let route = json!({ "listeners": ["web", "gone"], "rules": [{ "backendRefs": [{ "name": "api" }] }] });
    let mut accepted = Accepted::default();
    accepted.put(Resource::parse(Kind::HttpRoute, "shop", route).unwrap());
    assert_eq!(accepted.snapshot(1).http_rules.len(), 0);
    accepted.put(Resource::parse(Kind::Listener, "web", json!({ "address": "127.0.0.1:0" })).unwrap());
    let snapshot = accepted.snapshot(2);
    let [entry] = &snapshot.http_rules[..] else { panic!("one rule") };
    assert_eq!((entry.shares.backend(0), entry.shares.pick(0)), (None, Some(0)));
    assert_eq!(entry.shares.refs()[0].name.as_str(), "api");
    accepted.put(Resource::parse(Kind::Backend, "api", json!({})).unwrap());
    assert_eq!(accepted.snapshot(3).http_rules[0].shares.backend(0), Some(0));
    assert!(accepted.delete(&Key { kind: Kind::Backend, name: "api".parse().unwrap() }));
    assert!(!accepted.delete(&Key { kind: Kind::Backend, name: "api".parse().unwrap() }));
    assert_eq!(accepted.snapshot(4).http_rules[0].shares.backend(0), None);
}

#[test]
fn what_is_rejected_keeps_its_last_good_version() {
    let mut accepted = accepted(
        "backends:
- { name: good, connectTimeout: 1s }
- { name: gone, connectTimeout: 1s }
- { name: turns-bad, connectTimeout: 1s }
",
    );
    let before: Vec<Arc<Resource>> = accepted.resources().cloned().collect();
    accepted.replace(parse(
        "backends:
- { name: good, connectTimeout: 1s }
- { name: turns-bad, connectTimeout: 0s }
- { name: never-good, connectTimeout: 0s }
- { name: new, connectTimeout: 2s }
- { name: new, connectTimeout: 3s }
",
    ));
    let after: Vec<(&str, String)> = accepted
        .resources()
        .map(|resource| match &resource.spec {
            Spec::Backend(backend) => (resource.name.as_str(), backend.connect_timeout.unwrap().to_string()),
            _ => unreachable!("only backends"),
        })
        .collect();
    assert_eq!(after, [("good", "1s".into()), ("new", "2s".into()), ("turns-bad", "1s".into())]);
    // What did not change is the same object, not an equal one.
    let good = accepted.resources().next().unwrap();
    assert!(before.iter().any(|resource| Arc::ptr_eq(resource, good)));
}

#[test]
fn nothing_is_gone_that_may_be_hidden_in_what_is_rejected() {
    let before = "backends: [{ name: a }, { name: b }]";
    for (after, left) in [
        ("backends: [{ name: a }]", 1),
        ("backends: [{ name: a }, { nam: b }]", 2),
        ("backends: [{ name: a }, { name: B }]", 2),
        ("backend: [{ name: a }, { name: b }]", 2),
        ("backends: { name: a }", 2),
        ("backends: [{ name: a }]\nbackends: [{ name: b }]", 2),
        ("backends: [{ name: a }]\ntrust: []\nadmin: {}\nidentity: {}", 1),
        ("{}", 0),
    ] {
        let mut accepted = accepted(before);
        accepted.replace(parse(after));
        assert_eq!(accepted.resources().count(), left, "{after}");
    }
}

fn shares(weights: &[u32]) -> Shares {
    let refs: Vec<_> =
        weights.iter().enumerate().map(|(n, w)| json!({ "name": format!("b{n}"), "weight": w })).collect();
    let route = json!({ "listeners": ["web"], "rules": [{ "backendRefs": refs }] });
    let mut accepted = Accepted::default();
    accepted.put(Resource::parse(Kind::HttpRoute, "shop", route).unwrap());
    accepted.put(Resource::parse(Kind::Listener, "web", json!({ "address": "127.0.0.1:0" })).unwrap());
    accepted.snapshot(1).http_rules[0].shares.clone()
}

#[test]
fn shares_are_in_proportion_to_the_weights() {
    for (weights, expected) in [
        (&[9, 1][..], &[9000, 1000][..]),
        (&[0, 1, 0, 3, 0], &[0, 2500, 0, 7500, 0]),
        (&[1_000_000, 1_000_000], &[5000, 5000]),
        (&[5], &[10_000]),
    ] {
        let shares = shares(weights);
        let mut counts = vec![0; weights.len()];
        for n in 0..10_000u64 {
            counts[shares.pick((n * u64::from(u32::MAX) / 9_999) as u32).unwrap()] += 1;
        }
        assert!(counts.iter().zip(expected).all(|(n, e): (&i32, &i32)| (n - e).abs() <= 1), "{counts:?}");
    }
    assert_eq!(shares(&[]).pick(1), None);
    assert_eq!(shares(&[0]).pick(1), None);
    assert_eq!(shares(&[0, 0]).pick(u32::MAX), None);
}

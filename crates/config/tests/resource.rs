//! One resource at a time, as the control stream and the REST API carry it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use outrigger_config::{Invalid, Kind, Resource, file};
use proptest::prelude::*;
use serde_json::{Value, json};

fn refused(kind: Kind, spec: Value) -> String {
    Resource::parse(kind, "x", spec).unwrap_err().to_string()
}

#[test]
fn what_is_read_is_written_back() {
    let read = |text: &str| file::parse(text).unwrap().resources;
    let resources = [read(include_str!("files/design.yaml")), read(include_str!("files/full.yaml"))].concat();
    for resource in resources {
        let (kind, name) = (resource.kind(), resource.name.clone());
        let spec = resource.spec_json();
        let wire = serde_json::to_value(&resource).unwrap();
        assert_eq!(wire, json!({ "kind": kind.as_str(), "name": name.as_str(), "spec": spec }));
        assert_eq!(Resource::parse(kind, name.as_str(), spec).unwrap(), resource);
    }
}

#[test]
fn the_name_and_the_whole_can_be_wrong_too() {
    let spec = json!({ "address": "127.0.0.1:0" });
    assert_eq!(Resource::parse(Kind::Listener, "Web", spec).unwrap_err().field, "name");
    assert_eq!(refused(Kind::Listener, json!([])), "spec: expected an object, found a list");
    assert_eq!(
        refused(Kind::Listener, json!("web")),
        "spec: expected an object, found text `web`: write `{ field: value }`"
    );
    assert_eq!(
        refused(Kind::HttpRoute, json!({ "listeners": ["a"], "rules": [[]] })),
        "rules[0]: expected an object, found a list"
    );
    assert_eq!(
        refused(Kind::Listener, json!({ "adress": "" })),
        "adress: unknown field `adress`: did you mean `address`?"
    );
}

#[test]
fn a_backend_is_a_folder_or_has_endpoints() {
    let folder = json!({ "folder": "./dist" });
    assert!(Resource::parse(Kind::Backend, "web", folder).is_ok());
    assert_eq!(
        refused(Kind::Backend, json!({ "folder": "" })),
        "folder: is empty: name a folder; `.` is the configuration file's"
    );
    for (field, value) in [
        ("endpoints", json!([{ "address": "127.0.0.1:3000" }])),
        ("tls", json!({ "hostname": "example.org" })),
        ("protocol", json!("H2C")),
        ("waitingPage", json!(true)),
    ] {
        let refused = refused(Kind::Backend, json!({ "folder": "dist", field: value }));
        assert_eq!(
            refused,
            format!("{field}: not allowed beside folder: the files are served by the proxy itself")
        );
    }
}

#[test]
fn lists_have_the_limits_of_the_schema() {
    let rule = |field: &str, list: Vec<Value>| json!({ "listeners": ["a"], "rules": [{ field: list }] });
    let backends: Vec<Value> = (0..17).map(|n| json!({ "name": format!("b{n}") })).collect();
    let headers: Vec<Value> = (0..17).map(|n| json!({ "name": format!("h{n}"), "value": "" })).collect();
    for (spec, expected) in [
        (rule("backendRefs", backends), "rules[0].backendRefs: has 17 entries: it must have 0 to 16"),
        (rule("matches", vec![json!({}); 65]), "rules[0].matches: has 65 entries: it must have 0 to 64"),
        (
            rule("matches", vec![json!({ "headers": headers })]),
            "rules[0].matches[0].headers: has 17 entries: it must have 0 to 16",
        ),
        (
            json!({ "listeners": ["a"], "rules": vec![json!({}); 65] }),
            "rules: has 65 entries: it must have 1 to 64",
        ),
        (json!({ "listeners": ["a", "a"], "rules": [{}] }), "listeners[1]: `a` is in the list already"),
        (
            json!({ "listeners": ["a"], "rules": [{ "name": "r" }, { "name": "r" }] }),
            "rules[1].name: `r` is in the list already",
        ),
    ] {
        assert_eq!(refused(Kind::HttpRoute, spec), expected);
    }
    let two =
        json!({ "listeners": ["a"], "rules": [{ "backendRefs": [{ "name": "b" }] }, { "backendRefs": [] }] });
    assert_eq!(refused(Kind::TcpRoute, two), "rules: has 2 entries: it must have 1 to 1");
}

#[test]
fn numbers_have_the_limits_of_the_schema() {
    for (spec, expected) in [
        (
            json!({ "endpoints": [{ "address": "a:1", "weight": 0 }] }),
            "endpoints[0].weight: 0 is out of range: it must be 1 to 1000",
        ),
        (
            json!({ "retryConstraint": { "budget": { "percent": 101 } } }),
            "retryConstraint.budget.percent: 101 is out of range: it must be 0 to 100",
        ),
        (
            json!({ "retryConstraint": { "minRetryRate": { "interval": "0s" } } }),
            "retryConstraint.minRetryRate.interval: must be longer than 0s",
        ),
        (
            json!({ "endpoints": [{ "address": "a:1" }, { "address": "A:1" }] }),
            "endpoints[1].address: `a:1` is in the list already",
        ),
    ] {
        assert_eq!(refused(Kind::Backend, spec), expected);
    }
}

#[test]
fn paths_are_the_gateway_apis() {
    let parse = |path: &str| {
        let rules = json!([{ "matches": [{ "path": { "value": path } }] }]);
        Resource::parse(Kind::HttpRoute, "x", json!({ "listeners": ["a"], "rules": rules }))
    };
    for path in ["/", "/a", "/a/", "/a.b/..c", "/%20ab%C3", "/~!$&'()*+,;=:@"] {
        let resource = parse(path).unwrap();
        assert_eq!(Resource::parse(Kind::HttpRoute, "x", resource.spec_json()), Ok(resource));
    }
    let long = format!("/{}", "a".repeat(1024));
    for path in [
        "", "a", "//", "/a//b", "/.", "/a/../b", "/a?b", "/a#b", "/a b", "/ü", "/%2", "/%zz", "/a%2Fb", &long,
    ] {
        assert!(parse(path).is_err(), "{path}");
    }
}

/// JSON of every shape, out of the words that the model knows.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        3 => prop::sample::select(vec![
            "address", "listeners", "rules", "matches", "path", "type", "value", "headers", "name", "backendRefs",
            "filters", "timeouts", "request", "retry", "codes", "endpoints", "tls", "hostname", "weight",
            "requestHeaderModifier", "set", "remove", "PathPrefix", "RegularExpression", "10s", "/a", "a", "a:1",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u16..700).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_read_or_refused(kind in prop::sample::select(Kind::ALL.to_vec()), name: String, spec in any_json()) {
        let _ = Resource::parse(kind, &name, spec.clone());
        match Resource::parse(kind, "x", spec) {
            Ok(resource) => {
                let again = Resource::parse(kind, "x", resource.spec_json());
                prop_assert_eq!(again, Ok(resource));
            }
            Err(Invalid { field, reason }) => prop_assert!(!field.is_empty() && !reason.is_empty()),
        }
    }
}

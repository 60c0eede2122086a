//! The JSON Schema agrees with the parser, as far as a schema can.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use outrigger_config::{file, schema};
use serde_json::{Value, json};

fn design() -> Value {
    serde_saphyr::from_str(include_str!("files/design.yaml")).unwrap()
}

/// What the design's example does not say.
fn full() -> Value {
    serde_saphyr::from_str(include_str!("files/full.yaml")).unwrap()
}

/// Tells whether the schema accepts a file, and whether the parser does.
fn judge() -> impl Fn(&Value) -> (bool, bool) {
    let schema = jsonschema::validator_for(&schema()).unwrap();
    move |file| {
        let parsed = file::parse(&file.to_string()).is_ok_and(|file| file.rejected.is_empty());
        (schema.is_valid(file), parsed)
    }
}

/// The pointers to every value of a document.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(index, value)| pointers(value, &format!("{at}/{index}"), found));
        }
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), found));
        }
        _ => {}
    }
}

#[test]
fn it_is_a_schema_with_descriptions() {
    let schema = schema();
    assert!(jsonschema::meta::is_valid(&schema));
    assert_eq!(schema["title"], "Outrigger configuration");
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        assert!(definition["description"].is_string(), "{name} has no description");
        if definition["type"] == "object" {
            assert_eq!(definition["additionalProperties"], false, "{name} allows anything");
        }
        for (field, property) in definition["properties"].as_object().into_iter().flatten() {
            assert!(
                property["description"].is_string() || property["$ref"] == "#/$defs/Name",
                "{name}.{field}"
            );
        }
    }
    assert_eq!(schema["$defs"]["Listener"]["required"], json!(["name", "address"]));
}

#[test]
fn the_designs_example_is_valid() {
    let verdicts = judge();
    assert_eq!(verdicts(&design()), (true, true));
    assert_eq!(verdicts(&full()), (true, true));
    assert_eq!(verdicts(&json!({})), (true, true));
    assert_eq!(verdicts(&json!([])), (false, false));
}

/// Every object of the examples with a field that nobody knows, and every value in turn of another type.
#[test]
fn one_change_is_wrong_for_both() {
    one_change_at_a_time(&design());
    one_change_at_a_time(&full());
}

fn one_change_at_a_time(design: &Value) {
    let verdicts = judge();
    let mut all = Vec::new();
    pointers(design, "", &mut all);
    for pointer in all {
        let mut changed = design.clone();
        let value = changed.pointer_mut(&pointer).unwrap();
        if let Some(object) = value.as_object_mut() {
            object.insert("surprise".into(), json!(1));
            assert_eq!(verdicts(&changed), (false, false), "{pointer} with a surprise");
        }
        for other in [json!(true), json!({ "surprise": [] }), json!([[]]), json!(-1.5), json!("\n")] {
            let mut changed = design.clone();
            *changed.pointer_mut(&pointer).unwrap() = other.clone();
            let (schema, parser) = verdicts(&changed);
            assert_eq!(schema, parser, "{pointer} as {other}");
        }
    }
}

/// Values at the limits, one field each.
#[test]
fn limits_are_the_same_for_both() {
    let verdicts = judge();
    let backend = |field: &str, value: Value| json!({ "backends": [{ "name": "b", field: value }] });
    let rule = |rule: Value| json!({ "httpRoutes": [{ "name": "r", "listeners": ["a"], "rules": [rule] }] });
    let path = |kind: &str, length: usize| {
        rule(
            json!({ "matches": [{ "path": { "type": kind, "value": format!("/{}", "a".repeat(length - 1)) } }] }),
        )
    };
    let weight = |weight: u32| rule(json!({ "backendRefs": [{ "name": "b", "weight": weight }] }));
    let endpoint = |weight: u32| backend("endpoints", json!([{ "address": "a:1", "weight": weight }]));
    let percent = |percent: u32| backend("retryConstraint", json!({ "budget": { "percent": percent } }));
    let limit = |field: &str, limit: u32| json!({ "listeners": [{ "name": "a", "address": "127.0.0.1:0", "http": { "limits": { field: limit } } }] });
    for (file, valid) in [
        (weight(0), true),
        (weight(1_000_000), true),
        (weight(1_000_001), false),
        (endpoint(0), false),
        (endpoint(1000), true),
        (endpoint(1001), false),
        (percent(100), true),
        (percent(101), false),
        (
            rule(json!({ "retry": { "attempts": 100, "codes": [400, 599], "maxBodyBytes": 16_777_216 } })),
            true,
        ),
        (rule(json!({ "retry": { "attempts": 101 } })), false),
        (rule(json!({ "retry": { "codes": [399] } })), false),
        (rule(json!({ "retry": { "maxBodyBytes": 16_777_217 } })), false),
        (rule(json!({ "matches": vec![json!({}); 64] })), true),
        (rule(json!({ "matches": vec![json!({}); 65] })), false),
        (path("Exact", 1024), true),
        (path("Exact", 1025), false),
        (path("RegularExpression", 4096), true),
        (path("RegularExpression", 4097), false),
        (rule(json!({ "backendRefs": [{ "name": "b", "group": "", "kind": "Service", "port": 1 }] })), true),
        (rule(json!({ "backendRefs": [{ "name": "b", "port": 0 }] })), false),
        (rule(json!({ "backendRefs": [{ "name": "b", "port": 65_535 }] })), true),
        (rule(json!({ "backendRefs": [{ "name": "b", "port": 65_536 }] })), false),
        (rule(json!({ "backendRefs": [{ "name": "b", "group": "apps" }] })), false),
        (rule(json!({ "backendRefs": [{ "name": "b", "kind": "Pod" }] })), false),
        (rule(json!({ "backendRefs": [{ "name": "b", "namespace": "-" }] })), false),
        (rule(json!({ "name": "Upper" })), false),
        (rule(json!({ "timeouts": { "request": "1h1m1s1ms" } })), true),
        (rule(json!({ "timeouts": { "request": "1.5s" } })), false),
        (rule(json!({ "timeouts": null })), false),
        (backend("endpoints", json!([{ "address": "[::1]:1" }])), true),
        (backend("endpoints", json!([{ "address": "::1:1" }])), false),
        (backend("endpoints", json!([{ "address": "a:1", "identity": "spiffe://mesh" }])), false),
        (backend("tls", json!({ "hostname": "example.org", "caCertificates": "ca.pem" })), true),
        (json!({ "listeners": [{ "name": "a", "address": "127.0.0.1:0" }] }), true),
        (json!({ "listeners": [{ "name": "a", "address": "localhost:0" }] }), false),
        (json!({ "httpRoutes": [{ "name": "r", "listeners": ["a"], "rules": [] }] }), false),
        (json!({ "httpRoutes": [{ "name": "r", "listeners": [], "rules": [{}] }] }), false),
        (rule(json!({ "sessionPersistence": { "sessionName": "a".repeat(128) } })), true),
        (rule(json!({ "sessionPersistence": { "sessionName": "a".repeat(129) } })), false),
        (limit("headerBytes", 1024), true),
        (limit("headerBytes", 1023), false),
        (limit("headerFields", 8192), true),
        (limit("headerFields", 8193), false),
        (limit("streamsPerConnection", 0), false),
        (limit("connections", 0), false),
        (json!({ "identity": { "chain": "a", "key": "b", "trust": "c" }, "backends": null }), true),
    ] {
        assert_eq!(verdicts(&file), (valid, valid), "{file}");
    }
}

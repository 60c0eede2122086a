//! What a backend, a listener and a rule say of balancing, health, limits, timeouts and retries: what is wrong is named.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use outrigger_config::{Kind, Resource, schema};
use serde_json::{Value, json};

fn refused(kind: Kind, spec: Value) -> String {
    Resource::parse(kind, "x", spec).expect_err("it is wrong").to_string()
}

/// A backend with one wrong field, and what is said of it.
fn backend(wrong: Value, expected: &str) {
    assert_eq!(refused(Kind::Backend, wrong), expected);
}

#[test]
fn balancing() {
    for (balance, expected) in [
        (
            json!({ "type": "RingHash" }),
            "balance.hash: missing: say what of a request decides, such as `[{ type: Header, name: x-user }]`",
        ),
        (
            json!({ "hash": [{ "type": "SourceAddress" }] }),
            "balance.hash: only `type: RingHash` and `type: Maglev` go by a hash",
        ),
        (
            json!({ "type": "Maglev", "hash": [{ "type": "Header" }] }),
            "balance.hash[0].name: missing: the name of the header, cookie or query parameter",
        ),
        (
            json!({ "type": "Maglev", "hash": [{ "type": "SourceAddress", "name": "x" }] }),
            "balance.hash[0].name: not allowed with `type: SourceAddress`",
        ),
        (
            json!({ "type": "Maglev", "hash": vec![json!({ "type": "SourceAddress" }); 9] }),
            "balance.hash: has 9 entries: it must have 0 to 8",
        ),
        (
            json!({ "panicThreshold": 101 }),
            "balance.panicThreshold: 101 is out of range: it must be 0 to 100",
        ),
        (json!({ "slowStart": "0s" }), "balance.slowStart: must be longer than 0s"),
        (
            json!({ "locality": "Prefer" }),
            "balance.locality: unknown value `Prefer`: did you mean `PreferZone`?",
        ),
    ] {
        backend(json!({ "balance": balance }), expected);
    }
    backend(
        json!({ "endpoints": [{ "address": "a:1", "priority": 16 }] }),
        "endpoints[0].priority: 16 is out of range: it must be 0 to 15",
    );
}

#[test]
fn health_checks() {
    for (check, expected) in [
        (json!({ "type": "TCP", "path": "/" }), "healthCheck.path: only with `type: HTTP`"),
        (json!({ "type": "GRPC", "statuses": [200] }), "healthCheck.statuses: only with `type: HTTP`"),
        (json!({ "type": "HTTP", "service": "a" }), "healthCheck.service: only with `type: GRPC`"),
        (
            json!({ "type": "TCP", "host": "a" }),
            "healthCheck.host: not with `type: TCP`: nothing is said on the connection",
        ),
        (
            json!({ "type": "HTTP", "path": "healthz" }),
            "healthCheck.path: `healthz` is not the path of a request: begin it with /",
        ),
        (
            json!({ "type": "HTTP", "host": "a b" }),
            "healthCheck.host: `a b` is not a host, with or without a port",
        ),
        (
            json!({ "type": "HTTP", "statuses": [200, 600] }),
            "healthCheck.statuses[1]: 600 is out of range: it must be 100 to 599",
        ),
        (
            json!({ "type": "HTTP", "statuses": [200, 200] }),
            "healthCheck.statuses[1]: `200` is in the list already",
        ),
        (json!({ "type": "HTTP", "port": 0 }), "healthCheck.port: 0 is out of range: it must be 1 to 65535"),
        (json!({ "type": "HTTP", "interval": "0s" }), "healthCheck.interval: must be longer than 0s"),
        (json!({ "type": "HTTP", "timeout": "0s" }), "healthCheck.timeout: must be longer than 0s"),
        (
            json!({ "type": "HTTP", "jitter": 101 }),
            "healthCheck.jitter: 101 is out of range: it must be 0 to 100",
        ),
        (
            json!({ "type": "HTTP", "healthyThreshold": 0 }),
            "healthCheck.healthyThreshold: 0 is out of range: it must be 1 to 100",
        ),
        (
            json!({ "type": "HTTP", "unhealthyThreshold": 101 }),
            "healthCheck.unhealthyThreshold: 101 is out of range: it must be 1 to 100",
        ),
    ] {
        backend(json!({ "healthCheck": check }), expected);
    }
}

#[test]
fn outlier_detection() {
    for (detection, expected) in [
        (json!({ "interval": "0s" }), "outlierDetection.interval: must be longer than 0s"),
        (json!({ "baseEjectionTime": "0s" }), "outlierDetection.baseEjectionTime: must be longer than 0s"),
        (
            json!({ "baseEjectionTime": "20s", "maxEjectionTime": "10s" }),
            "outlierDetection.maxEjectionTime: 10s is shorter than baseEjectionTime, 20s: make it longer, or equal",
        ),
        (
            json!({ "maxEjectionPercent": 101 }),
            "outlierDetection.maxEjectionPercent: 101 is out of range: it must be 0 to 100",
        ),
        (
            json!({ "latency": { "factorPercent": 100 } }),
            "outlierDetection.latency.factorPercent: 100 is out of range: it must be at least 101",
        ),
        (
            json!({ "successRate": { "minRequest": 1 } }),
            "outlierDetection.successRate.minRequest: unknown field `minRequest`: did you mean `minRequests`?",
        ),
    ] {
        backend(json!({ "outlierDetection": detection }), expected);
    }
}

#[test]
fn limits_and_timeouts() {
    let limits = |limits: Value, expected: &str| backend(json!({ "limits": limits }), expected);
    limits(json!({ "connections": 0 }), "limits.connections: 0 is out of range: it must be at least 1");
    limits(json!({ "requests": 0 }), "limits.requests: 0 is out of range: it must be at least 1");
    limits(json!({ "waitTimeout": "0s" }), "limits.waitTimeout: must be longer than 0s");
    limits(
        json!({ "adaptive": { "min": 0 } }),
        "limits.adaptive.min: 0 is out of range: it must be at least 1",
    );
    limits(
        json!({ "adaptive": { "min": 8, "max": 7 } }),
        "limits.adaptive.max: 7 is less than min, 8: make it more, or equal",
    );
    limits(
        json!({ "adaptive": { "tolerancePercent": 100 } }),
        "limits.adaptive.tolerancePercent: 100 is out of range: it must be 101 to 1000",
    );
    backend(json!({ "connectTimeout": "0s" }), "connectTimeout: must be longer than 0s; leave it out for 5s");
    backend(
        json!({ "retryConstraint": { "budget": { "interval": "0s" } } }),
        "retryConstraint.budget.interval: must be longer than 0s",
    );
    for (limit, expected) in [
        ("connections", "http.limits.connections: 0 is out of range: it must be at least 1"),
        ("requests", "http.limits.requests: 0 is out of range: it must be at least 1"),
        (
            "streamsPerConnection",
            "http.limits.streamsPerConnection: 0 is out of range: it must be 1 to 65536",
        ),
    ] {
        let spec = json!({ "address": "127.0.0.1:0", "http": { "limits": { limit: 0 } } });
        assert_eq!(refused(Kind::Listener, spec), expected);
    }
}

#[test]
fn retries() {
    for (retry, expected) in [
        (json!({ "attempts": 101 }), "attempts: 101 is out of range: it must be 0 to 100"),
        (json!({ "codes": [399] }), "codes[0]: 399 is out of range: it must be 400 to 599"),
        (json!({ "codes": [503, 503] }), "codes[1]: `503` is in the list already"),
        (
            json!({ "maxBodyBytes": 16_777_217 }),
            "maxBodyBytes: 16777217 is out of range: it must be 0 to 16777216",
        ),
        (
            json!({ "grpcStatuses": ["UNAVAILABLE", "UNAVAILABLE"] }),
            "grpcStatuses[1]: `UNAVAILABLE` is in the list already",
        ),
        (json!({ "hedgeDelay": "0s" }), "hedgeDelay: must be longer than 0s"),
        (
            json!({ "backoff": "1s", "maxBackoff": "500ms" }),
            "maxBackoff: 500ms is shorter than backoff, 1s: make it longer, or equal",
        ),
    ] {
        let rule = json!({ "backendRefs": [{ "name": "b" }], "retry": retry });
        for kind in [Kind::HttpRoute, Kind::GrpcRoute] {
            let spec = json!({ "listeners": ["a"], "rules": [rule] });
            assert_eq!(refused(kind, spec), format!("rules[0].retry.{expected}"));
        }
    }
}

/// What a description says of an absent field is what the schema has as its default.
#[test]
fn defaults_are_what_the_descriptions_say() {
    let schema = schema();
    let mut seen = 0;
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        for (field, property) in definition["properties"].as_object().into_iter().flatten() {
            let default = &property["default"];
            if let Some(said) = property["description"].as_str().and_then(said_of_absence)
                && (default.is_number() || default.as_str().is_some_and(is_number))
            {
                assert_eq!(meant(default), meant(&json!(said)), "{name}.{field}: {property}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 30, "{seen}");
}

/// Whether it is a duration.
fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// `1 s` of "… Something. 1 s where it is absent …".
fn said_of_absence(description: &str) -> Option<&str> {
    let (before, _) = description.split_once(" where it is absent")?;
    Some(before.rsplit(['.', ',']).next().unwrap_or(before).trim())
}

/// A default without the differences between how people and JSON write one: durations in milliseconds, sizes in bytes.
fn meant(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let text = text
        .replace("An hour", "1 h")
        .replace("Without limit", "0 s")
        .replace(" minutes", "m")
        .replace([' ', '`'], "");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return text,
    };
    number.parse::<u64>().map_or(text.clone(), |number| (number * millis).to_string())
}

//! What is written for a cluster holds here: the rules of manifests of the Gateway API, pasted as they are, and back.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;

use http::{HeaderMap, Method};
use outrigger_config::{File, Head, Snapshot, file};
use serde_json::{Map, Value, json};

/// The fields of a route's spec that are pasted. What stands beside them, `parentRefs`, is what `listeners` is here.
const PASTED: [&str; 2] = ["hostnames", "rules"];

/// Every manifest, by the name of its file.
fn manifests() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/gateway-api");
    let mut manifests: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.file_stem().unwrap().to_string_lossy().into_owned(), serde_saphyr::from_str(&text).unwrap())
        })
        .collect();
    manifests.sort_by(|(a, _), (b, _)| a.cmp(b));
    manifests
}

/// A file with a manifest's route in it.
fn pasted(manifest: &Value) -> Value {
    let (kind, listener) = match manifest["kind"].as_str().unwrap() {
        "HTTPRoute" => ("httpRoutes", json!({ "protocol": "HTTP" })),
        "GRPCRoute" => ("grpcRoutes", json!({ "protocol": "HTTP" })),
        "TLSRoute" => ("tlsRoutes", json!({ "protocol": "TLS", "tls": { "mode": "Passthrough" } })),
        "TCPRoute" => ("tcpRoutes", json!({ "protocol": "TCP" })),
        other => panic!("{other}"),
    };
    let mut listener = listener.as_object().unwrap().clone();
    listener.extend([("name".into(), json!("town")), ("address".into(), json!("127.0.0.1:0"))]);
    let fields =
        PASTED.into_iter().filter_map(|field| Some((field.to_owned(), manifest["spec"].get(field)?)));
    let mut route: Map<_, _> = fields.map(|(field, value)| (field, value.clone())).collect();
    route.extend([("name".into(), json!("route")), ("listeners".into(), json!(["town"]))]);
    let backends =
        ["oven", "oven-v1", "oven-v2", "oven-v3", "pastry", "doorman", "vault", "vault-v2", "ledger"]
            .map(|name| json!({ "name": name }));
    json!({ "listeners": [listener], kind: [route], "backends": backends })
}

fn parse(file: &Value) -> File {
    file::parse(&file.to_string()).unwrap()
}

/// What of `given` is not in `kept`, or not the same there, by path.
fn lost(given: &Value, kept: Option<&Value>, at: &str, found: &mut Vec<String>) {
    match (given, kept) {
        (Value::Object(given), Some(Value::Object(kept))) => {
            given.iter().for_each(|(key, value)| lost(value, kept.get(key), &format!("{at}.{key}"), found));
        }
        (Value::Array(given), Some(Value::Array(kept))) if given.len() == kept.len() => {
            let pairs = given.iter().zip(kept).enumerate();
            pairs.for_each(|(index, (a, b))| lost(a, Some(b), &format!("{at}[{index}]"), found));
        }
        (given, kept) if Some(given) != kept => found.push(format!("{at}: {given}")),
        _ => {}
    }
}

#[test]
fn rules_of_the_gateway_api_are_taken_as_they_are() {
    let manifests = manifests();
    assert!(manifests.len() >= 20);
    for (name, manifest) in &manifests {
        let file = parse(&pasted(manifest));
        assert_eq!(file.rejected, [], "{name}");
        assert_eq!(file.warnings, [], "{name}");
    }
}

#[test]
fn rules_are_written_back_as_they_were_given() {
    for (name, manifest) in manifests() {
        let given = pasted(&manifest);
        let file = parse(&given);
        let written = Snapshot::build(1, file.resources.into_iter().map(Into::into)).resources_json();
        let kind = given.as_object().unwrap().keys().find(|key| key.ends_with("Routes")).unwrap();
        let mut found = Vec::new();
        lost(&given[kind], Some(&written[kind]), "", &mut found);
        // What the API fills in by itself, and what it takes to be the same: header names in upper or lower case.
        found.retain(|lost| {
            let default = [".weight: 1", ".type: \"Exact\"", ".type: \"Cookie\"", ".kind: \"Cookie\""];
            let header = lost.contains("emove[") || lost.contains(".name: \"X-");
            !default.iter().any(|default| lost.ends_with(default)) && !header
        });
        assert_eq!(found, [""; 0], "{name}");
        let again = parse(&written);
        assert_eq!((again.rejected.len(), again.warnings.len()), (0, 0), "{name}");
        let again = Snapshot::build(1, again.resources.into_iter().map(Into::into)).resources_json();
        assert_eq!(again, written, "{name}");
    }
}

/// A listener, a backend at two ports, and what `routes` says.
fn with(routes: &str) -> File {
    let head = "listeners: [{ name: web, address: '127.0.0.1:0' }]
backends: [{ name: api, endpoints: [{ address: '127.0.0.1:3000' }, { address: 'api.test:3001' }] }, { name: one, endpoints: [{ address: '127.0.0.1:80' }] }]\n";
    file::parse(&format!("{head}{routes}")).unwrap()
}

fn told(found: &[outrigger_config::Rejected]) -> Vec<String> {
    found.iter().map(|one| one.invalid.to_string()).collect()
}

#[test]
fn a_reference_that_means_less_than_it_says_is_doubted() {
    let file = with(
        "httpRoutes:
  - name: a
    listeners: [web]
    rules:
      - filters: [{ type: RequestMirror, requestMirror: { backendRef: { name: api, port: 80 } } }]
        backendRefs: [{ name: one, port: 80, namespace: shop }, { name: api, port: 3000 }]
tcpRoutes: [{ name: b, listeners: [web], rules: [{ backendRefs: [{ name: one, namespace: ops }] }] }]
grpcRoutes:
  - name: c
    listeners: [web]
    rules: [{ filters: [{ type: RequestMirror, requestMirror: { backendRef: { name: gone, port: 1 } } }] }]",
    );
    assert_eq!(told(&file.rejected), [""; 0]);
    assert_eq!(
        told(&file.warnings),
        [
            "httpRoutes[0].rules[0].filters[0].requestMirror.backendRef.port: \
             80 is not used: backend `api` is at `127.0.0.1:3000`",
            "httpRoutes[0].rules[0].backendRefs[1].port: 3000 is not used: backend `api` is at `api.test:3001`",
            "tcpRoutes[0].rules[0].backendRefs[0].namespace: \
             `ops` is not used: there is one backend `one`, also for namespace `shop`",
            "grpcRoutes[0].rules[0].filters[0].requestMirror.backendRef.name: there is no backend `gone`",
        ]
    );
}

#[test]
fn a_reference_to_what_is_no_backend_is_refused() {
    for (reference, expected) in [
        ("port: 0", "port: the number `0` is not a whole number from 1 to 65535"),
        ("port: 65536", "port: the number `65536` is not a whole number from 1 to 65535"),
        ("kind: ServiceImport", "kind: unknown value `ServiceImport`: use one of `Service`, `Backend`"),
        (
            "group: multicluster.x-k8s.io",
            "group: `multicluster.x-k8s.io` is not a group of backends: leave it out, or empty",
        ),
        ("namespace: A", "namespace: `A` is not a name"),
    ] {
        for (at, route) in [
            (
                "httpRoutes[0].rules[0].backendRefs[0]",
                "httpRoutes: [{ name: a, listeners: [web], rules: [{ backendRefs: [REF] }] }]",
            ),
            (
                "tlsRoutes[0].rules[0].backendRefs[0]",
                "tlsRoutes: [{ name: a, listeners: [web], rules: [{ backendRefs: [REF] }] }]",
            ),
            (
                "grpcRoutes[0].rules[0].backendRefs[0].filters[0].requestMirror.backendRef",
                "grpcRoutes: [{ name: a, listeners: [web], rules: [{ backendRefs: [{ name: one, filters: [{ type: RequestMirror, requestMirror: { backendRef: REF } }] }] }] }]",
            ),
        ] {
            let file = with(&route.replace("REF", &format!("{{ name: one, {reference} }}")));
            let found = told(&file.rejected);
            assert!(found.len() == 1 && found[0].starts_with(&format!("{at}.{expected}")), "{found:?}");
        }
    }
}

/// Gateway API, `HTTPHeaderMatch.name` and `HTTPQueryParamMatch.name`: "Subsequent entries … MUST be ignored."
#[test]
fn of_entries_for_one_header_or_parameter_the_first_counts() {
    let file = with(
        "httpRoutes:
  - name: a
    listeners: [web]
    rules:
      - name: twice
        matches:
          - headers: [{ name: X-Env, value: a }, { name: x-env, value: b }]
            queryParams: [{ name: q, value: '1' }, { name: Q, value: '1' }, { name: q, value: '2' }]
      - { name: two, matches: [{ headers: [{ name: x-env, value: a }, { name: x-b, value: b }] }] }
grpcRoutes:
  - name: c
    listeners: [web]
    rules: [{ matches: [{ headers: [{ name: x-c, value: a }, { name: x-c, value: b }] }] }]",
    );
    assert_eq!(told(&file.rejected), [""; 0]);
    let ignored = "is in the list already: the first of them counts, this one does not";
    assert_eq!(
        told(&file.warnings),
        [
            format!("httpRoutes[0].rules[0].matches[0].headers[1].name: `x-env` {ignored}"),
            format!("httpRoutes[0].rules[0].matches[0].queryParams[2].name: `q` {ignored}"),
            format!("grpcRoutes[0].rules[0].matches[0].headers[1].name: `x-c` {ignored}"),
        ]
    );
    let snapshot = Snapshot::build(1, file.resources.into_iter().map(Into::into));
    let takes = |fields: &[(&'static str, &str)]| {
        let headers: HeaderMap =
            fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let head =
            Head { host: "a", path: "/", query: Some("q=1&Q=1"), method: &Method::GET, headers: &headers };
        snapshot.listeners[0].http.find(&head).map(|found| snapshot.http_rules[found.rule].rule.to_string())
    };
    assert_eq!(takes(&[("x-env", "a")]).as_deref(), Some("twice"));
    assert_eq!(takes(&[("x-env", "b")]), None);
    // An entry that is ignored does not make its match the more specific one.
    assert_eq!(takes(&[("x-env", "a"), ("x-b", "b")]).as_deref(), Some("two"));
}

//! GRPCRoutes and TLSRoutes: what they take, by the Gateway API's precedence, and what is wrong with one.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, header};
use outrigger_config::matching::Head;
use outrigger_config::{Snapshot, file, schema};
use serde_json::{Value, json};

fn snapshot(yaml: &str) -> Snapshot {
    let file = file::parse(yaml).unwrap();
    assert_eq!(file.rejected, []);
    Snapshot::build(1, file.resources.into_iter().map(Arc::new))
}

/// The route and rule that take a call.
fn takes(snapshot: &Snapshot, path: &str, fields: &[(&'static str, &'static str)]) -> String {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    let head = Head { host: "shop.test", path, query: None, method: &Method::POST, headers: &headers };
    let found = snapshot.listeners[0].http.find(&head).map(|found| &snapshot.http_rules[found.rule]);
    found.map_or_else(|| "nothing".into(), |rule| format!("{}/{}", rule.route, rule.rule))
}

#[test]
fn grpc_route_matches_by_service_and_method_in_the_gateway_apis_precedence() {
    let snapshot = snapshot(
        "listeners: [{ name: web, address: '127.0.0.1:0' }]
httpRoutes: [{ name: pages, listeners: [web], rules: [{ name: all }] }]
grpcRoutes:
  - name: calls
    listeners: [web]
    rules:
      - { name: method, matches: [{ method: { method: Add } }] }
      - { name: service, matches: [{ method: { service: shop.v1.Cart } }] }
      - { name: both, matches: [{ method: { service: shop.v1.Cart, method: Add } }] }
      - { name: canary, matches: [{ method: { service: shop.v1.Cart }, headers: [{ name: x-env, value: canary }] }] }
      - { name: pattern, matches: [{ method: { type: RegularExpression, service: 'ops[.].*', method: 'Get.+' } }] }
      - { name: longer, matches: [{ method: { method: Remove } }, { method: { type: RegularExpression, method: 'List[A-Z].*' } }] }",
    );
    let grpc = [("content-type", "application/grpc")];
    let canary = [("content-type", "application/grpc+proto"), ("x-env", "canary")];
    for (path, fields, taken) in [
        ("/shop.v1.Cart/Add", &grpc[..], "calls/both"),
        ("/shop.v1.Cart/Add", &canary, "calls/both"),
        ("/shop.v1.Cart/Remove", &grpc, "calls/service"),
        ("/shop.v1.Cart/Remove", &canary, "calls/canary"),
        ("/shop.v1.CartX/Remove", &grpc, "calls/longer"),
        ("/other.Service/Add", &grpc, "calls/method"),
        ("/ops.v1.Admin/GetState", &grpc, "calls/pattern"),
        ("/ops.v1.Admin/Get", &grpc, "pages/all"),
        ("/x.Y/ListAll", &grpc, "calls/longer"),
        ("/x.Y/Z/Add", &grpc, "pages/all"),
        // Pages and calls share a host: what is not a call is not the GRPCRoute's.
        ("/shop.v1.Cart/Add", &[], "pages/all"),
        ("/shop.v1.Cart/Add", &[("content-type", "application/json")], "pages/all"),
        ("/shop.v1.Cart/Add", &[("content-type", "application/grpc-web+proto")], "calls/both"),
    ] {
        assert_eq!(takes(&snapshot, path, fields), taken, "{path} {fields:?}");
    }
}

#[test]
fn grpc_route_without_matches_takes_every_call_of_its_hosts() {
    let snapshot = snapshot(
        "listeners: [{ name: web, address: '127.0.0.1:0' }]
grpcRoutes: [{ name: calls, listeners: [web], hostnames: [shop.test], rules: [{}] }]",
    );
    assert!(snapshot.http_rules[0].grpc);
    assert_eq!(takes(&snapshot, "/a/b", &[("content-type", "application/grpc")]), "calls/0");
    assert_eq!(takes(&snapshot, "/a/b", &[]), "nothing");
    let headers =
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]);
    let head =
        Head { host: "other.test", path: "/a/b", query: None, method: &Method::POST, headers: &headers };
    assert_eq!(snapshot.listeners[0].http.find(&head), None);
}

#[test]
fn tls_route_by_the_most_specific_name() {
    let snapshot = snapshot(
        "listeners:
  - { name: tls, address: '127.0.0.1:0', protocol: TLS, tls: { mode: Passthrough } }
  - { name: other, address: '127.0.0.1:0', protocol: TLS, tls: { mode: Passthrough } }
tlsRoutes:
  - { name: any, listeners: [tls], rules: [{ backendRefs: [{ name: b }] }] }
  - { name: exact, listeners: [tls, other], hostnames: [a.shop.test], rules: [{ backendRefs: [{ name: b }] }] }
  - { name: second, listeners: [tls], hostnames: [a.shop.test], rules: [{ backendRefs: [{ name: b }] }] }
  - { name: wide, listeners: [tls], hostnames: ['*.test'], rules: [{ backendRefs: [{ name: b }] }] }
  - { name: wild, listeners: [tls], hostnames: ['*.Shop.test'], rules: [{ backendRefs: [{ name: b }] }] }
backends: [{ name: b }]",
    );
    let find = |listener: usize, name: Option<&str>| {
        let found = snapshot.listeners[listener].tls.find(name);
        found.map(|at| snapshot.tcp_rules[at].route.as_str())
    };
    assert_eq!((snapshot.listeners[0].name.as_str(), snapshot.listeners[1].name.as_str()), ("other", "tls"));
    for (name, route) in [
        (Some("a.shop.test"), "exact"),
        (Some("a.shop.test."), "exact"),
        (Some("b.shop.test"), "wild"),
        (Some("c.b.shop.test"), "wild"),
        (Some("shop.test"), "wide"),
        (Some("test"), "any"),
        (None, "any"),
    ] {
        assert_eq!(find(1, name), Some(route), "{name:?}");
    }
    assert_eq!(find(0, Some("a.shop.test")), Some("exact"));
    assert_eq!(find(0, Some("b.shop.test")), None);
    assert_eq!(find(0, None), None);
}

#[test]
fn what_is_wrong_is_named() {
    for (yaml, said) in [
        (
            "grpcRoutes: [{ name: a, listeners: [w], rules: [{ matches: [{ method: {} }] }] }]",
            "grpcRoutes[0].rules[0].matches[0].method: a method match names a service, a method, or both",
        ),
        (
            "grpcRoutes: [{ name: a, listeners: [w], rules: [{ matches: [{ method: { service: a/b } }] }] }]",
            "grpcRoutes[0].rules[0].matches[0].method: `a/b` is not a service: write it with its package, shop.v1.Cart",
        ),
        (
            "tlsRoutes: [{ name: a, listeners: [w], rules: [] }]",
            "tlsRoutes[0].rules: is empty: it must have at least one entry",
        ),
        (
            "listeners: [{ name: w, address: '127.0.0.1:0', protocol: HTTPS, tls: { mode: Passthrough } }]",
            "listeners[0].tls.mode: Passthrough is for `protocol: TLS` alone: what is passed on cannot be read",
        ),
        (
            "listeners: [{ name: w, address: '127.0.0.1:0', protocol: TLS, tls: {} }]",
            "listeners[0].tls.certificateRefs: is empty: it must have at least one entry",
        ),
    ] {
        let file = file::parse(yaml).unwrap();
        assert_eq!(file.rejected.len(), 1, "{yaml}");
        assert_eq!(file.rejected[0].invalid.to_string(), said);
    }
}

#[test]
fn grpc_and_tls_routes_are_the_same_to_the_schema() {
    let schema = jsonschema::validator_for(&schema()).unwrap();
    let calls = |rule: Value| json!({ "grpcRoutes": [{ "name": "r", "listeners": ["a"], "rules": [rule] }] });
    let method = |method: Value| calls(json!({ "matches": [{ "method": method }] }));
    for (file, valid) in [
        (calls(json!({})), true),
        (calls(json!({ "timeouts": { "request": "1s" }, "backendRefs": [{ "name": "b" }] })), true),
        (calls(json!({ "retry": { "grpcStatuses": ["UNAVAILABLE"] } })), true),
        (calls(json!({ "retry": { "grpcStatuses": ["OK"] } })), false),
        (method(json!({ "service": "a.B" })), true),
        (method(json!({ "method": "Add" })), true),
        (method(json!({})), false),
        (method(json!({ "method": "a.B" })), false),
        (method(json!({ "service": ".B" })), false),
        (method(json!({ "service": "" })), false),
        (method(json!({ "type": "RegularExpression", "service": "a.*" })), true),
        (json!({ "tlsRoutes": [{ "name": "r", "listeners": ["a"], "rules": [] }] }), false),
        (
            json!({ "tlsRoutes": [{ "name": "r", "listeners": ["a"], "rules": [{ "backendRefs": [{ "name": "b" }] }] }] }),
            true,
        ),
    ] {
        let parsed = file::parse(&file.to_string()).is_ok_and(|file| file.rejected.is_empty());
        assert_eq!((schema.is_valid(&file), parsed), (valid, valid), "{file}");
    }
}

#[test]
fn filters_of_bodies_are_the_same_to_the_schema() {
    let schema = jsonschema::validator_for(&schema()).unwrap();
    let of = |kind: &str, filter: Value| json!({ kind: [{ "name": "r", "listeners": ["a"], "rules": [{ "filters": [filter] }] }] });
    let filter = |filter: Value| of("httpRoutes", filter);
    let compression = |it: Value| filter(json!({ "type": "Compression", "compression": it }));
    let decompression = |it: Value| filter(json!({ "type": "Decompression", "decompression": it }));
    for (file, valid) in [
        (filter(json!({ "type": "Compression" })), true),
        (filter(json!({ "type": "Decompression" })), true),
        (filter(json!({ "type": "GrpcWeb" })), true),
        (filter(json!({ "type": "GrpcWeb", "grpcWeb": {} })), true),
        (of("grpcRoutes", json!({ "type": "GrpcWeb" })), true),
        (compression(json!({})), true),
        (compression(json!({ "algorithms": ["Gzip"], "contentTypes": ["text/*"], "minBytes": 0 })), true),
        (compression(json!({ "algorithms": [] })), false),
        (compression(json!({ "algorithms": ["Deflate"] })), false),
        (compression(json!({ "algorithms": ["gzip"] })), false),
        (compression(json!({ "contentTypes": ["text"] })), false),
        (compression(json!({ "contentTypes": ["*/*"] })), false),
        (compression(json!({ "contentTypes": ["text/*json"] })), false),
        (compression(json!({ "contentTypes": ["application/*+json"] })), true),
        (compression(json!({ "minBytes": -1 })), false),
        (decompression(json!({ "algorithms": ["Deflate"], "maxBytes": 1, "maxRatio": 1 })), true),
        (decompression(json!({ "maxBytes": 0 })), false),
        (decompression(json!({ "maxRatio": 0 })), false),
        (filter(json!({ "type": "BodyLimit", "bodyLimit": { "requestBytes": 1 } })), true),
        (filter(json!({ "type": "BodyLimit", "bodyLimit": {} })), false),
        (filter(json!({ "type": "Buffer", "buffer": { "maxBytes": 1 } })), true),
        (filter(json!({ "type": "Buffer", "buffer": { "maxBytes": 0 } })), false),
        (filter(json!({ "type": "Buffer", "buffer": {} })), false),
    ] {
        let parsed = file::parse(&file.to_string()).is_ok_and(|file| file.rejected.is_empty());
        assert_eq!((schema.is_valid(&file), parsed), (valid, valid), "{file}");
    }
    // What a filter needs a field for, the parser alone knows, and what a GRPCRoute has no use for.
    for (file, why) in [
        (filter(json!({ "type": "Buffer" })), "a filter of type Buffer has the field buffer, and no other"),
        (
            of("grpcRoutes", json!({ "type": "Compression" })),
            "Compression is not for a GRPCRoute: use an HTTPRoute",
        ),
    ] {
        let file = file::parse(&file.to_string()).unwrap();
        assert!(file.rejected[0].invalid.reason.contains(why), "{}", file.rejected[0]);
    }
}

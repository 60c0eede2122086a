//! What it costs to find the rule that takes a request, with few routes and with many: `cargo bench -p outrigger-config`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::format_collect, missing_docs)]

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use outrigger_config::path::normalize;
use outrigger_config::{Head, Snapshot, file};

/// Routes that differ in one thing: what the thing is called, the n-th route without its listener, and the host, target
/// and value of `x-tenant` of a request that it takes.
type Shape = (&'static str, fn(usize) -> String, fn(usize) -> (String, String, String));

const SHAPES: [Shape; 7] = [
    (
        "host",
        |n| format!("hostnames: [h{n}.example], rules: [{{}}]"),
        |n| (format!("h{n}.example"), "/api/v1/items/17".into(), String::new()),
    ),
    (
        "wildcard host",
        |n| format!("hostnames: ['*.h{n}.example'], rules: [{{}}]"),
        |n| (format!("www.h{n}.example"), "/api/v1/items/17".into(), String::new()),
    ),
    (
        "exact path",
        |n| format!("rules: [{{ matches: [{{ path: {{ type: Exact, value: /api/v1/service-{n} }} }}] }}]"),
        |n| ("a.example".into(), format!("/api/v1/service-{n}"), String::new()),
    ),
    (
        "path prefix",
        |n| format!("rules: [{{ matches: [{{ path: {{ value: /api/v1/service-{n} }} }}] }}]"),
        |n| ("a.example".into(), format!("/api/v1/service-{n}/items/17"), String::new()),
    ),
    (
        "header",
        |n| format!("rules: [{{ matches: [{{ headers: [{{ name: x-tenant, value: t{n} }}] }}] }}]"),
        |n| ("a.example".into(), "/api/v1/items/17".into(), format!("t{n}")),
    ),
    (
        "query parameter",
        |n| format!("rules: [{{ matches: [{{ queryParams: [{{ name: tenant, value: t{n} }}] }}] }}]"),
        |n| ("a.example".into(), format!("/api/v1/items/17?page=2&tenant=t{n}"), String::new()),
    ),
    (
        "expression",
        |n| {
            format!(
                "rules: [{{ matches: [{{ path: {{ type: RegularExpression, value: '/service-{n}/[0-9]+/.*' }} }}] }}]"
            )
        },
        |n| ("a.example".into(), format!("/service-{n}/17/items"), String::new()),
    ),
];

fn snapshot(count: usize, route: fn(usize) -> String) -> Snapshot {
    let routes: String =
        (0..count).map(|n| format!("- {{ name: r{n}, listeners: [web], {} }}\n", route(n))).collect();
    let yaml = format!("listeners:\n- {{ name: web, address: '127.0.0.1:0' }}\nhttpRoutes:\n{routes}");
    let file = file::parse(&yaml).unwrap();
    assert!(file.rejected.is_empty());
    Snapshot::build(1, file.resources.into_iter().map(Into::into))
}

fn headers(tenant: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [("host", "a.example"), ("user-agent", "curl/8"), ("accept", "*/*")] {
        headers.insert(name, value.parse().unwrap());
    }
    if !tenant.is_empty() {
        headers.insert("x-tenant", tenant.parse().unwrap());
    }
    headers
}

/// From a request's host, target and headers to its rule, the path's normalisation included.
fn route(c: &mut Criterion) {
    for (shape, rule, request) in SHAPES {
        let mut group = c.benchmark_group(format!("route by {shape}"));
        for count in [10, 10_000] {
            let snapshot = snapshot(count, rule);
            // In an order that the processor cannot learn.
            let requests: Vec<_> = (0..1024)
                .map(|n| n * 7919 % count)
                .map(|n| {
                    let (host, target, tenant) = request(n);
                    (host, target, headers(&tenant))
                })
                .collect();
            let listener = &snapshot.listeners[0];
            let mut next = requests.iter().cycle();
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| {
                    let (host, target, headers) = next.next().unwrap();
                    let (path, query) =
                        target.split_once('?').map_or((&**target, None), |(path, query)| (path, Some(query)));
                    let path = normalize(path, listener.spec.http.path).unwrap();
                    let head = Head { host, path: &path, query, method: &Method::GET, headers };
                    listener.http.find(&head).unwrap()
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    // 0.4 s each: enough to see a tenth.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    targets = route
}
criterion_main!(benches);

//! What it costs to read a configuration of 10,000 routes and 10,000 endpoints, and to lay it out:
//! `cargo bench -p outrigger-config --bench load`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::format_collect, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use outrigger_config::{Snapshot, file};

/// How many routes there are, and how many endpoints.
const MANY: usize = 10_000;

/// Each route has a host, a path, a header and two backends; each backend has ten endpoints.
fn yaml() -> String {
    let routes: String = (0..MANY)
        .map(|n| {
            format!(
                "- name: r{n}\n  listeners: [web]\n  hostnames: [h{}.example]\n  rules:\n  - matches:\n    - path: {{ type: PathPrefix, value: /service-{n} }}\n      headers: [{{ name: x-env, value: e{n} }}]\n    backendRefs: [{{ name: b{}, weight: 9 }}, {{ name: b{} }}]\n    timeouts: {{ request: 10s }}\n",
                n % 100,
                n % 1000,
                (n + 1) % 1000,
            )
        })
        .collect();
    let backends: String = (0..MANY / 10)
        .map(|n| {
            let endpoints: String =
                (0..10).map(|e| format!("  - address: 10.{}.{}.{e}:8080\n", n / 256, n % 256)).collect();
            format!("- name: b{n}\n  endpoints:\n{endpoints}")
        })
        .collect();
    format!(
        "listeners:\n- {{ name: web, address: '127.0.0.1:0' }}\nhttpRoutes:\n{routes}backends:\n{backends}"
    )
}

/// The same with a path that is an expression.
fn expressions(yaml: &str) -> String {
    yaml.lines()
        .map(|line| {
            let pattern = line.replace("PathPrefix", "RegularExpression").replace(" }", "/[0-9]+/.*' }");
            if line.contains("PathPrefix") {
                format!("{}\n", pattern.replace("value: /", "value: '/"))
            } else {
                format!("{line}\n")
            }
        })
        .collect()
}

fn load(c: &mut Criterion) {
    let mut group = c.benchmark_group("load");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(2));
    for (name, yaml) in [("prefixes", yaml()), ("expressions", expressions(&yaml()))] {
        let file = file::parse(&yaml).unwrap();
        assert_eq!((file.rejected.len(), file.warnings.len(), file.resources.len()), (0, 0, MANY + 1001));
        let resources: Vec<_> = file.resources.into_iter().map(Arc::new).collect();
        group.bench_function(format!("{name}: read and check the file"), |bencher| {
            bencher.iter(|| file::parse(&yaml).unwrap());
        });
        group.bench_function(format!("{name}: lay it out"), |bencher| {
            bencher.iter(|| Snapshot::build(1, resources.iter().cloned()));
        });
    }
    group.finish();
}

criterion_group!(benches, load);
criterion_main!(benches);

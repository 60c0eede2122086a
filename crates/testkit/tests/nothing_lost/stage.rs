//! The mesh that the claims have in common: a caller's sidecar, and some instances of an application.

use outrigger_config::Kind;
use outrigger_testkit::mesh::{Mesh, Sidecar};
use serde_json::{Value, json};

/// Puts the backend `api` and waits until it is live.
pub async fn put_backend(mesh: &Mesh, spec: Value) {
    let revision = mesh.put(Kind::Backend, "api", spec).await.unwrap();
    mesh.settled(revision).await.unwrap();
}

/// Routes everything that a sidecar's application sends to the backend `api`, by a rule with these fields more.
pub async fn route(mesh: &Mesh, web: &Sidecar, mut rule: Value) {
    rule["backendRefs"] = json!([{ "name": "api" }]);
    let route = json!({ "listeners": [web.outbound_name()], "rules": [rule] });
    let revision = mesh.put(Kind::HttpRoute, "api", route).await.unwrap();
    mesh.settled(revision).await.unwrap();
}

/// The sum of a family of metrics over a sidecar's backends and listeners.
pub fn metric(sidecar: &Sidecar, family: &str) -> f64 {
    let metrics = sidecar.proxy().unwrap().metrics();
    let lines = metrics.lines().filter(|line| line.starts_with(family));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

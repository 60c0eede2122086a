//! The mesh that most tests have: a caller, and an application in two versions.

use std::time::Duration;

use outrigger_config::Kind;
use outrigger_testkit::mesh::{Member, Mesh, Sidecar};
use serde_json::{Value, json};

/// A caller `web`, and an application `api` in the versions `v1` and `v2`.
pub struct Shop {
    pub web: Sidecar,
    pub v1: Member,
    pub v2: Member,
    pub mesh: Mesh,
}

impl Shop {
    /// Starts it. Each of the backends `v1` and `v2` is one version, `api` is both.
    pub async fn open(certificates_for: Duration) -> Self {
        let mesh = Mesh::with_certificates_for(certificates_for).await.unwrap();
        let v1 = mesh.app("v1").start().await.unwrap();
        let v2 = mesh.app("v2").start().await.unwrap();
        let web = mesh.sidecar("web").start().await.unwrap();
        for (name, members) in [("v1", vec![&v1]), ("v2", vec![&v2]), ("api", vec![&v1, &v2])] {
            let endpoints: Vec<Value> = members.iter().map(|member| member.sidecar.endpoint()).collect();
            mesh.put(Kind::Backend, name, json!({ "endpoints": endpoints })).await.unwrap();
        }
        Self { web, v1, v2, mesh }
    }

    /// Routes everything that the caller sends by one rule, and waits until it is live.
    pub async fn route(&self, rule: Value) {
        let route = json!({ "listeners": [self.web.outbound_name()], "rules": [rule] });
        let revision = self.mesh.put(Kind::HttpRoute, "api", route).await.unwrap();
        self.mesh.settled(revision).await.unwrap();
    }

    /// Routes everything to both instances of the application alike.
    pub async fn route_to_both(&self) {
        self.route(json!({ "backendRefs": [{ "name": "api" }] })).await;
    }
}

pub const DAY: Duration = Duration::from_hours(24);

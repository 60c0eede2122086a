//! Sidecars that are killed, and start in a world without their control API.

use std::time::Duration;

use http::Method;
use outrigger_config::Kind as Object;
use outrigger_testkit::app::App;
use outrigger_testkit::load::{Kind, Load, Tally, Traffic};
use outrigger_testkit::mesh::{Enrolled, Mesh};
use serde_json::json;

use crate::binary::Binary;

/// A caller's sidecar and an application's, each the real command, and the control API in this process.
struct Stage {
    nodes: [Enrolled; 2],
    sidecars: [Binary; 2],
    app: App,
    mesh: Mesh,
}

impl Stage {
    async fn open() -> Self {
        let mesh = Mesh::start().await.unwrap();
        let app = App::builder().start().await;
        let nodes = [
            mesh.sidecar("web").enrol().await.unwrap(),
            mesh.sidecar("api").before(app.address()).enrol().await.unwrap(),
        ];
        let sidecars = [run(&nodes[0]).await, run(&nodes[1]).await];
        let stage = Self { nodes, sidecars, app, mesh };
        stage.mesh.settled(stage.change(0).await).await.unwrap();
        stage
    }

    /// A configuration that differs from the one before.
    async fn change(&self, nth: u32) -> u64 {
        let [web, api] = &self.nodes;
        let backend = json!({ "endpoints": [api.endpoint()] });
        self.mesh.put(Object::Backend, "api", backend).await.unwrap();
        let set = json!([{ "name": "x-change", "value": nth.to_string() }]);
        let filter = json!({ "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": set } });
        let rule = json!({ "backendRefs": [{ "name": "api" }], "filters": [filter] });
        let route = json!({ "listeners": [web.outbound_name()], "rules": [rule] });
        self.mesh.put(Object::HttpRoute, "api", route).await.unwrap()
    }

    /// Some traffic of every kind, without a failure.
    async fn carries_traffic(&self) {
        let mut loads = Vec::new();
        let gap = Duration::from_millis(20);
        for kind in [Kind::Http1, Kind::Http2, Kind::Unary, Kind::Streaming { messages: 5, gap }] {
            let traffic = Traffic { method: Method::POST, ..Traffic::new(kind, 150) };
            loads.push(Load::start(self.nodes[0].outbound(), traffic));
        }
        for load in &mut loads {
            load.more(30).await;
        }
        let mut all = Tally::default();
        for load in loads {
            all.add(load.end().await);
        }
        all.is_whole(120);
    }
}

/// Starts one; it listens when this returns.
async fn run(node: &Enrolled) -> Binary {
    let arguments = node.arguments();
    let binary = Binary::run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    binary.address(&format!("listener {}", node.outbound_name())).await;
    binary
}

#[tokio::test]
async fn a_sidecar_killed_without_its_control_api_loses_nothing_after_its_start() {
    let mut stage = Stage::open().await;
    stage.carries_traffic().await;
    stage.mesh.kill_control().await;
    for at in [0, 1, 0] {
        stage.sidecars[at].kill().await;
        stage.sidecars[at] = run(&stage.nodes[at]).await;
        stage.carries_traffic().await;
    }
    let before = stage.app.requests();
    stage.mesh.restart_control().await.unwrap();
    stage.mesh.settled(stage.change(1).await).await.unwrap();
    stage.carries_traffic().await;
    assert!(stage.app.requests() > before);
}

/// Whatever it was just writing down when it was killed, it starts from something whole.
#[tokio::test]
async fn a_sidecar_killed_amid_changes_starts_from_what_it_had() {
    let mut stage = Stage::open().await;
    let mut nth = 0;
    for _ in 0..5 {
        for _ in 0..4 + below(6) {
            nth += 1;
            stage.change(nth).await;
        }
        stage.sidecars[0].kill().await;
        stage.mesh.kill_control().await;
        stage.sidecars[0] = run(&stage.nodes[0]).await;
        stage.carries_traffic().await;
        stage.mesh.restart_control().await.unwrap();
    }
    nth += 1;
    stage.mesh.settled(stage.change(nth).await).await.unwrap();
}

/// A number below `end` that differs from run to run.
fn below(end: u32) -> u32 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos() % end
}

//! What vanishes without a word: no FIN, no reset. Every request is answered within its time all the same.

use std::time::Duration;

use outrigger_testkit::fault::{Fault, How, Relay, Side};
use outrigger_testkit::load::{Kind, Load, Traffic};
use outrigger_testkit::mesh::Mesh;
use serde_json::json;
use tokio::time::Instant;

use crate::stage::{put_backend, route};

/// How long a request may take, in all and per attempt.
const REQUEST: Duration = Duration::from_millis(1500);
const ATTEMPT: &str = "250ms";
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(1);

/// One of two instances vanishes for those who call it, after so many bytes of each of its connections.
async fn vanish(between_sidecars: bool, side: Side, after: u64) {
    let mesh = Mesh::start().await.unwrap();
    let (lost, well) = (mesh.app("lost").start().await.unwrap(), mesh.app("well").start().await.unwrap());
    let web = mesh.sidecar("web").start().await.unwrap();
    let fate = move |_| Some(Fault { side, after, how: How::Silence });
    let mut endpoint = lost.sidecar.endpoint();
    let (_relay, _callee);
    if between_sidecars {
        let relay = Relay::start(lost.sidecar.inbound().unwrap(), fate).unwrap();
        endpoint["address"] = json!(relay.address());
        _relay = relay;
    } else {
        let relay = Relay::start(lost.app.address(), fate).unwrap();
        let callee = mesh.sidecar("lost-too").before(relay.address()).start().await.unwrap();
        endpoint = callee.endpoint();
        (_relay, _callee) = (relay, callee);
    }
    put_backend(&mesh, json!({ "endpoints": [endpoint, well.sidecar.endpoint()] })).await;
    let timeouts = json!({ "request": "1500ms", "backendRequest": ATTEMPT });
    route(&mesh, &web, json!({ "timeouts": timeouts, "retry": { "attempts": 2, "backoff": "5ms" } })).await;
    let patience = REQUEST + SLACK;
    let traffic = Traffic { patience, ..Traffic::new(Kind::Http1, 40) };
    let began = Instant::now();
    let load = Load::start(web.outbound(), traffic);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let tally = load.end().await;
    println!("{} requests in {:?}, the slowest {:?}", tally.requests, began.elapsed(), tally.slowest);
    tally.is_whole(90);
}

#[tokio::test]
async fn a_sidecar_that_vanishes_in_the_handshake_is_gone_round() {
    vanish(true, Side::Response, 0).await;
}

#[tokio::test]
async fn a_sidecar_that_vanishes_under_requests_is_gone_round() {
    vanish(true, Side::Response, 8_000).await;
}

#[tokio::test]
async fn an_application_that_vanishes_is_gone_round() {
    vanish(false, Side::Response, 0).await;
}

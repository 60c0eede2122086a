//! Endpoints that are not what they should be, and what callers see of it: nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_config::Kind;
use outrigger_testkit::app::TcpApp;
use outrigger_testkit::mesh::{Mesh, Sidecar};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::Load;
use crate::story::{DAY, Shop};

/// How many endpoints of a backend stand so, as a sidecar sees it.
fn standing(sidecar: &Sidecar, backend: &str, state: &str) -> u64 {
    let sample = format!("outrigger_backend_endpoints{{backend=\"{backend}\",state=\"{state}\"}} ");
    let metrics = sidecar.proxy().unwrap().metrics();
    let found = metrics.lines().find_map(|line| line.strip_prefix(&sample));
    found.map_or(0, |count| count.parse().unwrap())
}

async fn stands(sidecar: &Sidecar, backend: &str, state: &str, count: u64) {
    let until = Instant::now() + Duration::from_secs(20);
    while standing(sidecar, backend, state) != count {
        let metrics = sidecar.proxy().unwrap().metrics();
        assert!(Instant::now() < until, "not {count} {state}: {metrics}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The second version of the application, and the first one's place, where another is expected than is there.
async fn with_stranger(shop: &Shop, more: Value) {
    let stranger =
        json!({ "address": shop.v1.sidecar.inbound(), "identity": "spiffe://outrigger.local/node/gone" });
    let mut backend = json!({
        "endpoints": [stranger, shop.v2.sidecar.endpoint()],
        "balance": { "type": "RoundRobin" },
    });
    backend.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    shop.mesh.put(Kind::Backend, "api", backend).await.unwrap();
    shop.route_to_both().await;
}

#[tokio::test]
async fn a_request_that_meets_a_stranger_goes_elsewhere_whatever_its_method() {
    let shop = Shop::open(DAY).await;
    with_stranger(&shop, json!({})).await;
    let mut caller = shop.web.caller();
    for turn in 0..20 {
        let method = if turn % 2 == 0 { Method::POST } else { Method::GET };
        let answer = caller.call(method, "api", "/", Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.app()), (200, "v2"), "{answer:?}");
    }
    assert_eq!(shop.v1.app.requests(), 0);
    assert_eq!((standing(&shop.web, "api", "stranger"), standing(&shop.web, "api", "well")), (1, 1));
}

#[tokio::test]
async fn a_request_of_http_2_that_meets_a_stranger_goes_elsewhere() {
    let shop = Shop::open(DAY).await;
    with_stranger(&shop, json!({ "protocol": "H2C" })).await;
    let stream = TcpStream::connect(shop.web.outbound()).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..20 {
        let request = Request::post("http://api/").header("content-type", "application/grpc");
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["x-app"]), (200, &"v2".parse().unwrap()));
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(shop.v1.app.requests(), 0);
    assert_eq!(standing(&shop.web, "api", "stranger"), 1);
}

#[tokio::test]
async fn a_connection_that_meets_a_stranger_goes_elsewhere() {
    let mesh = Mesh::start().await.unwrap();
    let web = mesh.sidecar("web").start().await.unwrap();
    let (theirs, ours) = (TcpApp::echo().await.unwrap(), TcpApp::echo().await.unwrap());
    let stranger = mesh.sidecar("stranger").before(theirs.address()).start().await.unwrap();
    let known = mesh.sidecar("known").before(ours.address()).start().await.unwrap();
    let listener = json!({
        "address": SocketAddr::new(web.outbound().ip(), 0),
        "direction": "Outbound", "protocol": "TCP", "nodes": ["web"],
    });
    let expected = json!({ "address": stranger.inbound(), "identity": "spiffe://outrigger.local/node/gone" });
    let backend = json!({
        "endpoints": [expected, known.endpoint()],
        "balance": { "type": "RoundRobin" },
        "healthCheck": { "type": "TCP", "interval": "50ms" },
    });
    mesh.put(Kind::Listener, "echo", listener).await.unwrap();
    mesh.put(Kind::Backend, "echo", backend).await.unwrap();
    let route = json!({ "listeners": ["echo"], "rules": [{ "backendRefs": [{ "name": "echo" }] }] });
    let revision = mesh.put(Kind::TcpRoute, "echo", route).await.unwrap();
    mesh.settled(revision).await.unwrap();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(web.proxy().unwrap().listener("echo").unwrap()).await.unwrap();
        stream.write_all(b"\x00ping").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut echoed = Vec::new();
        stream.read_to_end(&mut echoed).await.unwrap();
        assert_eq!(echoed, b"\x00ping");
    }
    assert_eq!(theirs.connections(), 0);
    // A check by connection sees no more than that; to the one that is there it gets through.
    stands(&web, "echo", "ill", 1).await;
    assert_eq!(standing(&web, "echo", "well"), 1);
}

/// An application and its sidecar end; at their address there is soon another application, which others may call.
#[tokio::test]
async fn an_address_that_belongs_to_another_application_gets_none_of_the_old_ones_requests() {
    let mut shop = Shop::open(DAY).await;
    shop.route_to_both().await;
    let mut load = Load::start(&shop.web, Method::POST, "/");
    load.reached(200).await;
    let place = shop.v1.sidecar.inbound().unwrap();
    shop.v1.sidecar.stop().await;
    shop.v1.app.kill().await;
    let other = shop.mesh.app("other").start().await.unwrap();
    let listener = json!({
        "address": place, "direction": "Inbound", "mtls": { "mode": "Strict" }, "nodes": ["other"],
    });
    let route = json!({ "listeners": ["taken"], "rules": [{ "backendRefs": [{ "name": "app-other" }] }] });
    shop.mesh.delete(Kind::Listener, &shop.v1.sidecar.inbound_name()).await.unwrap();
    shop.mesh.put(Kind::HttpRoute, "taken", route).await.unwrap();
    let revision = shop.mesh.put(Kind::Listener, "taken", listener).await.unwrap();
    shop.mesh.settled(revision).await.unwrap();
    assert_eq!(other.sidecar.proxy().unwrap().listener("taken"), Some(place));
    load.more(400).await;
    assert_eq!(other.app.requests(), 0, "none of what is for another");

    // The list of endpoints follows: whoever wants the other application finds it there.
    let taken = json!({ "address": place, "identity": other.sidecar.identity() });
    shop.mesh.put(Kind::Backend, "other", json!({ "endpoints": [taken] })).await.unwrap();
    let rules = json!([
        { "matches": [{ "path": { "value": "/other" } }], "backendRefs": [{ "name": "other" }] },
        { "backendRefs": [{ "name": "api" }] },
    ]);
    let route = json!({ "listeners": [shop.web.outbound_name()], "rules": rules });
    shop.mesh.put(Kind::HttpRoute, "api", route).await.unwrap();
    let endpoints = json!({ "endpoints": [shop.v2.sidecar.endpoint()] });
    let revision = shop.mesh.put(Kind::Backend, "api", endpoints).await.unwrap();
    shop.mesh.settled(revision).await.unwrap();
    let answer = shop.web.caller().get("api", "/other").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.app()), (200, "other"), "{answer:?}");
    load.more(100).await;
    assert_eq!(other.app.requests(), 1, "what is for it, and nothing else");
    load.end().await.is_whole(700);
}

#[tokio::test]
async fn a_check_goes_through_the_endpoints_sidecar_to_its_application() {
    let mut shop = Shop::open(DAY).await;
    let check = json!({ "type": "HTTP", "path": "/", "interval": "50ms" });
    let endpoints = json!([shop.v1.sidecar.endpoint(), shop.v2.sidecar.endpoint()]);
    let backend = json!({ "endpoints": endpoints, "healthCheck": check });
    shop.mesh.put(Kind::Backend, "api", backend).await.unwrap();
    shop.route_to_both().await;
    stands(&shop.web, "api", "well", 2).await;
    shop.v1.app.kill().await;
    stands(&shop.web, "api", "ill", 1).await;
    for _ in 0..10 {
        let answer = shop.web.caller().call(Method::POST, "api", "/", Bytes::new()).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.app()), (200, "v2"), "{answer:?}");
    }
    shop.v1.restart_app().await.unwrap();
    stands(&shop.web, "api", "well", 2).await;
}

/// While the control API is away its nodes try to reach it ever more rarely; a failed connection has them ask at once.
#[tokio::test]
async fn what_cannot_be_reached_is_asked_of_the_control_api() {
    let mut shop = Shop::open(DAY).await;
    shop.route_to_both().await;
    shop.mesh.kill_control().await;
    shop.v1.sidecar.stop().await;
    let mut load = Load::start(&shop.web, Method::POST, "/");
    load.reached(200).await;
    shop.mesh.restart_control().await.unwrap();
    let endpoints = json!({ "endpoints": [shop.v2.sidecar.endpoint()] });
    let revision = shop.mesh.put(Kind::Backend, "api", endpoints).await.unwrap();
    shop.mesh.settled(revision).await.unwrap();
    load.more(100).await;
    load.end().await.is_whole(300);
    assert_eq!(standing(&shop.web, "api", "well"), 1);
}

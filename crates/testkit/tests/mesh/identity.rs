//! Who may speak to whom, and who is told about it.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Method;
use outrigger_certs::{Authority, Identity, mesh, signing_request};
use outrigger_config::{Kind, SpiffeId};
use outrigger_telemetry::AccessLog;
use outrigger_testkit::mesh::{Caller, Mesh, Sidecar};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsConnector;

use crate::story::{DAY, Shop};

/// An access log whose lines can be waited for.
pub struct Lines(UnboundedReceiver<Value>);

struct ToLines(UnboundedSender<Value>);

impl Write for ToLines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let _ = self.0.send(serde_json::from_slice(line).unwrap());
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub fn log() -> (AccessLog, Lines) {
    let (lines, received) = unbounded_channel();
    (AccessLog::to(Box::new(ToLines(lines))), Lines(received))
}

impl Lines {
    pub async fn next(&mut self) -> Value {
        tokio::time::timeout(Duration::from_secs(30), self.0.recv()).await.unwrap().unwrap()
    }
}

/// An identity that the mesh's authority vouches for, for a caller without a sidecar.
fn vouched_for(mesh: &Mesh, name: &str) -> Identity {
    let read = |file: &str| std::fs::read(mesh.folder().join("control").join(file)).unwrap();
    let authority = Authority::from_pem(&read("root.crt"), &read("root.key"), "outrigger.local").unwrap();
    let (key, request) = signing_request().unwrap();
    let id: SpiffeId = format!("spiffe://outrigger.local/node/{name}").parse().unwrap();
    let issued = authority.sign(request.as_bytes(), &id, &[], DAY, SystemTime::now()).unwrap();
    let bundle = authority.cert_pem();
    Identity::from_pem(issued.chain_pem.as_bytes(), key.expose().as_bytes(), bundle.as_bytes()).unwrap()
}

/// The certificate that a sidecar shows to a new caller.
pub async fn certificate(mesh: &Mesh, sidecar: &Sidecar) -> Vec<u8> {
    let config = mesh::client_config(&vouched_for(mesh, "prober"), sidecar.identity(), &[mesh::HTTP1]);
    let stream = TcpStream::connect(sidecar.inbound().unwrap()).await.unwrap();
    let stream = TlsConnector::from(config).connect(mesh::server_name(), stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// What comes back for opaque bytes, until the connection ends.
async fn opaque(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // A reset says as much as an orderly end.
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

#[tokio::test]
async fn another_identity_than_the_one_expected_is_refused() {
    let shop = Shop::open(DAY).await;
    let wrong = json!({ "address": shop.v1.sidecar.inbound(), "identity": shop.v2.sidecar.identity() });
    shop.mesh.put(Kind::Backend, "api", json!({ "endpoints": [wrong] })).await.unwrap();
    shop.route_to_both().await;
    let answer = shop.web.caller().get("api", "/").await.unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    let status = answer.proxy_status();
    assert!(status.contains("error=tls_certificate_error"), "{status}");
    for identity in [shop.v1.sidecar.identity(), shop.v2.sidecar.identity()] {
        assert!(status.contains(identity.as_str()), "{status}");
    }
    assert_eq!(shop.v1.app.requests() + shop.v2.app.requests(), 0);
}

#[tokio::test]
async fn a_strict_listener_takes_mutual_tls_alone() {
    let (access_log, mut lines) = log();
    let mesh = Mesh::start().await.unwrap();
    let api = mesh.app("api").log(access_log).start().await.unwrap();
    let web = mesh.sidecar("web").start().await.unwrap();
    let inbound = api.sidecar.inbound().unwrap();

    let answer = Caller::new(inbound).get("api", "/").await.unwrap();
    assert_eq!(answer.status, 403);
    assert!(answer.proxy_status().contains("error=http_request_denied"), "{}", answer.proxy_status());
    assert!(answer.proxy_status().contains("mutual TLS"), "{}", answer.proxy_status());
    let line = lines.next().await;
    assert_eq!((&line["status"], &line["reason"]), (&json!(403), &json!("http_request_denied")));
    assert_eq!(opaque(inbound, b"\x00not HTTP\r\n").await, b"");
    assert_eq!(api.app.requests(), 0);

    mesh.put(Kind::Backend, "api", json!({ "endpoints": [api.sidecar.endpoint()] })).await.unwrap();
    let route =
        json!({ "listeners": [web.outbound_name()], "rules": [{ "backendRefs": [{ "name": "api" }] }] });
    let revision = mesh.put(Kind::HttpRoute, "api", route).await.unwrap();
    mesh.settled(revision).await.unwrap();
    let answer = web.caller().get("api", "/").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.app()), (200, "api"));
    let line = lines.next().await;
    assert_eq!(line["status"], 200);
    assert_eq!(line["caller"], web.identity().as_str());
    assert_eq!(line["direction"], "inbound");
}

#[tokio::test]
async fn a_permissive_listener_takes_both() {
    let (access_log, mut lines) = log();
    let mesh = Mesh::start().await.unwrap();
    let api = mesh.app("api").permissive().log(access_log).start().await.unwrap();
    let inbound = api.sidecar.inbound().unwrap();
    let answer = Caller::new(inbound).get("api", "/").await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.app()), (200, "api"));
    assert_eq!(lines.next().await.get("caller"), None);

    let config = mesh::client_config(&vouched_for(&mesh, "prober"), api.sidecar.identity(), &[mesh::HTTP1]);
    let stream = TcpStream::connect(inbound).await.unwrap();
    let mut stream = TlsConnector::from(config).connect(mesh::server_name(), stream).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(lines.next().await["caller"], "spiffe://outrigger.local/node/prober");
}

#[tokio::test]
async fn a_node_reaches_its_own_application_without_leaving_the_process() {
    let (access_log, mut lines) = log();
    let mesh = Mesh::start().await.unwrap();
    let api = mesh.app("api").log(access_log).start().await.unwrap();
    mesh.put(Kind::Backend, "api", json!({ "endpoints": [api.sidecar.endpoint()] })).await.unwrap();
    let (out, into) = (api.sidecar.outbound_name(), api.sidecar.inbound_name());
    let route = json!({ "listeners": [out], "rules": [{ "backendRefs": [{ "name": "api" }] }] });
    mesh.put(Kind::TcpRoute, "api", route.clone()).await.unwrap();
    mesh.put(Kind::HttpRoute, "api", route).await.unwrap();
    // What its own inbound route says holds for its own requests too.
    let set = json!({ "set": [{ "name": "x-inbound", "value": "yes" }] });
    let filter = json!({ "type": "RequestHeaderModifier", "requestHeaderModifier": set });
    let rule = json!({ "backendRefs": [{ "name": "app-api" }], "filters": [filter] });
    let revision =
        mesh.put(Kind::HttpRoute, &into, json!({ "listeners": [into], "rules": [rule] })).await.unwrap();
    mesh.settled(revision).await.unwrap();

    let mut caller = api.sidecar.caller();
    let answer = caller.call(Method::POST, "api", "/x", Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.app()), (200, "api"), "{}", answer.proxy_status());
    let seen: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(seen["body"]["text"], "hello");
    assert!(seen["headers"].as_array().unwrap().contains(&json!(["x-inbound", "yes"])), "{seen}");

    let mut logged = [lines.next().await, lines.next().await];
    logged.sort_by_key(|line| line["direction"].as_str().unwrap().to_owned());
    assert_eq!((&logged[0]["direction"], &logged[1]["direction"]), (&json!("inbound"), &json!("outbound")));
    assert_eq!(logged[0]["caller"], api.sidecar.identity().as_str());
    let metrics = api.sidecar.proxy().unwrap().metrics();
    let accepted = metrics.lines().find(|line| {
        line.starts_with("outrigger_connections_total") && line.contains(&format!("\"{into}\""))
    });
    assert!(accepted.is_none_or(|line| line.ends_with(" 0")), "no connection was accepted: {accepted:?}");
}

#[tokio::test]
async fn what_sidecars_say_to_each_other_reaches_no_application() {
    let shop = Shop::open(DAY).await;
    shop.route(json!({ "backendRefs": [{ "name": "v1" }] })).await;
    shop.v1.app.kill().await;
    let answer =
        shop.web.caller().call(Method::POST, "api", "/", Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(answer.status, 503);
    let status = answer.proxy_status();
    assert!(status.contains("error=connection_refused"), "{status}");
    assert!(status.contains(&shop.v1.app.address().to_string()), "it says what was not there: {status}");
    assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("outrigger")), "{answer:?}");

    // Where there is another, it is taken at once, whatever the method and without a policy.
    shop.route_to_both().await;
    for _ in 0..10 {
        let body = Bytes::from_static(b"hello");
        let answer = shop.web.caller().call(Method::POST, "api", "/", body).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.app()), (200, "v2"), "{answer:?}");
    }
}

#[tokio::test]
async fn an_application_cannot_say_that_it_was_not_reached() {
    let mesh = Mesh::start().await.unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let application = socket.local_addr().unwrap();
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            let mut request = vec![0; 64 * 1024];
            while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                count.fetch_add(1, Ordering::Relaxed);
                let answer = "HTTP/1.1 503 Busy\r\noutrigger-unreached: forged\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    let one = mesh.sidecar("one").before(application).start().await.unwrap();
    let other = mesh.sidecar("other").before(application).start().await.unwrap();
    let web = mesh.sidecar("web").start().await.unwrap();
    let endpoints = json!([one.endpoint(), other.endpoint()]);
    mesh.put(Kind::Backend, "api", json!({ "endpoints": endpoints })).await.unwrap();
    let route =
        json!({ "listeners": [web.outbound_name()], "rules": [{ "backendRefs": [{ "name": "api" }] }] });
    let revision = mesh.put(Kind::HttpRoute, "api", route).await.unwrap();
    mesh.settled(revision).await.unwrap();
    let answer = web.caller().call(Method::POST, "api", "/", Bytes::new()).await.unwrap();
    assert_eq!((answer.status.as_u16(), served.load(Ordering::Relaxed)), (503, 1), "{answer:?}");
    assert!(!answer.headers.contains_key("outrigger-unreached"), "{answer:?}");
}

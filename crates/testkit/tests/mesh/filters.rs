//! Filters and sessions where they stand in a mesh: at the caller's sidecar, and at the callee's.

use bytes::Bytes;
use http::Method;
use outrigger_config::Kind;
use outrigger_testkit::mesh::Sidecar;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::story::{DAY, Shop};

/// How many requests a sidecar has failed on purpose.
fn faults(sidecar: &Sidecar) -> u64 {
    let metrics = sidecar.proxy().unwrap().metrics();
    let lines = metrics.lines().filter(|line| {
        line.starts_with("outrigger_requests_total") && line.contains("reason=\"fault_injected\"")
    });
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// The callee's sidecar answers in place of its application. That is an answer, and nothing to try elsewhere.
#[tokio::test]
async fn a_fault_at_the_callees_sidecar_is_the_callers_answer() {
    let shop = Shop::open(DAY).await;
    shop.route_to_both().await;
    let mut revision = 0;
    for member in [&shop.v1, &shop.v2] {
        let (into, backend) = (member.sidecar.inbound_name(), format!("app-{}", member.sidecar.name()));
        let fault = json!({ "type": "Fault", "fault": { "abort": { "status": 503 } } });
        let rule = json!({ "backendRefs": [{ "name": backend }], "filters": [fault] });
        let route = json!({ "listeners": [into], "rules": [rule] });
        revision = shop.mesh.put(Kind::HttpRoute, &into, route).await.unwrap();
    }
    shop.mesh.settled(revision).await.unwrap();
    for _ in 0..8 {
        let answer = shop.web.caller().call(Method::GET, "api", "/", Bytes::new()).await.unwrap();
        assert_eq!(answer.status, 503);
        assert!(answer.proxy_status().contains("error=fault_injected"), "{}", answer.proxy_status());
    }
    assert_eq!(faults(&shop.v1.sidecar) + faults(&shop.v2.sidecar), 8);
    assert_eq!((shop.v1.app.requests(), shop.v2.app.requests()), (0, 0));
}

#[tokio::test]
async fn http_route_session_persistence_over_the_mesh() {
    let shop = Shop::open(DAY).await;
    let session = json!({ "sessionName": "s" });
    shop.route(json!({ "backendRefs": [{ "name": "api" }], "sessionPersistence": session })).await;
    for _ in 0..4 {
        let first = ask(&shop.web, "").await;
        let cookie = field(&first, "set-cookie").unwrap().split(';').next().unwrap();
        for _ in 0..8 {
            let again = ask(&shop.web, &format!("cookie: {cookie}\r\n")).await;
            assert_eq!(field(&again, "x-app"), field(&first, "x-app"), "{again}");
            assert_eq!(field(&again, "set-cookie"), None);
        }
    }
}

/// The head of the answer to a request with these fields.
async fn ask(caller: &Sidecar, fields: &str) -> String {
    let mut stream = TcpStream::connect(caller.outbound()).await.unwrap();
    let request = format!("GET /status/200 HTTP/1.1\r\nhost: api\r\nconnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// What two sidecars have between them is theirs: the application hears of what its caller speaks.
#[tokio::test]
async fn mutual_tls_is_not_the_callers_https() {
    let shop = Shop::open(DAY).await;
    shop.route_to_both().await;
    let mut revision = 0;
    for member in [&shop.v1, &shop.v2] {
        let (into, node) = (member.sidecar.inbound_name(), member.sidecar.name());
        let address = member.sidecar.endpoint()["address"].clone();
        let http = json!({ "forwarded": { "xForwarded": true, "forwarded": true } });
        let listener = json!({ "address": address, "direction": "Inbound", "nodes": [node], "http": http });
        revision = shop.mesh.put(Kind::Listener, &into, listener).await.unwrap();
    }
    shop.mesh.settled(revision).await.unwrap();
    let answer = shop.web.caller().call(Method::GET, "api", "/", Bytes::new()).await.unwrap();
    let seen: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let headers = seen["headers"].to_string();
    assert!(headers.contains(r#"["x-forwarded-proto","http"]"#), "{seen}");
    assert!(headers.contains("proto=http;"), "{seen}");
}

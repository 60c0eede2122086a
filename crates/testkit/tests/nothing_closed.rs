//! WebSockets and sessions of TCP over many changes of the configuration: none is closed, each still answers, and what
//! the changes took of memory is given back. A test of its own, for it measures the memory of its process.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::net::SocketAddr;

use outrigger_config::{Kind, Resource};
use outrigger_testkit::app::TcpApp;
use outrigger_testkit::mesh::{Mesh, Sidecar};
use rustix::process::{Resource as Limited, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How many descriptors one session has in this process, which is its caller, both sidecars and the application.
const DESCRIPTORS: u64 = 6;

/// How many backends there are that nobody uses.
const BALLAST: usize = 200;
/// How much more memory a change may leave behind, in KiB: the control API's store and the allocator have theirs, a table
/// that is not let go takes many times that.
const PER_CHANGE: u64 = 8;

struct Plan {
    web_sockets: usize,
    tcp: usize,
    changes: u32,
}

/// Lets the process have so many descriptors; answers whether it may.
fn descriptors(needed: u64) -> bool {
    let now = getrlimit(Limited::Nofile);
    if now.current.is_none_or(|most| most >= needed) {
        return true;
    }
    let maximum = now.maximum.map(|most| most.max(needed));
    setrlimit(Limited::Nofile, Rlimit { current: Some(needed), maximum }).is_ok()
}

/// The memory of this process that is in use, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// A mesh of a caller, an application of HTTP, and one of TCP.
struct Stage {
    _members: (outrigger_testkit::mesh::Member, TcpApp, Sidecar),
    endpoints: (Value, Value),
    web: Sidecar,
    mesh: Mesh,
}

impl Stage {
    async fn open() -> Self {
        let mesh = Mesh::start().await.unwrap();
        let api = mesh.app("api").start().await.unwrap();
        let echo = TcpApp::echo().await.unwrap();
        let callee = mesh.sidecar("echo").before(echo.address()).start().await.unwrap();
        let web = mesh.sidecar("web").start().await.unwrap();
        let address = SocketAddr::new(web.outbound().ip(), 0);
        let listener =
            json!({ "address": address, "direction": "Outbound", "protocol": "TCP", "nodes": ["web"] });
        mesh.put(Kind::Listener, "tcp", listener).await.unwrap();
        let endpoints = (api.sidecar.endpoint(), callee.endpoint());
        let stage = Self { _members: (api, echo, callee), endpoints, web, mesh };
        stage.furnish().await;
        stage.change(0).await;
        stage
    }

    /// Routes and backends that nobody uses, so that a table which is not let go is seen.
    async fn furnish(&self) {
        let (mut all, mut rules) = (Vec::new(), Vec::new());
        for nth in 0..BALLAST {
            let name = format!("unused-{nth}");
            let path = json!({ "path": { "type": "PathPrefix", "value": format!("/unused/{nth}") } });
            rules.push(json!({ "matches": [path], "backendRefs": [{ "name": name }] }));
            let spec = json!({ "endpoints": [self.endpoints.0] });
            all.push(Resource::parse(Kind::Backend, &name, spec).unwrap());
        }
        // A route has 64 rules at most.
        for (nth, rules) in rules.chunks(50).enumerate() {
            let route = json!({ "listeners": [self.web.outbound_name()], "rules": rules });
            all.push(Resource::parse(Kind::HttpRoute, &format!("unused-{nth}"), route).unwrap());
        }
        self.mesh.put_all(all).await.unwrap();
    }

    /// A configuration in which everything that the sessions went by is another: routes, backends and their policy.
    async fn change(&self, nth: u32) {
        let (api, echo) = &self.endpoints;
        let weights = |endpoint: &Value| {
            let mut endpoint = endpoint.clone();
            endpoint["weight"] = json!(1 + nth % 100);
            json!({ "endpoints": [endpoint] })
        };
        let timeouts = json!({ "request": format!("{}ms", 60_000 + nth) });
        let set = json!([{ "name": "x-change", "value": nth.to_string() }]);
        let filter = json!({ "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": set } });
        let rule = json!({ "backendRefs": [{ "name": "api" }], "timeouts": timeouts, "filters": [filter] });
        let http = json!({ "listeners": [self.web.outbound_name()], "rules": [rule] });
        let name = format!("rule-{nth}");
        let tcp =
            json!({ "listeners": ["tcp"], "rules": [{ "name": name, "backendRefs": [{ "name": "echo" }] }] });
        self.mesh.put(Kind::Backend, "api", weights(api)).await.unwrap();
        self.mesh.put(Kind::Backend, "echo", weights(echo)).await.unwrap();
        self.mesh.put(Kind::HttpRoute, "api", http).await.unwrap();
        let revision = self.mesh.put(Kind::TcpRoute, "tcp", tcp).await.unwrap();
        self.mesh.settled(revision).await.unwrap();
    }

    async fn web_socket(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.web.outbound()).await.unwrap();
        let head = "GET /upgrade HTTP/1.1\r\nhost: api\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        stream
    }
}

/// That every session is still there: each sends back what it is sent.
async fn all_echo(sessions: &mut [TcpStream]) {
    for (nth, session) in sessions.iter_mut().enumerate() {
        let sent = (nth as u32).to_be_bytes();
        session.write_all(&sent).await.unwrap();
        let mut came = [0; 4];
        session.read_exact(&mut came).await.unwrap_or_else(|error| panic!("session {nth}: {error}"));
        assert_eq!(came, sent);
    }
}

async fn keep(Plan { web_sockets, tcp, changes }: Plan) {
    if !descriptors(DESCRIPTORS * (web_sockets + tcp) as u64 + 500) {
        println!(
            "skipped: needs {DESCRIPTORS} descriptors for each session, and the right to raise their limit"
        );
        return;
    }
    let stage = Stage::open().await;
    let listener = stage.web.proxy().unwrap().listener("tcp").unwrap();
    let mut sessions = Vec::new();
    for _ in 0..web_sockets {
        sessions.push(stage.web_socket().await);
    }
    for _ in 0..tcp {
        sessions.push(TcpStream::connect(listener).await.unwrap());
    }
    all_echo(&mut sessions).await;
    // What a process allocates once, and never gives back, it has after the first changes.
    for nth in 0..changes / 4 {
        stage.change(1 + nth).await;
    }
    let before = resident();
    for nth in changes / 4..changes {
        stage.change(1 + nth).await;
    }
    let after = resident();
    all_echo(&mut sessions).await;
    println!("{} sessions, {changes} changes: {before} KiB before, {after} KiB after", sessions.len());
    let (grown, most) = (after.saturating_sub(before), u64::from(changes) * PER_CHANGE);
    assert!(grown <= most, "{grown} KiB more after {changes} changes, and not {most}");
}

#[tokio::test]
async fn no_session_is_closed_by_changes_of_the_configuration() {
    keep(Plan { web_sockets: 1_000, tcp: 200, changes: 200 }).await;
}

/// `cargo test --release -p outrigger-testkit --test nothing_closed -- --ignored --nocapture`
#[tokio::test]
#[ignore = "takes minutes: 10,000 WebSockets, 1,000 sessions of TCP, 1,000 changes; 66,500 descriptors"]
async fn no_session_of_ten_thousand_is_closed_by_a_thousand_changes() {
    keep(Plan { web_sockets: 10_000, tcp: 1_000, changes: 1_000 }).await;
}

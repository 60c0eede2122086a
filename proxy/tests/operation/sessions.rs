//! WebSockets and sessions of TCP over many changes of the configuration: none is closed, each still answers, and what
//! the changes took of the sidecars' memory is given back.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Request};
use outrigger_config::{Kind, Resource};
use outrigger_testkit::app::TcpApp;
use outrigger_testkit::mesh::{Enrolled, Mesh};
use rustix::process::{Resource as Limited, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::binary::Binary;
use crate::desk::eventually;

/// How many WebSockets share a connection of HTTP/2.
const STREAMS: usize = 100;
/// How many backends there are that nobody uses, so that a table which is not let go is seen.
const BALLAST: usize = 200;
/// How much more memory all sidecars together may have after the changes, in KiB, and how much more for each: a table that
/// is not let go takes many times that.
const ONCE: u64 = 2048;
const PER_CHANGE: u64 = 8;

struct Plan {
    /// Half of them over HTTP/1.1, half over HTTP/2.
    web_sockets: usize,
    tcp: usize,
    changes: u32,
}

impl Plan {
    /// How many descriptors it takes in each of the two processes that need most: in this one, which is caller and
    /// applications, and in the callers' sidecar.
    const fn descriptors(&self) -> u64 {
        (self.web_sockets / 2 + self.web_sockets + 2 * self.tcp + 1000) as u64
    }
}

/// Lets the process, and those that it starts, have so many descriptors; answers whether it may.
fn descriptors(needed: u64) -> bool {
    let now = getrlimit(Limited::Nofile);
    if now.current.is_none_or(|most| most >= needed) {
        return true;
    }
    let maximum = now.maximum.map(|most| most.max(needed));
    setrlimit(Limited::Nofile, Rlimit { current: Some(needed), maximum }).is_ok()
}

/// An application that sends back what comes on a WebSocket, byte by byte.
async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(echo(stream));
    }
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let head = head(&mut stream).await?;
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let key = lines.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")).unwrap().1;
    let accept = outrigger_http::websocket::accept(&HeaderValue::from_str(key).unwrap());
    let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
    let accept = format!("sec-websocket-accept: {}\r\n\r\n", accept.to_str().unwrap());
    stream.write_all(format!("{answer}{accept}").as_bytes()).await?;
    let mut bytes = [0; 64];
    loop {
        match stream.read(&mut bytes).await? {
            0 => return Ok(()),
            read => stream.write_all(&bytes[..read]).await?,
        }
    }
}

/// What comes before the first empty line.
async fn head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head).unwrap())
}

/// A mesh of a caller, two instances of an application of WebSockets, and one of TCP; each sidecar the real command.
struct Stage {
    web: Enrolled,
    /// The caller's first.
    sidecars: Vec<Binary>,
    /// Of the WebSockets, and of TCP.
    endpoints: (Vec<Value>, Value),
    _tcp: TcpApp,
    mesh: Mesh,
}

impl Stage {
    async fn open() -> Self {
        let mesh = Mesh::start().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = listener.local_addr().unwrap();
        tokio::spawn(serve(listener));
        let tcp = TcpApp::echo().await.unwrap();
        let web = mesh.sidecar("web").enrol().await.unwrap();
        let callees = [
            mesh.sidecar("api-1").before(app).enrol().await.unwrap(),
            mesh.sidecar("api-2").before(app).enrol().await.unwrap(),
            mesh.sidecar("echo").before(tcp.address()).enrol().await.unwrap(),
        ];
        let listener = json!({
            "address": SocketAddr::new(web.outbound().ip(), 0),
            "direction": "Outbound",
            "protocol": "TCP",
            "nodes": ["web"],
        });
        mesh.put(Kind::Listener, "tcp", listener).await.unwrap();
        let mut sidecars = Vec::new();
        for node in std::iter::once(&web).chain(&callees) {
            let arguments = node.arguments();
            let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            arguments.extend(["--access-log", "off"]);
            let sidecar = Binary::run(&arguments);
            sidecar.address(&format!("listener {}", node.outbound_name())).await;
            sidecars.push(sidecar);
        }
        let [one, two, callee] = callees;
        let endpoints = (vec![one.endpoint(), two.endpoint()], callee.endpoint());
        let stage = Self { web, sidecars, endpoints, _tcp: tcp, mesh };
        stage.furnish().await;
        stage.change(0).await;
        stage
    }

    /// Routes and backends that nobody uses.
    async fn furnish(&self) {
        let (mut all, mut rules) = (Vec::new(), Vec::new());
        for nth in 0..BALLAST {
            let name = format!("unused-{nth}");
            let path = json!({ "path": { "type": "PathPrefix", "value": format!("/unused/{nth}") } });
            rules.push(json!({ "matches": [path], "backendRefs": [{ "name": name }] }));
            let spec = json!({ "endpoints": self.endpoints.0 });
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
        let weighted = |endpoints: &[Value]| {
            let mut endpoints = endpoints.to_vec();
            for endpoint in &mut endpoints {
                endpoint["weight"] = json!(1 + nth % 100);
            }
            json!({ "endpoints": endpoints })
        };
        let timeouts = json!({ "request": format!("{}ms", 60_000 + nth) });
        let set = json!([{ "name": "x-change", "value": nth.to_string() }]);
        let filter = json!({ "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": set } });
        let rule = json!({ "backendRefs": [{ "name": "api" }], "timeouts": timeouts, "filters": [filter] });
        let http = json!({ "listeners": [self.web.outbound_name()], "rules": [rule] });
        let name = format!("rule-{nth}");
        let tcp =
            json!({ "listeners": ["tcp"], "rules": [{ "name": name, "backendRefs": [{ "name": "echo" }] }] });
        let (api, echo) = &self.endpoints;
        let all = [
            (Kind::Backend, "api", weighted(api)),
            (Kind::Backend, "echo", weighted(std::slice::from_ref(echo))),
            (Kind::HttpRoute, "api", http),
            (Kind::TcpRoute, "tcp", tcp),
        ];
        let all = all.map(|(kind, name, spec)| Resource::parse(kind, name, spec).unwrap());
        let revision = self.mesh.put_all(all).await.unwrap();
        self.mesh.settled(revision).await.unwrap();
    }

    async fn sessions(&self, plan: &Plan) -> Vec<Session> {
        let (http, tcp) = (self.web.outbound(), self.sidecars[0].address("listener tcp").await);
        let mut sessions = Vec::new();
        for _ in 0..plan.web_sockets / 2 {
            sessions.push(Session::over_http1(http).await);
        }
        for _ in 0..plan.web_sockets / 2 / STREAMS {
            let caller = caller(http).await;
            for _ in 0..STREAMS {
                sessions.push(Session::over_http2(caller.clone()).await);
            }
        }
        for _ in 0..plan.tcp {
            sessions.push(Session::Connection(TcpStream::connect(tcp).await.unwrap()));
        }
        sessions
    }

    /// The memory that the sidecars have in use, in KiB.
    fn resident(&self) -> u64 {
        self.sidecars.iter().map(Binary::resident).sum()
    }
}

/// A caller of HTTP/2 that knows that extended CONNECT is taken (RFC 8441).
async fn caller(at: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(at).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let offered = || async { sender.is_extended_connect_protocol_enabled().then_some(()) };
    eventually("extended CONNECT is offered", offered).await;
    sender
}

enum Session {
    Connection(TcpStream),
    Stream(SendStream<Bytes>, RecvStream),
}

impl Session {
    async fn over_http1(at: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let request = "GET / HTTP/1.1\r\nhost: api\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = head(&mut stream).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self::Connection(stream)
    }

    async fn over_http2(caller: SendRequest<Bytes>) -> Self {
        let mut request = Request::builder().method("CONNECT").uri("http://api/").body(()).unwrap();
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        request.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("13"));
        let (answer, up) = caller.ready().await.unwrap().send_request(request, false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200, "{answer:?}");
        Self::Stream(up, answer.into_body())
    }

    /// Sends something, and answers what comes back.
    async fn exchange(&mut self, sent: [u8; 4]) -> Result<Vec<u8>, String> {
        let mut came = Vec::new();
        match self {
            Self::Connection(stream) => {
                stream.write_all(&sent).await.map_err(|error| error.to_string())?;
                came.resize(sent.len(), 0);
                stream.read_exact(&mut came).await.map_err(|error| error.to_string())?;
            }
            Self::Stream(up, down) => {
                let data = Bytes::copy_from_slice(&sent);
                up.send_data(data, false).map_err(|error| error.to_string())?;
                while came.len() < sent.len() {
                    let data = down.data().await.ok_or("its end")?.map_err(|error| error.to_string())?;
                    came.extend_from_slice(&data);
                    down.flow_control().release_capacity(data.len()).map_err(|error| error.to_string())?;
                }
            }
        }
        Ok(came)
    }
}

/// That every session is still there: each sends back what it is sent.
async fn all_echo(sessions: &mut [Session]) {
    for (nth, session) in sessions.iter_mut().enumerate() {
        let sent = (nth as u32).to_be_bytes();
        assert_eq!(session.exchange(sent).await, Ok(sent.to_vec()), "session {nth}");
    }
}

async fn keep(plan: Plan) {
    if !descriptors(plan.descriptors()) {
        println!("skipped: needs {} descriptors, or the right to raise their limit", plan.descriptors());
        return;
    }
    let stage = Stage::open().await;
    let mut sessions = stage.sessions(&plan).await;
    all_echo(&mut sessions).await;
    // What a process allocates once, and never gives back, it has after the first changes.
    for nth in 0..plan.changes / 4 {
        stage.change(1 + nth).await;
    }
    let before = stage.resident();
    for nth in plan.changes / 4..plan.changes {
        stage.change(1 + nth).await;
    }
    let after = stage.resident();
    all_echo(&mut sessions).await;
    let changes = plan.changes;
    println!("{} sessions, {changes} changes: {before} KiB before, {after} KiB after", sessions.len());
    let (grown, most) = (after.saturating_sub(before), ONCE + u64::from(changes) * PER_CHANGE);
    assert!(grown <= most, "{grown} KiB more after {changes} changes, and not {most}");
}

#[tokio::test]
async fn no_session_is_closed_by_changes_of_the_configuration() {
    keep(Plan { web_sockets: 1_000, tcp: 200, changes: 200 }).await;
}

/// `cargo test -p outrigger-proxy --test operation -- --ignored --nocapture sessions`
#[tokio::test]
#[ignore = "takes minutes: 10,000 WebSockets, 1,000 sessions of TCP, 1,000 changes; 18,000 descriptors"]
async fn no_session_of_ten_thousand_is_closed_by_a_thousand_changes() {
    keep(Plan { web_sockets: 10_000, tcp: 1_000, changes: 1_000 }).await;
}

//! What the tests of a whole control API share: one that runs, a REST client, and nodes as the wire sees them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_certs::rustls::ClientConfig;
use outrigger_certs::{Identity, ServerName, control, signing_request};
use outrigger_config::{Kind, Name, Resource, SpiffeId};
use outrigger_control::lines::{Lines, encode};
use outrigger_control::message::{
    FromControl, FromNode, Refusal, SIGN_PATH, STREAM_PATH, SignRequest, SignResponse,
};
use outrigger_control_api::{ControlApi, Options, start};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

pub const HOUR: Duration = Duration::from_hours(1);

/// A control API on free ports, with its own data directory.
pub struct Mesh {
    pub control: ControlApi,
    pub data: tempfile::TempDir,
}

pub fn options(data: &std::path::Path) -> Options {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Options { listen: any, stream: any, ..Options::new(data) }
}

pub async fn mesh() -> Mesh {
    let data = tempfile::tempdir().unwrap();
    let control = start(options(data.path())).await.unwrap();
    Mesh { control, data }
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn resource(kind: Kind, name: &str, spec: Value) -> Resource {
    Resource::parse(kind, name, spec).unwrap()
}

pub fn listener(name: &str, nodes: &[&str]) -> Resource {
    resource(Kind::Listener, name, json!({ "address": "127.0.0.1:8080", "nodes": nodes }))
}

pub fn route(name: &str, listener: &str, backend: &str) -> Resource {
    let rules = json!([{ "backendRefs": [{ "name": backend }] }]);
    resource(Kind::HttpRoute, name, json!({ "listeners": [listener], "rules": rules }))
}

pub fn backend(name: &str, port: u16) -> Resource {
    resource(Kind::Backend, name, json!({ "endpoints": [{ "address": format!("127.0.0.1:{port}") }] }))
}

// --- REST ---------------------------------------------------------------------------------------------------------

/// What REST answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

/// One request to REST.
pub async fn rest(
    to: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let socket = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", to.to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    Answer { status, headers, body }
}

pub async fn get(to: SocketAddr, path: &str) -> Answer {
    rest(to, Method::GET, path, &[], Bytes::new()).await
}

pub async fn put(to: SocketAddr, path: &str, body: &Value) -> Answer {
    rest(to, Method::PUT, path, &[], body.to_string()).await
}

// --- nodes --------------------------------------------------------------------------------------------------------

async fn connect(
    to: SocketAddr,
    tls: Arc<ClientConfig>,
) -> hyper::client::conn::http2::SendRequest<
    http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>,
> {
    let socket = TcpStream::connect(to).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let host = ServerName::try_from("localhost").unwrap();
    let tls = TlsConnector::from(tls).connect(host, socket).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Asks for a signature. Answers the status and the body.
pub async fn sign(
    to: SocketAddr,
    tls: Arc<ClientConfig>,
    token: Option<&str>,
    node: &str,
    csr: &str,
) -> (StatusCode, Value) {
    let mut sender = connect(to, tls).await;
    let asked = serde_json::to_vec(&SignRequest { node: name(node), csr: csr.into() }).unwrap();
    let mut request = Request::post(format!("https://localhost{SIGN_PATH}"));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::from(asked)).boxed()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

/// The root's fingerprint, as a token names it.
pub fn fingerprint(token: &str) -> [u8; 32] {
    let payload = token.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(
        &base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload).unwrap(),
    )
    .unwrap();
    let hex = claims["ca"].as_str().unwrap();
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap();
    }
    bytes
}

/// A node's first certificate, for a token.
pub async fn enroll(control: &ControlApi, node: &str, id: Option<&SpiffeId>) -> Identity {
    let token = control.token(&name(node), id, HOUR).unwrap();
    let (key, csr) = signing_request().unwrap();
    let pinned = control::pinned(fingerprint(&token));
    let (status, body) = sign(control.stream(), pinned, Some(&token), node, &csr).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let signed: SignResponse = serde_json::from_value(body).unwrap();
    Identity::from_pem(signed.chain.as_bytes(), key.expose().as_bytes(), signed.bundle.as_bytes()).unwrap()
}

/// A stream, from the node's side.
pub struct Link {
    pub say: Sender<Bytes>,
    body: Incoming,
    lines: Lines,
}

pub fn hello(node: &str) -> FromNode {
    let (store, revision, have) = (None, 0, BTreeMap::new());
    FromNode::Hello { node: name(node), version: "1.2.3".into(), store, revision, have }
}

/// Opens a stream; answers the status where it was refused.
pub async fn open(to: SocketAddr, tls: Arc<ClientConfig>, hello: &FromNode) -> Result<Link, StatusCode> {
    let mut sender = connect(to, tls).await;
    let (mut say, body) = Channel::new(4);
    say.send_data(encode(hello).unwrap()).await.unwrap();
    let request = Request::post(format!("https://localhost{STREAM_PATH}")).body(body.boxed()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    match response.status() {
        StatusCode::OK => Ok(Link { say, body: response.into_body(), lines: Lines::default() }),
        status => Err(status),
    }
}

/// A node that has been enrolled, and its stream.
pub async fn node(control: &ControlApi, node: &str) -> Link {
    let identity = enroll(control, node, None).await;
    open(control.stream(), control::client_config(&identity), &hello(node)).await.unwrap()
}

impl Link {
    /// The next line but for heartbeats; `None` where the stream has ended.
    pub async fn next(&mut self) -> Option<FromControl> {
        loop {
            match self.lines.take().unwrap() {
                Some(FromControl::Heartbeat {}) => continue,
                Some(line) => return Some(line),
                None => {}
            }
            let frame = self.body.frame().await?.ok()?;
            self.lines.push(&frame.into_data().ok()?);
        }
    }

    /// Everything until the next commit, as `put HTTPRoute/shop` and `delete HTTPRoute/shop`, and its revision.
    /// A welcome is passed over.
    pub async fn change(&mut self) -> (Vec<String>, u64) {
        let mut lines = Vec::new();
        loop {
            match self.next().await.expect("the stream has ended") {
                FromControl::Put { kind, name, .. } => lines.push(format!("put {kind}/{name}")),
                FromControl::Delete { kind, name, .. } => lines.push(format!("delete {kind}/{name}")),
                FromControl::Commit { revision } => return (lines, revision),
                FromControl::Welcome { .. } | FromControl::Heartbeat {} => {}
            }
        }
    }

    pub async fn applied(&mut self, revision: u64, refused: Vec<Refusal>) {
        self.say.send_data(encode(&FromNode::Applied { revision, refused }).unwrap()).await.unwrap();
    }
}

//! Calls of gRPC between sidecars: tried again after a status, and endpoints asked by the protocol's own check.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_config::Kind;
use outrigger_testkit::mesh::{Mesh, Sidecar};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

const UNAVAILABLE: usize = 14;
const SERVING: usize = 1;
const NOT_SERVING: usize = 2;

/// A server of gRPC: what it answers, and how many calls it got.
#[derive(Debug, Default)]
struct Server {
    /// The status of each call.
    status: AtomicUsize,
    /// What it says of its health.
    health: AtomicUsize,
    calls: AtomicUsize,
}

impl Server {
    async fn start() -> (SocketAddr, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Self { health: AtomicUsize::new(SERVING), ..Self::default() });
        let serves = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serves = serves.clone();
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        serves.answer(&request, respond);
                    }
                });
            }
        });
        (address, server)
    }

    fn answer(&self, request: &Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
        let head = Response::builder().header("content-type", "application/grpc");
        if request.uri().path() == "/grpc.health.v1.Health/Check" {
            let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
            let message = [0, 0, 0, 0, 2, 8, self.health.load(SeqCst) as u8];
            send.send_data(Bytes::copy_from_slice(&message), false).unwrap();
            let status = ("grpc-status".parse().unwrap(), HeaderValue::from_static("0"));
            send.send_trailers(HeaderMap::from_iter([status])).unwrap();
            return;
        }
        self.calls.fetch_add(1, SeqCst);
        // Nothing but trailers.
        let status = self.status.load(SeqCst);
        respond.send_response(head.header("grpc-status", status).body(()).unwrap(), true).unwrap();
    }
}

/// A caller, and two instances of a service, asked in turn.
struct Service {
    mesh: Mesh,
    web: Sidecar,
    sidecars: [Sidecar; 2],
    servers: [Arc<Server>; 2],
}

impl Service {
    async fn open(backend: Value, rule: Value) -> Self {
        let mesh = Mesh::start().await.unwrap();
        let ((at, one), (at_other, other)) = (Server::start().await, Server::start().await);
        let sidecars = [
            mesh.sidecar("one").before(at).start().await.unwrap(),
            mesh.sidecar("other").before(at_other).start().await.unwrap(),
        ];
        let web = mesh.sidecar("web").start().await.unwrap();
        let service = Self { mesh, web, sidecars, servers: [one, other] };
        service.put(backend).await;
        let mut all = json!({ "backendRefs": [{ "name": "calls" }] });
        all.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        let route = json!({ "listeners": [service.web.outbound_name()], "rules": [all] });
        let revision = service.mesh.put(Kind::GrpcRoute, "calls", route).await.unwrap();
        service.mesh.settled(revision).await.unwrap();
        service
    }

    /// The backend, with more fields.
    async fn put(&self, fields: Value) {
        let mut backend = json!({
            "endpoints": self.sidecars.each_ref().map(Sidecar::endpoint),
            "balance": { "type": "RoundRobin" },
        });
        backend.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.mesh.put(Kind::Backend, "calls", backend).await.unwrap();
    }

    async fn caller(&self) -> SendRequest<Empty<Bytes>> {
        let stream = TcpStream::connect(self.web.outbound()).await.unwrap();
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    fn calls(&self) -> [usize; 2] {
        self.servers.each_ref().map(|server| server.calls.load(SeqCst))
    }

    /// Waits until so many endpoints stand so, as the caller's sidecar sees it.
    async fn stands(&self, state: &str, count: usize) {
        let sample = format!("outrigger_backend_endpoints{{backend=\"calls\",state=\"{state}\"}} {count}\n");
        let until = Instant::now() + Duration::from_secs(20);
        while !self.web.proxy().unwrap().metrics().contains(&sample) {
            assert!(Instant::now() < until, "not {sample}: {}", self.web.proxy().unwrap().metrics());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The status of one call.
async fn call(caller: &mut SendRequest<Empty<Bytes>>) -> String {
    let request = Request::post("http://calls/shop.Cart/Add").header("content-type", "application/grpc");
    let response = caller.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
    let status = response.headers()["grpc-status"].to_str().unwrap().to_owned();
    response.into_body().collect().await.unwrap();
    status
}

#[tokio::test]
async fn a_call_that_one_instance_answers_with_a_listed_status_is_sent_to_the_other() {
    let retry = json!({ "retry": { "attempts": 1, "grpcStatuses": ["UNAVAILABLE"], "backoff": "1ms" } });
    let service = Service::open(json!({}), retry).await;
    service.servers[0].status.store(UNAVAILABLE, SeqCst);
    let mut caller = service.caller().await;
    for turn in 0..10 {
        assert_eq!(call(&mut caller).await, "0", "call {turn}");
    }
    let [refused, answered] = service.calls();
    assert_eq!(answered, 10, "each is answered once");
    assert!(refused > 0, "it was asked");
}

#[tokio::test]
async fn a_call_with_another_status_is_not_sent_again() {
    let retry = json!({ "retry": { "attempts": 1, "grpcStatuses": ["ABORTED"], "backoff": "1ms" } });
    let service = Service::open(json!({}), retry).await;
    service.servers[0].status.store(UNAVAILABLE, SeqCst);
    let mut caller = service.caller().await;
    let mut failed = 0;
    for _ in 0..10 {
        failed += usize::from(call(&mut caller).await == "14");
    }
    assert_eq!((failed, service.calls()), (5, [5, 5]));
}

#[tokio::test]
async fn a_check_of_grpc_reaches_the_application_behind_its_sidecar() {
    let check = json!({ "healthCheck": { "type": "GRPC", "interval": "50ms" } });
    let service = Service::open(check, json!({})).await;
    service.stands("well", 2).await;
    service.servers[0].health.store(NOT_SERVING, SeqCst);
    service.stands("ill", 1).await;
    let mut caller = service.caller().await;
    for _ in 0..10 {
        assert_eq!(call(&mut caller).await, "0");
    }
    assert_eq!(service.calls(), [0, 10]);
    service.servers[0].health.store(SERVING, SeqCst);
    service.stands("well", 2).await;
}

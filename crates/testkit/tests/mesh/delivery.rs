//! What the callee's sidecar says of whether a request has reached its application, and what it does not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_config::Kind;
use outrigger_testkit::app::App;
use outrigger_testkit::mesh::{Mesh, Sidecar};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Count = Arc<AtomicUsize>;

/// A caller `web`, and two instances of `api`, asked in turn: before an application that is given, and before one that is well.
struct Pair {
    mesh: Mesh,
    web: Sidecar,
    one: Sidecar,
    _other: Sidecar,
    well: App,
}

impl Pair {
    async fn open(application: SocketAddr, rule: Value) -> Self {
        let mesh = Mesh::start().await.unwrap();
        let well = App::builder().name("well").start().await;
        let one = mesh.sidecar("one").before(application).start().await.unwrap();
        let other = mesh.sidecar("other").before(well.address()).start().await.unwrap();
        let web = mesh.sidecar("web").start().await.unwrap();
        let endpoints = json!([one.endpoint(), other.endpoint()]);
        let spec = json!({ "endpoints": endpoints, "balance": { "type": "RoundRobin" } });
        mesh.put(Kind::Backend, "api", spec).await.unwrap();
        let mut route =
            json!({ "listeners": [web.outbound_name()], "rules": [{ "backendRefs": [{ "name": "api" }] }] });
        route["rules"][0].as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        let revision = mesh.put(Kind::HttpRoute, "api", route).await.unwrap();
        mesh.settled(revision).await.unwrap();
        Self { mesh, web, one, _other: other, well }
    }

    /// The statuses of so many requests, one after the other.
    async fn ask(&self, method: &Method, times: usize) -> Vec<u16> {
        let mut statuses = Vec::new();
        for _ in 0..times {
            let body = Bytes::from_static(b"0123456789");
            let answer = self.web.caller().call(method.clone(), "api", "/", body).await.unwrap();
            assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("outrigger")), "{answer:?}");
            statuses.push(answer.status.as_u16());
        }
        statuses
    }
}

/// An application that reads so many bytes of each request, says the beginning of an answer, and is gone with a reset.
async fn breaking(read: usize, answer: &'static str) -> (SocketAddr, Count) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, came) = (Count::default(), Count::default());
    let seen = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            came.fetch_add(1, Ordering::SeqCst);
            let mut bytes = vec![0; read];
            if stream.read_exact(&mut bytes).await.is_ok() {
                seen.fetch_add(1, Ordering::SeqCst);
            }
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.set_zero_linger();
        }
    });
    (address, count)
}

/// However little of it the application has read: a POST that may have reached it goes nowhere else.
#[tokio::test]
async fn what_has_reached_the_application_is_not_told_to_be_lost_on_the_way() {
    for (read, answer) in [(1, ""), (30, ""), (55, ""), (55, "HTTP/1.1 200 OK\r\ncontent-le")] {
        let (address, count) = breaking(read, answer).await;
        let retry = json!({ "retry": { "attempts": 2, "codes": [502, 503], "backoff": "1ms" } });
        let pair = Pair::open(address, retry).await;
        let statuses = pair.ask(&Method::POST, 8).await;
        let good = statuses.iter().filter(|status| **status == 200).count();
        let lost = statuses.iter().filter(|status| **status == 502).count();
        assert_eq!((good, lost), (4, 4), "after {read} bytes: {statuses:?}");
        assert_eq!((count.load(Ordering::SeqCst), pair.well.requests()), (lost, good as u64));
        // What is idempotent is.
        assert_eq!(pair.ask(&Method::PUT, 8).await, [200; 8]);
    }
}

/// The first attempt, on a connection that was kept, has reached the application, which then is gone: that the second has
/// not says nothing of the first. What is idempotent goes elsewhere all the same.
#[tokio::test]
async fn a_second_attempt_that_does_not_arrive_says_nothing_of_the_first() {
    for (method, lost) in [(Method::PUT, 0), (Method::POST, 1)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let pair = Pair::open(address, json!({})).await;
        let gone = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut whole = Vec::new();
            while !whole.ends_with(b"0123456789") {
                assert_ne!(stream.read_buf(&mut whole).await.unwrap(), 0);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            stream.read_exact(&mut [0; 30]).await.unwrap();
            drop(listener);
            stream.set_zero_linger().unwrap();
        });
        let first = pair.ask(&method, 4).await;
        gone.await.unwrap();
        let failed = first.iter().filter(|status| **status != 200).count();
        assert_eq!(failed, lost, "the caller's sidecar does not take it to have got nowhere: {first:?}");
        // From now on it gets nowhere at all.
        assert_eq!(pair.ask(&Method::POST, 4).await, [200; 4]);
    }
}

/// As at the end of an application, whose backlog of connections is reset: its sidecar knows no other, its caller's does.
#[tokio::test]
async fn what_the_application_has_lost_goes_elsewhere_if_it_is_idempotent_without_a_retry_of_the_route() {
    let (address, count) = breaking(55, "").await;
    let pair = Pair::open(address, json!({})).await;
    assert_eq!(pair.ask(&Method::PUT, 8).await, [200; 8]);
    assert_eq!(pair.well.requests(), 8);
    assert!(count.load(Ordering::SeqCst) <= 8, "each is lost once at most");
    let statuses = pair.ask(&Method::POST, 8).await;
    assert_eq!(statuses.iter().filter(|status| **status == 502).count(), 4, "{statuses:?}");
}

/// Nobody listens, or its sidecar refuses it: a POST goes elsewhere at once, and without another place is tried again as the
/// route says.
#[tokio::test]
async fn what_has_not_reached_the_application_is_sent_again_whatever_its_method() {
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let pair = Pair::open(nowhere, json!({})).await;
    assert_eq!(pair.ask(&Method::POST, 8).await, [200; 8]);
    assert_eq!(pair.well.requests(), 8);

    // An application that comes back while its one caller waits to try again.
    let backoff = json!({ "attempts": 20, "backoff": "20ms", "maxBackoff": "40ms" });
    let route = json!({ "listeners": [pair.web.outbound_name()],
        "rules": [{ "backendRefs": [{ "name": "one" }], "retry": backoff }] });
    let one = json!({ "endpoints": [pair.one.endpoint()] });
    pair.mesh.put(Kind::Backend, "one", one).await.unwrap();
    let revision = pair.mesh.put(Kind::HttpRoute, "api", route).await.unwrap();
    pair.mesh.settled(revision).await.unwrap();
    let mut caller = pair.web.caller();
    let asked = caller.call(Method::POST, "api", "/", Bytes::from_static(b"hello"));
    let back = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        App::builder().name("back").address(nowhere).start().await
    };
    let (answer, app) = tokio::join!(asked, back);
    let answer = answer.unwrap();
    assert_eq!((answer.status.as_u16(), answer.app(), app.requests()), (200, "back", 1), "{answer:?}");
}

/// An application of HTTP/2 that says of every call what only a sidecar may say.
async fn forging() -> (SocketAddr, Count) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Count::default();
    let seen = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    seen.fetch_add(1, Ordering::SeqCst);
                    let head =
                        Response::builder().status(503).header("outrigger-unreached", "connection_refused");
                    let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
                    let field =
                        ("outrigger-unreached".parse().unwrap(), "connection_refused".parse().unwrap());
                    send.send_trailers(HeaderMap::from_iter([field])).unwrap();
                }
            });
        }
    });
    (address, count)
}

#[tokio::test]
async fn an_application_of_grpc_cannot_say_that_it_was_not_reached() {
    let (address, count) = forging().await;
    let pair = Pair::open(address, json!({})).await;
    let stream = TcpStream::connect(pair.web.outbound()).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..8 {
        let request = Request::post("http://api/a.B/C").header("content-type", "application/grpc");
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        assert!(!response.headers().contains_key("outrigger-unreached"), "{response:?}");
        let body = response.into_body().collect().await.unwrap();
        assert!(body.trailers().is_none_or(|trailers| !trailers.contains_key("outrigger-unreached")));
    }
    assert_eq!((count.load(Ordering::SeqCst), pair.well.requests()), (4, 4));
}

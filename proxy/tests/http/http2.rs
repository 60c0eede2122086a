//! HTTP/2 without TLS, on either side, and what is said otherwise in HTTP/1.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_testkit::app::App;
use tokio::net::TcpStream;

use crate::support::{Running, Wire, listen, nowhere, one_backend, soon, with_rule};

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// A caller that speaks HTTP/2 by prior knowledge.
pub(crate) async fn caller(proxy: &Running) -> SendRequest<Body> {
    let stream = TcpStream::connect(proxy.at("web")).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://shop{path}")).body(Empty::new().boxed()).unwrap()
}

pub(crate) fn post(path: &str, frames: Vec<Frame<Bytes>>) -> Request<Body> {
    let frames = frames.into_iter().map(Ok::<_, Infallible>);
    let body = BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames)));
    Request::post(format!("http://shop{path}")).body(body).unwrap()
}

pub(crate) async fn read(response: Response<Incoming>) -> (u16, serde_json::Value) {
    let status = response.status().as_u16();
    let body = soon(response.collect()).await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

pub(crate) fn values(seen: &serde_json::Value, name: &str) -> Vec<String> {
    let fields = seen["headers"].as_array().unwrap().iter();
    fields.filter(|field| field[0] == name).map(|field| field[1].as_str().unwrap().to_owned()).collect()
}

fn trailers() -> Frame<Bytes> {
    Frame::trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("7"))]))
}

#[tokio::test]
async fn http_2_is_known_by_its_preface_and_becomes_http_1_1() {
    let app = App::builder().start().await;
    let proxy = Running::start(&one_backend(&[app.address()])).await;
    let mut request = get("/a?b");
    request.headers_mut().append("cookie", HeaderValue::from_static("a=1"));
    request.headers_mut().append("cookie", HeaderValue::from_static("b=2"));
    let (status, seen) = read(caller(&proxy).await.send_request(request).await.unwrap()).await;
    assert_eq!((status, &seen["version"], &seen["path"]), (200, &"HTTP/1.1".into(), &"/a?b".into()));
    assert_eq!(values(&seen, "host"), ["shop"]);
    assert_eq!(values(&seen, "cookie"), ["a=1; b=2"]);
    assert_eq!(values(&seen, "transfer-encoding"), [""; 0]);
}

#[tokio::test]
async fn http_1_becomes_http_2_for_a_backend_that_speaks_it() {
    let app = App::builder().start().await;
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[app.address()])).await;
    let request =
        "POST /a?b HTTP/1.1\r\nHost: shop:81\r\nConnection: x-hop\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nhi";
    let seen = proxy.ask(request).await.json();
    assert_eq!((&seen["version"], &seen["path"]), (&"HTTP/2.0".into(), &"/a?b".into()));
    assert_eq!(seen["authority"], "shop:81");
    assert_eq!(seen["body"]["text"], "hi");
    assert_eq!(values(&seen, "x-hop"), [""; 0]);
    assert_eq!(proxy.ask("GET / HTTP/1.0\r\n\r\n").await.status(), 200);
}

#[tokio::test]
async fn a_listener_without_a_protocol_detects_both_versions() {
    let app = App::builder().start().await;
    let yaml = one_backend(&[app.address()]).replace(", protocol: HTTP }", " }");
    let proxy = Running::start(&yaml).await;
    let seen = proxy.ask("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await.json();
    assert_eq!(seen["path"], "/");
    let (status, _) = read(caller(&proxy).await.send_request(get("/")).await.unwrap()).await;
    assert_eq!(status, 200);
    // Also when the preface comes in pieces.
    let mut wire = proxy.connect().await;
    wire.send("PRI * HT").await;
    wire.send("TP/2.0\r\n\r\nSM\r\n\r\n").await;
    wire.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    let settings = wire.exactly(9).await;
    assert_eq!(settings[3], 4, "a SETTINGS frame: {settings:?}");
}

#[tokio::test]
async fn trailers_pass_between_the_versions() {
    for protocol in ["HTTP", "H2C"] {
        let app = App::builder().start().await;
        let proxy = Running::start(&with_rule("", &format!("protocol: {protocol}"), &[app.address()])).await;
        let mut http2 = caller(&proxy).await;
        let mut request = post("/echo", vec![Frame::data(Bytes::from_static(b"hello")), trailers()]);
        request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
        request.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
        let collected = soon(http2.send_request(request).await.unwrap().collect()).await.unwrap();
        assert_eq!(collected.trailers().unwrap().get("x-sum").unwrap(), "7", "{protocol}");
        assert_eq!(collected.to_bytes(), "hello");
        let request = "POST /echo HTTP/1.1\r\nHost: shop\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\
                       \r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n";
        let response = proxy.ask(request).await;
        assert_eq!((response.text(), response.trailers.as_str()), ("hello", "x-sum: 7\n"), "{protocol}");
    }
}

#[tokio::test]
async fn a_grpc_caller_is_spoken_to_in_http_2_all_the_way() {
    let app = App::builder().start().await;
    let proxy = Running::start(&one_backend(&[app.address()])).await;
    let mut request = post("/any", vec![Frame::data(Bytes::from_static(b"hello"))]);
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let (_, seen) = read(caller(&proxy).await.send_request(request).await.unwrap()).await;
    assert_eq!(seen["version"], "HTTP/2.0");
    assert_eq!(values(&seen, "te"), ["trailers"]);
}

#[tokio::test]
async fn many_streams_of_one_caller_go_to_http_1_backends_side_by_side() {
    let app = App::builder().start().await;
    let proxy = Running::start(&one_backend(&[app.address()])).await;
    let http2 = caller(&proxy).await;
    let mut under_way = tokio::task::JoinSet::new();
    for number in 0..100 {
        let mut http2 = http2.clone();
        under_way.spawn(async move {
            let (_, seen) =
                read(http2.send_request(get(&format!("/delay/20?{number}"))).await.unwrap()).await;
            assert_eq!(seen["path"], format!("/delay/20?{number}"));
        });
    }
    while let Some(ended) = soon(under_way.join_next()).await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_stream_that_the_caller_resets_ends_the_request_at_the_backend_alone() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&one_backend(&[address])).await;
    let mut http2 = caller(&proxy).await;
    let request = http2.send_request(get("/hang"));
    let request = tokio::spawn(request);
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    request.abort();
    assert!(callee.closed().await);
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
    let second = tokio::spawn(http2.send_request(get("/next")));
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    callee.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(soon(second).await.unwrap().unwrap().status(), 204);
}

#[tokio::test]
async fn a_response_that_breaks_off_is_a_reset_stream() {
    for protocol in ["HTTP", "H2C"] {
        let app = App::builder().start().await;
        let proxy = Running::start(&with_rule("", &format!("protocol: {protocol}"), &[app.address()])).await;
        let mut http2 = caller(&proxy).await;
        // A reset that follows the head closely overtakes it.
        if let Ok(response) = http2.send_request(get("/reset")).await {
            assert_eq!(response.status(), 200);
            assert!(soon(response.collect()).await.is_err(), "{protocol}: half a body looks whole");
        }
        let (status, _) = read(http2.send_request(get("/")).await.unwrap()).await;
        assert_eq!(status, 200, "{protocol}: the connection lives on");
        proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
    }
}

#[tokio::test]
async fn a_connection_of_http_2_that_cannot_be_made_is_a_503() {
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[nowhere().await])).await;
    let body = Full::new(Bytes::from_static(b"hi")).boxed();
    let request = Request::post("http://shop/").body(body).unwrap();
    let response = caller(&proxy).await.send_request(request).await.unwrap();
    assert_eq!(response.status(), 503);
    let status = response.headers().get("proxy-status").unwrap().to_str().unwrap();
    assert!(status.contains("error=connection_refused"), "{status}");
}

#[tokio::test]
async fn many_requests_share_few_connections_and_more_than_a_hundred_open_another() {
    let app = App::builder().start().await;
    let (front, address) = listen().await;
    let to = app.address();
    let (count, opened) = tokio::sync::watch::channel(0);
    // Counts the connections on their way to the application.
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = front.accept().await {
            count.send_modify(|count| *count += 1);
            tokio::spawn(async move {
                let mut app = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut app).await;
            });
        }
    });
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
    let http2 = [caller(&proxy).await, caller(&proxy).await];
    for (requests, connections) in [(80, 1), (200, 2)] {
        let mut under_way = tokio::task::JoinSet::new();
        for number in 0..requests {
            under_way.spawn(http2[number % 2].clone().send_request(get("/delay/100")));
        }
        while let Some(ended) = soon(under_way.join_next()).await {
            let (status, _) = read(ended.unwrap().unwrap()).await;
            assert_eq!(status, 200);
        }
        assert!(*opened.borrow() <= connections + 1, "{} connections for {requests}", *opened.borrow());
        assert!(*opened.borrow() >= connections, "{} connections for {requests}", *opened.borrow());
    }
}

#[tokio::test]
async fn requests_one_after_the_other_share_one_connection() {
    let app = App::builder().start().await;
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[app.address()])).await;
    let mut http2 = caller(&proxy).await;
    let mut peers = std::collections::BTreeSet::new();
    // More than share a connection at once.
    for _ in 0..250 {
        let (_, seen) = read(soon(http2.send_request(get("/"))).await.unwrap()).await;
        peers.insert(seen["peer"].to_string());
    }
    assert_eq!(peers.len(), 1, "{peers:?}");
}

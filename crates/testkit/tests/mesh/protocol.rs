//! What passes two sidecars: HTTP/2 with trailers, upgrades, and what is not HTTP.

use bytes::Bytes;
use http::{Request, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_config::Kind;
use outrigger_testkit::app::TcpApp;
use outrigger_testkit::mesh::Mesh;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::story::{DAY, Shop};

#[tokio::test]
async fn http2_passes_with_its_trailers_to_an_application_that_speaks_it() {
    let shop = Shop::open(DAY).await;
    let endpoints = json!([shop.v1.sidecar.endpoint()]);
    shop.mesh.put(Kind::Backend, "api", json!({ "protocol": "H2C", "endpoints": endpoints })).await.unwrap();
    shop.route_to_both().await;
    let stream = TcpStream::connect(shop.web.outbound()).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);

    let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    let frames = [Frame::data(Bytes::from_static(b"one")), Frame::trailers(trailers)];
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, std::convert::Infallible>)));
    let request =
        Request::post("http://api/echo").header("content-type", "application/grpc").header("te", "trailers");
    let response = sender.send_request(request.body(BodyExt::boxed(body)).unwrap()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(collected.to_bytes(), "one");

    let request = Request::get("http://api/").body(BodyExt::boxed(Empty::new())).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let seen: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(seen["version"], "HTTP/2.0", "{seen}");
}

#[tokio::test]
async fn grpc_is_carried_as_http2_without_being_told() {
    let shop = Shop::open(DAY).await;
    shop.route_to_both().await;
    let stream = TcpStream::connect(shop.web.outbound()).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (kind, version) in [("application/grpc+proto", "HTTP/2.0"), ("text/plain", "HTTP/1.1")] {
        let request = Request::get("http://api/").header("content-type", kind).header("te", "trailers");
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let seen: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(seen["version"], version, "{seen}");
    }
}

/// What a sidecar answers in place of an application that is away reaches the caller of a call as a status of gRPC.
#[tokio::test]
async fn grpc_is_told_in_grpc_that_the_application_is_away() {
    let shop = Shop::open(DAY).await;
    let route =
        json!({ "listeners": [shop.web.outbound_name()], "rules": [{ "backendRefs": [{ "name": "v1" }] }] });
    let revision = shop.mesh.put(Kind::GrpcRoute, "calls", route).await.unwrap();
    shop.mesh.settled(revision).await.unwrap();
    let call = || async {
        let stream = TcpStream::connect(shop.web.outbound()).await.unwrap();
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post("http://api/a.B/C").header("content-type", "application/grpc");
        sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap()
    };
    let body = call().await.into_body().collect().await.unwrap().to_bytes();
    let seen: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&seen["version"], &seen["app"]), (&"HTTP/2.0".into(), &"v1".into()), "{seen}");
    shop.v1.app.kill().await;
    let response = call().await;
    let (status, fields) = (response.status().as_u16(), response.headers());
    assert_eq!((status, &fields["grpc-status"]), (200, &"14".parse().unwrap()), "{fields:?}");
    assert!(!fields.contains_key("outrigger-unreached"), "{fields:?}");
    assert!(fields["proxy-status"].to_str().unwrap().contains("error=connection_refused"), "{fields:?}");
}

#[tokio::test]
async fn a_web_socket_passes() {
    let shop = Shop::open(DAY).await;
    shop.route_to_both().await;
    let mut stream = TcpStream::connect(shop.web.outbound()).await.unwrap();
    let request = "GET /upgrade HTTP/1.1\r\nhost: api\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("upgrade: websocket\r\n"), "{head}");
    for _ in 0..3 {
        stream.write_all(b"\x81\x05hello").await.unwrap();
        let mut echo = [0; 7];
        stream.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"\x81\x05hello");
    }
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_not_http_passes_whoever_speaks_first() {
    let mesh = Mesh::start().await.unwrap();
    let web = mesh.sidecar("web").start().await.unwrap();
    for (name, app, greeting) in [
        ("echo", TcpApp::echo().await.unwrap(), ""),
        ("mail", TcpApp::greeting(b"220 hello\r\n").await.unwrap(), "220 hello\r\n"),
    ] {
        let callee = mesh.sidecar(name).before(app.address()).start().await.unwrap();
        let address = std::net::SocketAddr::new(web.outbound().ip(), 0);
        let listener =
            json!({ "address": address, "direction": "Outbound", "protocol": "TCP", "nodes": ["web"] });
        let route = json!({ "listeners": [name], "rules": [{ "backendRefs": [{ "name": name }] }] });
        mesh.put(Kind::Listener, name, listener).await.unwrap();
        mesh.put(Kind::Backend, name, json!({ "endpoints": [callee.endpoint()] })).await.unwrap();
        let revision = mesh.put(Kind::TcpRoute, name, route).await.unwrap();
        mesh.settled(revision).await.unwrap();

        let mut stream = TcpStream::connect(web.proxy().unwrap().listener(name).unwrap()).await.unwrap();
        let mut greeted = vec![0; greeting.len()];
        stream.read_exact(&mut greeted).await.unwrap();
        assert_eq!(greeted, greeting.as_bytes());
        stream.write_all(b"\x00ping").await.unwrap();
        // Half closed: what was sent still comes back.
        stream.shutdown().await.unwrap();
        let mut echoed = Vec::new();
        stream.read_to_end(&mut echoed).await.unwrap();
        assert_eq!(echoed, b"\x00ping");
        assert_eq!(app.connections(), 1);
    }
}

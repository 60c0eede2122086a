//! HTTP/2 in small pieces: what one call does to its connection is not felt by the others that share it.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use outrigger_config::Kind as Object;
use outrigger_testkit::app::App;
use outrigger_testkit::load::{Kind, Load, Traffic};
use outrigger_testkit::mesh::{Mesh, Sidecar};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::stage::put_backend;

const MESSAGE: &[u8] = b"\0\0\0\0\x01x";

/// A server of gRPC that sends what it is told to, in frames of their own, and an empty frame before its trailers, as
/// those do that are built on nghttp2.
async fn server(messages: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(answer(request, respond, messages));
                }
            });
        }
    });
    address
}

/// A call of `/grpc/Many` is answered with many messages, another with its own.
async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    messages: usize,
) {
    let many = request.uri().path().ends_with("Many");
    let mut body = request.into_body();
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let Ok(mut send) = respond.send_response(head, false) else { return };
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        if !many && send.send_data(data, false).is_err() {
            return;
        }
    }
    for _ in 0..if many { messages } else { 0 } {
        // Each is handed over by itself, as soon as there is room: `h2` does not join frames.
        send.reserve_capacity(MESSAGE.len());
        while send.capacity() < MESSAGE.len() {
            if !matches!(poll_fn(|cx| send.poll_capacity(cx)).await, Some(Ok(_))) {
                return;
            }
        }
        if send.send_data(Bytes::from_static(MESSAGE), false).is_err() {
            return;
        }
    }
    let status = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
    // Refused only where the stream is gone.
    let _ = send.send_data(Bytes::new(), false);
    let _ = send.send_trailers(status);
}

/// A caller's sidecar and an application's, which is a server of gRPC.
async fn stage(application: SocketAddr) -> (Mesh, Sidecar, Sidecar) {
    let mesh = Mesh::start().await.unwrap();
    let callee = mesh.sidecar("api").before(application).start().await.unwrap();
    let web = mesh.sidecar("web").start().await.unwrap();
    put_backend(&mesh, json!({ "endpoints": [callee.endpoint()] })).await;
    let route =
        json!({ "listeners": [web.outbound_name()], "rules": [{ "backendRefs": [{ "name": "api" }] }] });
    let revision = mesh.put(Object::GrpcRoute, "api", route).await.unwrap();
    mesh.settled(revision).await.unwrap();
    (mesh, web, callee)
}

#[tokio::test]
async fn empty_frames_wear_no_connection_out() {
    let (_mesh, web, _callee) = stage(server(0).await).await;
    let mut load = Load::start(web.outbound(), Traffic::new(Kind::Unary, 400));
    load.more(600).await;
    load.end().await.is_whole(600);
}

/// A call whose messages nobody reads does not end the connection that it shares with others.
#[tokio::test]
async fn a_slow_reader_of_small_messages_ends_no_other_call() {
    let (_mesh, web, _callee) = stage(server(30_000).await).await;
    let mut slow = Vec::new();
    let stream = TcpStream::connect(web.outbound()).await.unwrap();
    // The caller itself takes frames of any size, and what it does not read of one call leaves room for the others: with
    // the connection's window as it is at first, the calls that are read last would take all of it.
    let mut caller = h2::client::Builder::new();
    caller.data_frame_budget(usize::MAX).initial_connection_window_size(1024 * 1024);
    let (sender, connection) = caller.handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let sender = sender.clone();
        let request = Request::post("http://api/grpc/Many").header("content-type", "application/grpc");
        let request = request.header("te", "trailers").body(()).unwrap();
        let (response, _) = sender.ready().await.unwrap().send_request(request, true).unwrap();
        slow.push(response.await.unwrap().into_body());
    }
    let mut load = Load::start(web.outbound(), Traffic::new(Kind::Unary, 100));
    load.more(100).await;
    load.end().await.is_whole(100);
    for mut body in slow {
        let mut came = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            came += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        assert_eq!(came, 30_000 * 6, "every message came, if late");
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    }
}

/// Callers that ask for much and read nothing leave room for the others on the connection between two sidecars.
#[tokio::test]
async fn callers_that_read_nothing_starve_no_other() {
    let app = App::builder().start().await;
    let (mesh, web, _callee) = stage(app.address()).await;
    let route =
        json!({ "listeners": [web.outbound_name()], "rules": [{ "backendRefs": [{ "name": "api" }] }] });
    let revision = mesh.put(Object::HttpRoute, "api", route).await.unwrap();
    mesh.settled(revision).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..16 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(web.outbound()).await.unwrap();
        stream.write_all(b"GET /bytes/100000000 HTTP/1.1\r\nhost: api\r\n\r\n").await.unwrap();
        // It has begun, and then nobody reads.
        stream.read_exact(&mut [0; 16]).await.unwrap();
        silent.push(stream);
    }
    // Until what lies between is full, they keep everybody busy.
    let patience = Duration::from_secs(15);
    let traffic = Traffic { patience, path: "/bytes/100".into(), ..Traffic::new(Kind::Http1, 50) };
    let mut load = Load::start(web.outbound(), traffic);
    load.more(50).await;
    load.end().await.is_whole(50);
}

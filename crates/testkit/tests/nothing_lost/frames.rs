//! HTTP/2 in small pieces: what one call does to its connection is not felt by the others that share it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use outrigger_config::Kind as Object;
use outrigger_testkit::load::{Kind, Load, Traffic};
use outrigger_testkit::mesh::{Mesh, Sidecar};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::stage::put_backend;

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
        // Each is handed over by itself: `h2` does not join frames.
        if send.send_data(Bytes::from_static(b"\0\0\0\0\x01x"), false).is_err() {
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
    let load = Load::start(web.outbound(), Traffic::new(Kind::Unary, 400));
    tokio::time::sleep(Duration::from_millis(1600)).await;
    load.end().await.is_whole(600);
}

/// A call whose messages nobody reads does not end the connection that it shares with others.
#[tokio::test]
async fn a_slow_reader_of_small_messages_ends_no_other_call() {
    let (_mesh, web, _callee) = stage(server(30_000).await).await;
    let stream = TcpStream::connect(web.outbound()).await.unwrap();
    let mut caller = h2::client::Builder::new();
    let (sender, connection) =
        caller.data_frame_budget(usize::MAX).handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let mut slow = Vec::new();
    for _ in 0..3 {
        let request = Request::post("http://api/grpc/Many").header("content-type", "application/grpc");
        let request = request.header("te", "trailers").body(()).unwrap();
        let (response, _) = sender.clone().ready().await.unwrap().send_request(request, true).unwrap();
        slow.push(response.await.unwrap().into_body());
    }
    let load = Load::start(web.outbound(), Traffic::new(Kind::Unary, 100));
    tokio::time::sleep(Duration::from_secs(1)).await;
    load.end().await.is_whole(90);
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

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{App, TcpApp};

/// Sends `request` as it is and returns everything until the end of the connection.
async fn raw(address: SocketAddr, request: &str) -> (Vec<u8>, std::io::Result<()>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer).await;
    (answer, end.map(drop))
}

async fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: app\r\nconnection: close\r\n{headers}\r\n");
    let (answer, end) = raw(address, &request).await;
    end.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn describes_a_request_as_it_arrived() {
    let app = App::builder().name("api-v1").start().await;
    let stream = TcpStream::connect(app.address()).await.unwrap();
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("/a/b?c=d").header("host", "shop").header("x-b", "1").header("x-a", "2");
    let response =
        send.send_request(request.body(Full::new(Bytes::from_static(b"abc"))).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-app"], "api-v1");
    let seen: Value =
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(seen["app"], "api-v1");
    assert_eq!(seen["method"], "POST");
    assert_eq!(seen["path"], "/a/b?c=d");
    assert_eq!(seen["version"], "HTTP/1.1");
    assert_eq!(seen["body"]["length"], 3);
    assert_eq!(seen["body"]["text"], "abc");
    assert_eq!(seen["body"]["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    let names: Vec<_> =
        seen["headers"].as_array().unwrap().iter().map(|pair| pair[0].as_str().unwrap()).collect();
    assert_eq!(names, ["host", "x-b", "x-a", "content-length"]);
    assert_eq!(app.requests(), 1);
}

#[tokio::test]
async fn speaks_http2_and_echoes_bodies_and_trailers() {
    let app = App::builder().own_thread().start().await;
    let stream = TcpStream::connect(app.address()).await.unwrap();
    let (mut send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let trailers = std::future::ready(Some(Ok([("x-sum".parse().unwrap(), "6".parse().unwrap())]
        .into_iter()
        .collect())));
    let body = Full::new(Bytes::from_static(b"abc")).with_trailers(trailers);
    let request = Request::post(format!("http://{}/echo", app.address())).body(body).unwrap();
    let response = send.send_request(request).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "6");
    assert_eq!(body.to_bytes(), "abc");
}

#[tokio::test]
async fn answers_by_path() {
    let app = App::builder().start().await;
    let address = app.address();
    assert!(get(address, "/status/418", "").await.starts_with("HTTP/1.1 418 "));
    assert!(get(address, "/status/9999", "").await.starts_with("HTTP/1.1 400 "));
    assert!(get(address, "/bytes/100000", "").await.ends_with(&"x".repeat(100_000)));
    assert!(get(address, "/drip/2/1", "").await.ends_with("8\r\ndrip 00\n\r\n8\r\ndrip 01\n\r\n0\r\n\r\n"));
    assert!(
        get(address, "/trailers", "te: trailers\r\n").await.ends_with("hello\r\n0\r\nx-trailer: yes\r\n\r\n")
    );
    for status in ["503", "503", "200"] {
        assert!(get(address, "/fail-first/2?key=a", "").await.starts_with(&format!("HTTP/1.1 {status} ")));
    }
    assert!(get(address, "/fail-first/1?key=b", "").await.starts_with("HTTP/1.1 503 "));
}

#[tokio::test]
async fn resets_in_the_middle_of_a_response() {
    let app = App::builder().start().await;
    let (answer, end) = raw(app.address(), "GET /reset HTTP/1.1\r\nhost: app\r\n\r\n").await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert!(answer.is_empty() || answer.ends_with(b"\r\n\r\nhello"), "{answer:?}");
}

#[tokio::test]
async fn echoes_after_an_upgrade() {
    let app = App::builder().start().await;
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head = "GET /upgrade HTTP/1.1\r\nhost: app\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nbytes";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nbytes"), "{answer}");
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight_and_frees_the_address() {
    let app = App::builder().start().await;
    let address = app.address();
    let drip = tokio::spawn(async move { get(address, "/drip/3/20", "").await });
    while app.requests() == 0 {
        tokio::task::yield_now().await;
    }
    app.stop().await;
    assert!(drip.await.unwrap().ends_with("drip 02\n\r\n0\r\n\r\n"));
    assert!(TcpStream::connect(address).await.is_err());
    let again = App::builder().name("again").address(address).start().await;
    assert!(get(address, "/", "").await.contains("x-app: again"));
    drop(again);
}

#[tokio::test]
async fn a_kill_cuts_what_is_in_flight() {
    let app = App::builder().own_thread().start().await;
    let address = app.address();
    let hang = tokio::spawn(raw(address, "GET /hang HTTP/1.1\r\nhost: app\r\n\r\n"));
    while app.requests() == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_secs(5), app.kill()).await.unwrap();
    assert!(hang.await.unwrap().0.is_empty());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn tcp_applications_greet_and_echo() {
    let app = TcpApp::greeting(b"220 ready\r\n").await.unwrap();
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let mut greeting = [0; 11];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    stream.write_all(b"abc").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"abc");
    assert_eq!(app.connections(), 1);
    app.stop().await;

    let app = TcpApp::echo().await.unwrap();
    let (answer, end) = {
        let mut stream = TcpStream::connect(app.address()).await.unwrap();
        stream.write_all(b"xyz").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer).await;
        (answer, end)
    };
    end.unwrap();
    assert_eq!(answer, b"xyz");
}

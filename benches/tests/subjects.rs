//! What stands between callers and the application, as processes: each forwards what it is set up for, and ends.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    convert::Infallible,
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_benches::{
    load::Traffic,
    subject::{Environment, Hops, Kind, Setup, Subject, available, forwarder},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Answers each request with its path, and repeats the bytes of each connection that is not HTTP.
async fn application(traffic: Traffic) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let answer = service_fn(async |request: Request<Incoming>| {
                    let path = request.uri().path().to_owned();
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(path))))
                });
                let io = TokioIo::new(&mut stream);
                match traffic {
                    Traffic::Http1 | Traffic::WebSocket => {
                        drop(hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await);
                    }
                    Traffic::Http2 | Traffic::Grpc | Traffic::GrpcStream => {
                        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        drop(builder.serve_connection(io, answer).await);
                    }
                    Traffic::Tcp | Traffic::TcpBulk => {
                        let (mut read, mut write) = stream.split();
                        drop(tokio::io::copy(&mut read, &mut write).await);
                    }
                }
            });
        }
    });
    address
}

/// One request, and what was answered.
async fn ask(to: SocketAddr, traffic: Traffic) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
    if matches!(traffic, Traffic::Tcp | Traffic::TcpBulk) {
        stream.write_all(b"/tcp").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        return text;
    }
    let io = TokioIo::new(stream);
    let request = Request::builder().body(Full::new(Bytes::new())).unwrap();
    let (mut parts, body) = request.into_parts();
    let response = if matches!(traffic, Traffic::Http1 | Traffic::WebSocket) {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        parts.uri = "/http1".parse().unwrap();
        parts.headers.insert("host", "bench.local".parse().unwrap());
        sender.send_request(Request::from_parts(parts, body)).await.unwrap()
    } else {
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        parts.uri = "http://bench.local/service/Method".parse().unwrap();
        parts.method = "POST".parse().unwrap();
        parts.headers.insert("content-type", "application/grpc".parse().unwrap());
        parts.headers.insert("te", "trailers".parse().unwrap());
        sender.send_request(Request::from_parts(parts, body)).await.unwrap()
    };
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    String::from_utf8(body.to_vec()).unwrap()
}

fn setup(hops: Hops, traffic: Traffic) -> Setup {
    Setup { hops, traffic, tls: false, workers: 1, routes: 1, access_log: false, tracing: false }
}

/// Starts a peer for everything that it can do, and sends a request through each.
async fn forwards(kind: Kind, package: &str) {
    let outrigger = PathBuf::from(env!("CARGO_BIN_EXE_outrigger-bench")).with_file_name("outrigger");
    let dir = tempfile::tempdir().unwrap();
    for traffic in [Traffic::Http1, Traffic::Http2, Traffic::Grpc, Traffic::Tcp] {
        let environment = Environment {
            application: application(traffic).await,
            cpus: None,
            outrigger: outrigger.clone(),
            outrigger_args: Vec::new(),
            peers: Vec::new(),
        };
        for hops in [Hops::One, Hops::Two] {
            let setup = setup(hops, traffic);
            if let Err(why) = available(&kind, &setup, &environment) {
                println!("skipped: needs {package} for {traffic:?} ({why})");
                continue;
            }
            let subject = Subject::start(&kind, &setup, &environment, dir.path()).await.unwrap();
            let answer = tokio::time::timeout(PATIENCE, ask(subject.address, traffic)).await.unwrap();
            let expected = match traffic {
                Traffic::Http1 => "/http1",
                Traffic::Tcp => "/tcp",
                _ => "/service/Method",
            };
            assert_eq!(answer, expected, "{kind:?} {setup:?}");
            assert_eq!(subject.processes.len(), if hops == Hops::One { 1 } else { 2 });
            assert!(subject.usage().unwrap().cpu > Duration::ZERO);
            assert!(subject.resident_kib().unwrap() > 500);
            let secrets = subject.configuration.iter().filter(|(_, text)| text.contains("PRIVATE KEY"));
            assert_eq!((subject.configuration.is_empty(), secrets.count()), (false, 0));
            let pids: Vec<i32> =
                subject.processes.iter().flat_map(|process| process.pids().unwrap()).collect();
            drop(subject);
            for pid in pids {
                gone(pid);
            }
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}

/// Waits until a process has been killed; its own children are left to whoever takes care of orphans.
fn gone(pid: i32) {
    while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn nginx_forwards() {
    forwards(Kind::Peer("nginx".into()), "nginx").await;
}

#[tokio::test]
async fn haproxy_forwards() {
    forwards(Kind::Peer("haproxy".into()), "haproxy").await;
}

#[tokio::test]
async fn outrigger_forwards() {
    forwards(Kind::Outrigger, "outrigger").await;
}

#[test]
fn the_forwarder_passes_on_bytes_and_either_end_of_them() {
    let application = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = application.local_addr().unwrap();
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // It ends with this process.
    std::thread::spawn(move || forwarder::forward(listen, to));
    let mut caller = loop {
        if let Ok(caller) = TcpStream::connect(listen) {
            break caller;
        }
    };
    let (mut callee, _) = application.accept().unwrap();
    // More than the sockets on the way hold, so that it waits until it can write.
    let bytes: Vec<u8> = (0..16 << 20).map(|n: u32| (n % 251) as u8).collect();
    let sent = bytes.clone();
    let mut sender = caller.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        sender.write_all(&sent).unwrap();
        sender.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    callee.read_to_end(&mut received).unwrap();
    sending.join().unwrap();
    assert!(received == bytes);
    // The other direction goes on after the end of the first.
    callee.write_all(b"still here").unwrap();
    drop(callee);
    let mut answer = String::new();
    caller.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "still here");
    // Where the application refuses the connection, the caller's is closed.
    drop(application);
    let mut refused = TcpStream::connect(listen).unwrap();
    assert!(!matches!(refused.read(&mut [0]), Ok(1)));
}

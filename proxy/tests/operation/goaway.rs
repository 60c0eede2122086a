//! What a caller of HTTP/2 is told when the proxy ends, frame by frame (RFC 9113, section 6.8).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use outrigger_proxy::{Options, Proxy, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::desk::{Desk, PATIENCE};

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM_AND_HEADERS: u8 = 5;
/// The largest number of a stream: none is refused yet.
const ALL_STREAMS: u32 = (1 << 31) - 1;

async fn send(caller: &mut TcpStream, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    caller.write_all(&frame).await.unwrap();
}

/// The next frame of a kind, with its flags, its stream and its payload. Others are passed over.
async fn next(caller: &mut TcpStream, wanted: u8) -> (u8, u32, Vec<u8>) {
    let frames = async {
        loop {
            let mut head = [0; 9];
            caller.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            caller.read_exact(&mut payload).await.unwrap();
            // An answer to a ping is not one of the proxy's own.
            if head[3] == wanted && !(wanted == PING && head[4] == ACK) {
                return (head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload);
            }
        }
    };
    tokio::time::timeout(PATIENCE, frames).await.expect("the frame comes")
}

fn last_stream(goaway: &[u8]) -> u32 {
    u32::from_be_bytes([goaway[0], goaway[1], goaway[2], goaway[3]])
}

/// A request as the first of a connection, or a later one: GET http / by the static table, and the authority as a literal
/// that is not remembered (RFC 7541, section 6).
async fn request(caller: &mut TcpStream, stream: u32) {
    send(caller, HEADERS, END_STREAM_AND_HEADERS, stream, b"\x82\x86\x84\x01\x04shop").await;
}

async fn connect(proxy: &Proxy, listener: &str) -> TcpStream {
    let mut caller = TcpStream::connect(proxy.listener(listener).unwrap()).await.unwrap();
    caller.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    send(&mut caller, SETTINGS, 0, 0, &[]).await;
    caller
}

/// The next request of a connection that the proxy keeps to the application.
async fn asked(callee: &mut TcpStream) {
    assert!(callee.read(&mut [0; 4096]).await.unwrap() > 0, "a request comes");
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn config(direction: &str, app: SocketAddr) -> String {
    format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', direction: {direction}, protocol: HTTP }}]\n\
         httpRoutes: [{{ name: all, listeners: [web], rules: [{{ backendRefs: [{{ name: app }}] }}] }}]\n\
         backends: [{{ name: app, endpoints: [{{ address: '{app}' }}] }}]\n"
    )
}

#[tokio::test]
async fn a_caller_of_http2_is_told_in_two_phases_and_its_requests_are_finished() {
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let desk = Desk::new();
    let proxy = desk.start(&config("Edge", app.local_addr().unwrap())).await;
    let mut caller = connect(&proxy, "web").await;
    request(&mut caller, 1).await;
    let (mut first_callee, _) = app.accept().await.unwrap();
    asked(&mut first_callee).await;

    let stopping = tokio::spawn(proxy.stop());
    let (_, _, first) = next(&mut caller, GOAWAY).await;
    assert_eq!(last_stream(&first), ALL_STREAMS);
    let (_, _, ping) = next(&mut caller, PING).await;
    // Sent before the caller has heard: it is served as well.
    request(&mut caller, 3).await;
    let (mut second_callee, _) = app.accept().await.unwrap();
    asked(&mut second_callee).await;
    send(&mut caller, PING, ACK, 0, &ping).await;
    let (_, _, second) = next(&mut caller, GOAWAY).await;
    assert_eq!(last_stream(&second), 3, "what is under way is not refused");

    for (callee, stream) in [(&mut second_callee, 3), (&mut first_callee, 1)] {
        callee.write_all(OK).await.unwrap();
        let (_, answered, head) = next(&mut caller, HEADERS).await;
        assert_eq!((answered, head.first()), (stream, Some(&0x88)), "200, by the static table");
    }
    tokio::time::timeout(PATIENCE, stopping).await.expect("nothing is left").unwrap();
}

/// Before a control plane has heard of it: who calls the application is told at once, and served meanwhile.
#[tokio::test]
async fn callers_of_an_application_are_told_when_its_sidecar_begins_to_leave() {
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let desk = Desk::new();
    desk.write("proxy.yaml", &config("Inbound", app.local_addr().unwrap()));
    let options = Options { drain_delay: Duration::from_secs(3), ..desk.options(&desk.path("proxy.yaml")) };
    let proxy = start(options).await.unwrap();
    let web = proxy.listener("web").unwrap();
    let mut idle = connect(&proxy, "web").await;
    request(&mut idle, 1).await;
    let (mut callee, _) = app.accept().await.unwrap();
    asked(&mut callee).await;
    callee.write_all(OK).await.unwrap();
    next(&mut idle, HEADERS).await;

    let told = Instant::now();
    let stopping = tokio::spawn(proxy.stop());
    let (_, _, first) = next(&mut idle, GOAWAY).await;
    assert_eq!(last_stream(&first), ALL_STREAMS);
    let (_, _, ping) = next(&mut idle, PING).await;
    send(&mut idle, PING, ACK, 0, &ping).await;
    assert_eq!(last_stream(&next(&mut idle, GOAWAY).await.2), 1);
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0, "nothing is under way");

    // Who connects now is served, and told after that: told before, it could not ask.
    let mut late = TcpStream::connect(web).await.unwrap();
    late.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    send(&mut late, SETTINGS, 0, 0, &[]).await;
    let (_, _, settings) = next(&mut late, SETTINGS).await;
    assert!(!settings.is_empty());
    request(&mut late, 1).await;
    let answer = async {
        // The connection to the application is used again.
        asked(&mut callee).await;
        callee.write_all(OK).await.unwrap();
    };
    let ((), (_, _, goaway)) = tokio::join!(answer, next(&mut late, GOAWAY));
    assert_eq!(last_stream(&goaway), ALL_STREAMS);
    assert_eq!(next(&mut late, HEADERS).await.1, 1);
    assert!(told.elapsed() < Duration::from_secs(3), "all of that within the delay");
    drop(late);
    tokio::time::timeout(PATIENCE, stopping).await.expect("nothing is left").unwrap();
}

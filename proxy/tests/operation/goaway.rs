//! What a caller of HTTP/2 is told when the proxy ends, frame by frame (RFC 9113, section 6.8).

use outrigger_proxy::{Options, Source, start};
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

#[tokio::test]
async fn a_caller_of_http2_is_told_in_two_phases_and_its_request_is_finished() {
    let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = app.local_addr().unwrap();
    let desk = Desk::new();
    let config = format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]\n\
         httpRoutes: [{{ name: all, listeners: [web], rules: [{{ backendRefs: [{{ name: app }}] }}] }}]\n\
         backends: [{{ name: app, endpoints: [{{ address: '{address}' }}] }}]\n"
    );
    desk.write("proxy.yaml", &config);
    let proxy = start(Options::quiet(Source::File(desk.path("proxy.yaml")))).await.unwrap();
    let mut caller = TcpStream::connect(proxy.listener("web").unwrap()).await.unwrap();
    caller.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    send(&mut caller, SETTINGS, 0, 0, &[]).await;
    // GET http / by the static table, and the authority as a literal (RFC 7541, section 6).
    send(&mut caller, HEADERS, END_STREAM_AND_HEADERS, 1, b"\x82\x86\x84\x41\x04shop").await;
    let (mut callee, _) = app.accept().await.unwrap();
    assert!(callee.read(&mut [0; 4096]).await.unwrap() > 0, "the request is under way");

    let stopping = tokio::spawn(proxy.stop());
    let (_, _, first) = next(&mut caller, GOAWAY).await;
    assert_eq!(last_stream(&first), ALL_STREAMS);
    let (_, _, ping) = next(&mut caller, PING).await;
    send(&mut caller, PING, ACK, 0, &ping).await;
    let (_, _, second) = next(&mut caller, GOAWAY).await;
    assert_eq!(last_stream(&second), 1, "what is under way is not refused");

    callee.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let (_, stream, head) = next(&mut caller, HEADERS).await;
    assert_eq!((stream, head.first()), (1, Some(&0x88)), "200, by the static table");
    tokio::time::timeout(PATIENCE, stopping).await.expect("nothing is left").unwrap();
}

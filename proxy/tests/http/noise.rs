//! Noise on both sides of a running proxy: whatever is said, in whatever pieces, nothing panics, nothing hangs, and nothing
//! stays under way.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Running, listen, soon};

/// How many connections there are, and how many of them at a time.
const CONNECTIONS: u64 = 1200;
const AT_ONCE: usize = 32;

const REQUESTS: [&str; 14] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    "PUT /limit HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nshort",
    "HEAD /fixed HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /fixed HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "GET /mirror HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip, br\r\n\r\n",
    "POST /mirror HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    "POST /buffer HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\n\r\nhello",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x06\x01\x05\0\0\0\x01\u{2}\u{4}\u{7}\u{1}\u{3}\u{5}",
];

const RESPONSES: [&str; 14] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nGrpc-Status: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end",
    "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nbytes",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n",
    "HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "HTTP/2 200\r\n\r\n",
    "\r\n\r\n\0\0\0",
];

fn yaml(backend: std::net::SocketAddr) -> String {
    format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]
httpRoutes:
  - name: all
    listeners: [web]
    rules:
      - matches: [{{ path: {{ type: PathPrefix, value: /fixed }} }}]
        filters: [{{ type: FixedResponse, fixedResponse: {{ status: 200, body: fixed }} }}]
      - matches: [{{ path: {{ type: PathPrefix, value: /mirror }} }}]
        filters:
          - {{ type: RequestMirror, requestMirror: {{ backendRef: {{ name: app }} }} }}
          - {{ type: Compression, compression: {{ minBytes: 1 }} }}
        backendRefs: [{{ name: app }}]
        timeouts: {{ request: 300ms }}
      - matches: [{{ path: {{ type: PathPrefix, value: /limit }} }}]
        filters: [{{ type: BodyLimit, bodyLimit: {{ requestBytes: 100, responseBytes: 100 }} }}]
        backendRefs: [{{ name: app }}]
      - matches: [{{ path: {{ type: PathPrefix, value: /buffer }} }}]
        filters:
          - {{ type: Decompression, decompression: {{}} }}
          - {{ type: Buffer, buffer: {{ maxBytes: 1000 }} }}
        backendRefs: [{{ name: app }}]
      - matches: [{{ method: CONNECT }}]
        backendRefs: [{{ name: app }}]
      - backendRefs: [{{ name: app }}]
        timeouts: {{ request: 400ms, backendRequest: 200ms }}
        retry: {{ attempts: 2, codes: [503], backoff: 1ms }}
backends:
  - {{ name: app, endpoints: [{{ address: '{backend}' }}] }}
"
    )
}

/// Some bytes: messages in a row, some of them damaged.
fn noise(random: &mut fastrand::Rng, messages: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..4) {
        bytes.extend(messages[random.usize(..messages.len())].as_bytes());
    }
    for _ in 0..[0, 0, 0, 1, 2, 8][random.usize(..6)] {
        let at = random.usize(..bytes.len());
        match random.u8(..4) {
            0 => bytes[at] = random.u8(..),
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, b"\r\n\0 :,;\xff"[random.usize(..8)]),
            _ => bytes.truncate(at.max(1)),
        }
        if bytes.is_empty() {
            bytes.push(b'\n');
        }
    }
    bytes
}

/// Says something in pieces, hears a part of what is said, and leaves in one way or another.
async fn babble(mut stream: TcpStream, mut random: fastrand::Rng, messages: &[&str]) {
    let bytes = noise(&mut random, messages);
    let mut heard = vec![0; 4096];
    for piece in bytes.chunks(random.usize(1..=bytes.len())) {
        if stream.write_all(piece).await.is_err() {
            return;
        }
        if random.bool() {
            tokio::task::yield_now().await;
        }
    }
    match random.u8(..4) {
        // At once, with a reset.
        0 => drop(stream.set_zero_linger()),
        1 => {
            let _ = stream.shutdown().await;
            while matches!(stream.read(&mut heard).await, Ok(1..)) {}
        }
        _ => {
            let most = Duration::from_millis(random.u64(1..100));
            let _ = tokio::time::timeout(most, async {
                while matches!(stream.read(&mut heard).await, Ok(1..)) {}
            })
            .await;
        }
    }
}

/// A backend that hears something, says something, and leaves.
async fn backend(listener: TcpListener) {
    let mut seed = 0;
    while let Ok((mut stream, _)) = listener.accept().await {
        seed += 1;
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut heard = vec![0; 4096];
            if random.u8(..8) > 0 && !matches!(stream.read(&mut heard).await, Ok(1..)) {
                return;
            }
            let _ = tokio::time::timeout(Duration::from_secs(2), babble(stream, random, &RESPONSES)).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_of_noise() {
    let (listener, address) = listen().await;
    let proxy = Running::start(&yaml(address)).await;
    let backend = tokio::spawn(backend(listener));
    let web = proxy.at("web");
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut callers = tokio::task::JoinSet::new();
    for seed in 0..CONNECTIONS {
        let place = places.clone().acquire_owned().await.unwrap();
        callers.spawn(async move {
            let stream = TcpStream::connect(web).await.unwrap();
            let random = fastrand::Rng::with_seed(seed ^ 0x5eed);
            let said = tokio::time::timeout(Duration::from_secs(8), babble(stream, random, &REQUESTS)).await;
            drop(place);
            assert!(said.is_ok(), "seed {seed}: the connection neither ended nor was answered");
        });
    }
    while let Some(done) = soon(callers.join_next()).await {
        done.unwrap();
    }
    backend.abort();
    for gauge in ["outrigger_requests_in_flight", "outrigger_connections_open"] {
        proxy.metric_is(gauge, &[], 0.0).await;
    }
    proxy.metric_is("outrigger_backend_connections_open", &[], 0.0).await;
    assert!(proxy.metric("outrigger_requests_total", &[]) > 500.0);
    // And it goes on as ever.
    let answer = proxy.ask("GET /fixed HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.text(), "fixed");
}

//! The filter GrpcWeb.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::grpc::{framed, server};
use crate::support::{Message, Running, nowhere};

async fn proxy(kind: &str, address: std::net::SocketAddr) -> Running {
    let yaml = format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]
{kind}: [{{ name: calls, listeners: [web], rules: [{{ filters: [{{ type: GrpcWeb }}], backendRefs: [{{ name: app }}] }}] }}]
backends: [{{ name: app, endpoints: [{{ address: '{address}' }}] }}]
"
    );
    Running::start(&yaml).await
}

async fn ask(proxy: &Running, path: &str, kind: &str, body: &[u8]) -> Message {
    let mut wire = proxy.connect().await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: shop\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    wire.send([head.as_bytes(), body].concat()).await;
    wire.response().await
}

/// The messages of a body: each with its flag.
fn messages(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let [flag, a, b, c, d, rest @ ..] = body {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        found.push((*flag, rest[..length].to_vec()));
        body = &rest[length..];
    }
    assert!(body.is_empty(), "{body:?}");
    found
}

/// Base64 that may be padded anywhere.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for four in text.chunks(4) {
        bytes.extend(STANDARD.decode(four).unwrap());
    }
    bytes
}

fn told(message: &[u8]) -> Vec<&str> {
    let mut lines: Vec<_> = std::str::from_utf8(message).unwrap().split_terminator("\r\n").collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn grpc_web_becomes_grpc_and_back() {
    for kind in ["grpcRoutes", "httpRoutes"] {
        let proxy = proxy(kind, server("app").await).await;
        let trailers = ["grpc-status: 0", "x-path: /a.B/C", "x-saw: none", "x-te: trailers"];
        let answer = ask(&proxy, "/a.B/C", "application/grpc-web+proto", &framed(b"hello")).await;
        assert_eq!(answer.status(), 200, "{answer:?}");
        assert_eq!(answer.header("content-type").as_deref(), Some("application/grpc-web+proto"));
        let parts = messages(&answer.body);
        assert_eq!(parts[0], (0, b"hello".to_vec()));
        assert_eq!((parts.len(), parts[1].0, told(&parts[1].1)), (2, 0x80, trailers.to_vec()));

        // As text, also in several texts with padding each.
        let whole = STANDARD.encode(framed(b"hello"));
        let several = STANDARD.encode(&framed(b"hello")[..4]) + &STANDARD.encode(&framed(b"hello")[4..]);
        for text in [whole, several] {
            let answer = ask(&proxy, "/a.B/C", "application/grpc-web-text", text.as_bytes()).await;
            assert_eq!(answer.header("content-type").as_deref(), Some("application/grpc-web-text"));
            let parts = messages(&decoded(&answer.body));
            assert_eq!(parts[0], (0, b"hello".to_vec()), "{text}");
            assert_eq!(told(&parts[1].1), trailers);
        }
        // Nothing but a status.
        let answer = ask(&proxy, "/a.B/Refuse", "application/grpc-web", &framed(b"x")).await;
        assert_eq!((answer.status(), answer.header("grpc-status").as_deref()), (200, Some("9")));
        assert_eq!(answer.header("content-type").as_deref(), Some("application/grpc-web"));
        assert!(answer.body.is_empty());
    }
}

#[tokio::test]
async fn grpc_web_is_told_failures_as_it_speaks() {
    let proxy = proxy("grpcRoutes", nowhere().await).await;
    let answer = ask(&proxy, "/a.B/C", "application/grpc-web-text+proto", b"AAAAAAA=").await;
    assert_eq!((answer.status(), answer.header("grpc-status").as_deref()), (200, Some("14")));
    assert_eq!(answer.header("content-type").as_deref(), Some("application/grpc-web-text"));
    assert!(answer.header("proxy-status").unwrap().contains("error=connection_refused"));
}

#[tokio::test]
async fn grpc_web_that_is_not_base64_is_refused() {
    let proxy = proxy("grpcRoutes", server("app").await).await;
    for body in ["not base64!!", "AAA"] {
        let answer = ask(&proxy, "/a.B/C", "application/grpc-web-text", body.as_bytes()).await;
        assert_eq!((answer.status(), answer.header("grpc-status").as_deref()), (200, Some("13")), "{body}");
        assert!(answer.header("grpc-message").unwrap().contains("base64"), "{answer:?}");
    }
}

/// Without the filter it is nobody's business: it goes on as it came, in HTTP/1.1.
#[tokio::test]
async fn grpc_web_without_the_filter_goes_on_as_it_is() {
    let app = outrigger_testkit::app::App::builder().start().await;
    let proxy = Running::start(&crate::support::one_backend(&[app.address()])).await;
    let seen = ask(&proxy, "/a.B/C", "application/grpc-web", b"\0\0\0\0\0").await.json();
    assert_eq!((&seen["version"], &seen["body"]["length"]), (&"HTTP/1.1".into(), &5.into()));
}

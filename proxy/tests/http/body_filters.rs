//! The filters Decompression, BodyLimit and Buffer.

use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use outrigger_testkit::app::App;

use crate::codings::encode;
use crate::http2;
use crate::support::{Message, Running, Wire, listen, nowhere, soon, with_rule};

async fn before_an_app(filter: &str) -> (Running, App) {
    let app = App::builder().start().await;
    let rule = format!("filters: [{filter}]");
    (Running::start(&with_rule(&rule, "", &[app.address()])).await, app)
}

async fn post(proxy: &Running, fields: &str, body: &[u8]) -> Message {
    let mut wire = proxy.connect().await;
    let head = format!("POST / HTTP/1.1\r\nHost: shop\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    wire.send([head.as_bytes(), body].concat()).await;
    wire.response().await
}

/// The same in chunks of at most this many bytes.
async fn post_chunks(proxy: &Running, fields: &str, body: &[u8], size: usize) -> Message {
    let mut wire = proxy.connect().await;
    let head = format!("POST / HTTP/1.1\r\nHost: shop\r\n{fields}Transfer-Encoding: chunked\r\n\r\n");
    let mut text = head.into_bytes();
    for chunk in body.chunks(size) {
        text.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        text.extend([chunk, b"\r\n"].concat());
    }
    text.extend(b"0\r\n\r\n");
    wire.try_send(text).await;
    wire.response().await
}

fn header<'a>(seen: &'a serde_json::Value, name: &str) -> Option<&'a str> {
    let fields = seen["headers"].as_array().unwrap().iter();
    fields.filter(|field| field[0] == name).find_map(|field| field[1].as_str())
}

#[tokio::test]
async fn decompression_of_every_coding() {
    let (proxy, _app) = before_an_app("{ type: Decompression }").await;
    let body = "What a caller says, and says again. ".repeat(100);
    for coding in ["gzip", "x-gzip", "br", "zstd", "deflate", "GZIP"] {
        let encoded = encode(&coding.to_lowercase(), body.as_bytes());
        for size in [1, 7, 100_000] {
            let fields = format!("Content-Encoding: {coding}\r\n");
            let seen = post_chunks(&proxy, &fields, &encoded, size).await.json();
            assert_eq!(seen["body"]["text"], body.as_str(), "{coding} in chunks of {size}");
            assert_eq!(header(&seen, "content-encoding"), None);
        }
        let seen = post(&proxy, &format!("Content-Encoding: {coding}\r\n"), &encoded).await.json();
        assert_eq!(seen["body"]["text"], body.as_str(), "{coding}");
        assert_eq!(header(&seen, "content-length"), None, "it would be another");
    }
    // gzip and zstd may come in several members.
    for coding in ["gzip", "zstd"] {
        let twice = [encode(coding, b"one "), encode(coding, b"two")].concat();
        let seen = post(&proxy, &format!("Content-Encoding: {coding}\r\n"), &twice).await.json();
        assert_eq!(seen["body"]["text"], "one two", "{coding}");
    }
    // More than any buffer, which decompresses slowly and fast.
    let large: Vec<u8> =
        (0..1_000_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 12).to_le_bytes()).collect();
    for coding in ["gzip", "br", "zstd", "deflate"] {
        let encoded = encode(coding, &large);
        let seen = post(&proxy, &format!("Content-Encoding: {coding}\r\n"), &encoded).await.json();
        assert_eq!(seen["body"]["length"], large.len(), "{coding}");
    }
}

/// What comes of little: the decoder holds far more than it was given, also at the end.
#[tokio::test]
async fn decompression_of_much_out_of_little() {
    let (proxy, _app) = before_an_app("{ type: Decompression, decompression: { maxRatio: 100000 } }").await;
    for length in [16_384, 65_536, 300_000, 1_000_001] {
        let zeros = vec![0; length];
        for coding in ["gzip", "br", "zstd", "deflate"] {
            let encoded = encode(coding, &zeros);
            for size in [1, 50, 100_000] {
                let fields = format!("Content-Encoding: {coding}\r\n");
                let answer = post_chunks(&proxy, &fields, &encoded, size).await;
                assert_eq!(answer.status(), 200, "{coding}, {length} in chunks of {size}: {answer:?}");
                assert_eq!(answer.json()["body"]["length"], length, "{coding} in chunks of {size}");
            }
        }
    }
}

#[tokio::test]
async fn decompression_leaves_alone_what_it_is_not_for() {
    let (proxy, _app) = before_an_app("{ type: Decompression, decompression: { algorithms: [Gzip] } }").await;
    for coding in ["br", "compress", "gzip, br", "identity"] {
        let seen = post(&proxy, &format!("Content-Encoding: {coding}\r\n"), b"as it is").await.json();
        assert_eq!(seen["body"]["text"], "as it is", "{coding}");
        assert_eq!(header(&seen, "content-encoding"), Some(coding));
        assert_eq!(header(&seen, "content-length"), Some("8"));
    }
    let seen = proxy.ask("GET / HTTP/1.1\r\nHost: shop\r\nContent-Encoding: gzip\r\n\r\n").await.json();
    assert_eq!(seen["body"]["length"], 0);
}

#[tokio::test]
async fn decompression_of_a_bomb_is_refused() {
    for (limits, why) in [
        ("maxBytes: 100000, maxRatio: 1000000", "more than 100000 bytes"),
        ("maxRatio: 20", "more than 20 times"),
    ] {
        let filter = format!("{{ type: Decompression, decompression: {{ {limits} }} }}");
        let (proxy, _app) = before_an_app(&filter).await;
        let zeros = vec![0; 5_000_000];
        for coding in ["gzip", "br", "zstd", "deflate"] {
            let bomb = encode(coding, &zeros);
            let answer = post(&proxy, &format!("Content-Encoding: {coding}\r\n"), &bomb).await;
            assert_eq!(answer.status(), 413, "{coding}: {answer:?}");
            let status = answer.header("proxy-status").unwrap();
            assert!(status.starts_with("outrigger; error=http_request_body_size"), "{status}");
            assert!(status.contains(why), "{status}");
        }
        proxy.metric_is("outrigger_requests_total", &["reason=\"http_request_body_size\""], 4.0).await;
    }
}

#[tokio::test]
async fn decompression_of_what_is_not_what_it_says_is_refused() {
    let (proxy, _app) = before_an_app("{ type: Decompression }").await;
    for coding in ["gzip", "br", "zstd", "deflate"] {
        let whole = encode(coding, &b"some text of a caller ".repeat(20));
        let half = &whole[..whole.len() / 2];
        for body in [b"this is no compressed text at all".as_slice(), half] {
            let answer = post(&proxy, &format!("Content-Encoding: {coding}\r\n"), body).await;
            assert_eq!(answer.status(), 400, "{coding}: {answer:?}");
            let status = answer.header("proxy-status").unwrap();
            assert!(status.contains(&format!("in content coding {coding}")), "{status}");
        }
    }
}

#[tokio::test]
async fn body_limit_of_requests() {
    let (proxy, app) = before_an_app("{ type: BodyLimit, bodyLimit: { requestBytes: 1000 } }").await;
    assert_eq!(post(&proxy, "", &[b'x'; 1000]).await.json()["body"]["length"], 1000);
    assert_eq!(post_chunks(&proxy, "", &[b'x'; 1000], 64).await.json()["body"]["length"], 1000);
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await.status(), 200);
    let before = app.requests();
    // At once, before any of it is sent: no endpoint is asked, and no byte of the body waited for.
    let mut wire = proxy.connect().await;
    wire.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1001\r\n\r\n").await;
    let answer = wire.response().await;
    assert_eq!(answer.status(), 413);
    assert!(answer.header("proxy-status").unwrap().contains("more than 1000 bytes"));
    assert_eq!(app.requests(), before);
    // Where it does not say so itself, once it has.
    let answer = post_chunks(&proxy, "", &[b'x'; 5000], 64).await;
    assert_eq!(answer.status(), 413);
    assert!(answer.header("proxy-status").unwrap().contains("error=http_request_body_size"));
    let mut http2 = http2::caller(&proxy).await;
    let request = http2::post("/", vec![Frame::data(vec![b'x'; 5000].into())]);
    assert_eq!(soon(http2.send_request(request)).await.unwrap().status(), 413);
}

#[tokio::test]
async fn body_limit_of_responses() {
    let (backend, address) = listen().await;
    let rule = "filters: [{ type: BodyLimit, bodyLimit: { responseBytes: 10 } }]";
    let proxy = Running::start(&with_rule(rule, "", &[address])).await;
    for (response, status, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789", 200, "0123456789"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n0123456789x", 502, ""),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n",
            200,
            "0123456789",
        ),
    ] {
        let mut caller = proxy.connect().await;
        caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        let mut callee = Wire::accept(&backend).await;
        callee.request().await;
        callee.send(response).await;
        callee.finish().await;
        let answer = caller.response().await;
        assert_eq!(answer.status(), status, "{response}");
        if status == 200 {
            assert_eq!(answer.text(), body);
        } else {
            let said = answer.header("proxy-status").unwrap();
            assert!(said.contains("error=http_response_body_size"), "{said}");
        }
    }
    // What has begun is broken off, so that nobody takes it for the whole.
    let mut caller = proxy.connect().await;
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    callee.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    assert_eq!(caller.head().await.status(), 200);
    assert_eq!(caller.chunk().await, b"hello");
    callee.send("6\r\n world\r\n0\r\n\r\n").await;
    assert!(!caller.rest().await.ends_with(b"0\r\n\r\n"));
    let reason = ["reason=\"http_response_body_size\""];
    proxy.metric_is("outrigger_requests_total", &reason, 2.0).await;
}

#[tokio::test]
async fn buffer_sends_a_request_once_it_is_there() {
    let (backend, address) = listen().await;
    let rule = "filters: [{ type: Buffer, buffer: { maxBytes: 100 } }]";
    let proxy = Running::start(&with_rule(rule, "", &[address])).await;
    let mut caller = proxy.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    // Nothing comes before the rest does: the backend is not even connected to.
    let early = tokio::time::timeout(std::time::Duration::from_millis(100), backend.accept()).await;
    assert!(early.is_err(), "it came before it was whole");
    caller.send("6\r\n world\r\n0\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    let request = callee.request().await;
    assert_eq!(request.header("content-length").as_deref(), Some("11"));
    assert_eq!(request.header("transfer-encoding"), None);
    assert_eq!(request.text(), "hello world");
    callee.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(caller.response().await.status(), 200);
}

#[tokio::test]
async fn buffer_asks_for_what_a_caller_holds_back() {
    let (proxy, _app) = before_an_app("{ type: Buffer, buffer: { maxBytes: 100 } }").await;
    let mut caller = proxy.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(caller.head().await.status(), 100);
    caller.send("hello").await;
    let seen = caller.response().await.json();
    assert_eq!(seen["body"]["text"], "hello");
    assert_eq!(header(&seen, "expect"), None);
}

#[tokio::test]
async fn buffer_refuses_more_than_its_limit() {
    let nobody = nowhere().await;
    let rule = "filters: [{ type: Buffer, buffer: { maxBytes: 100 } }]";
    let proxy = Running::start(&with_rule(rule, "", &[nobody])).await;
    assert_eq!(post(&proxy, "", &[b'x'; 101]).await.status(), 413);
    assert_eq!(post_chunks(&proxy, "", &[b'x'; 101], 10).await.status(), 413);
    assert_eq!(post_chunks(&proxy, "", &[b'x'; 100], 10).await.status(), 503, "nobody is there");
}

#[tokio::test]
async fn buffer_keeps_trailers_and_decompresses_first() {
    let (proxy, _app) =
        before_an_app("{ type: Buffer, buffer: { maxBytes: 1000 } }, { type: Decompression }").await;
    let seen = post(&proxy, "Content-Encoding: gzip\r\n", &encode("gzip", b"hello")).await.json();
    assert_eq!(seen["body"]["text"], "hello");
    assert_eq!(header(&seen, "content-length"), Some("5"), "of what came of it");
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("7"))]);
    let frames = vec![Frame::data("hello".into()), Frame::trailers(trailers)];
    let mut request = http2::post("/", frames);
    request.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    let response = soon(http2::caller(&proxy).await.send_request(request)).await.unwrap();
    let (_, seen) = http2::read(response).await;
    assert_eq!(seen["trailers"], serde_json::json!([["x-sum", "7"]]));
}

#[tokio::test]
async fn buffer_waits_no_longer_than_the_route() {
    let rule = "filters: [{ type: Buffer, buffer: { maxBytes: 100 } }], timeouts: { request: 100ms }";
    let proxy = Running::start(&with_rule(rule, "", &[nowhere().await])).await;
    let mut caller = proxy.connect().await;
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nhe").await;
    let answer = caller.response().await;
    assert_eq!(answer.status(), 408);
    assert!(answer.header("proxy-status").unwrap().contains("error=http_request_timeout"));
}

//! The filter Compression: what is compressed, for whom, and what is left alone.

use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::BodyExt;
use outrigger_testkit::app::App;
use tokio::net::TcpListener;

use crate::codings::{Decoder, decode};
use crate::http2;
use crate::support::{Message, Running, Wire, listen, soon, with_rule};

/// A proxy that compresses, before an application that is played by the test.
async fn scripted(filter: &str) -> (Running, TcpListener) {
    let (backend, address) = listen().await;
    let filter = if filter.is_empty() { String::new() } else { format!(", compression: {{ {filter} }}") };
    let rule = format!("filters: [{{ type: Compression{filter} }}]");
    (Running::start(&with_rule(&rule, "", &[address])).await, backend)
}

/// One exchange on connections of its own.
async fn exchange(
    proxy: &Running,
    backend: &TcpListener,
    request: &str,
    response: &[u8],
) -> (Message, Message) {
    let mut caller = proxy.connect().await;
    caller.send(request).await;
    let mut callee = Wire::accept(backend).await;
    let asked = callee.request().await;
    callee.send(response).await;
    callee.finish().await;
    let answer = if request.starts_with("HEAD") { caller.head().await } else { caller.response().await };
    (asked, answer)
}

fn text() -> String {
    "A line of text that is very much like the others.\n".repeat(200)
}

fn response(fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn compression_is_what_the_caller_accepts_and_the_route_prefers() {
    let (proxy, backend) = scripted("").await;
    let body = text();
    let plain =
        response("Content-Type: text/html; charset=utf-8\r\nETag: \"v1\"\r\nAccept-Ranges: bytes\r\n", &body);
    for (accepts, coding) in [
        ("gzip", Some("gzip")),
        ("GZIP", Some("gzip")),
        ("br", Some("br")),
        ("zstd", Some("zstd")),
        ("gzip, deflate, br, zstd", Some("zstd")),
        ("gzip;q=1.0, br;q=0.5, zstd;q=0.1", Some("gzip")),
        ("gzip, br;q=0", Some("gzip")),
        ("gzip;q=0", None),
        ("*", Some("zstd")),
        ("*;q=0.5, zstd;q=0", Some("br")),
        ("identity", None),
        ("gzip;q=0.5, identity", None),
        ("gzip, identity;q=0.5", Some("gzip")),
        ("deflate, compress", None),
        ("gzip;q=nonsense", None),
        ("", None),
    ] {
        let request = format!("GET /page HTTP/1.1\r\nHost: shop\r\nAccept-Encoding: {accepts}\r\n\r\n");
        let (asked, answer) = exchange(&proxy, &backend, &request, &plain).await;
        assert_eq!(
            asked.header("accept-encoding").as_deref(),
            Some(accepts),
            "the application sees it as it was"
        );
        assert_eq!(answer.header("content-encoding").as_deref(), coding, "{accepts}");
        assert_eq!(answer.header("vary").as_deref(), Some("accept-encoding"), "{accepts}");
        match coding {
            Some(coding) => {
                assert_eq!(decode(coding, &answer.body), body.as_bytes(), "{accepts}");
                assert!(answer.body.len() < body.len() / 10);
                assert_eq!(answer.header("etag").as_deref(), Some("W/\"v1\""));
                assert_eq!((answer.header("content-length"), answer.header("accept-ranges")), (None, None));
            }
            None => {
                assert_eq!(answer.text(), body);
                assert_eq!(answer.header("etag").as_deref(), Some("\"v1\""));
                assert_eq!(answer.header("accept-ranges").as_deref(), Some("bytes"));
            }
        }
    }
    let (_, answer) = exchange(&proxy, &backend, "GET / HTTP/1.1\r\nHost: shop\r\n\r\n", &plain).await;
    assert_eq!(answer.text(), body, "a caller that says nothing");
    assert_eq!(answer.header("vary").as_deref(), Some("accept-encoding"));
}

#[tokio::test]
async fn compression_leaves_alone_what_it_must() {
    let (proxy, backend) = scripted("").await;
    let body = text();
    let html = "Content-Type: text/html\r\n";
    let long = |fields: &str| response(fields, &body);
    let get = "GET / HTTP/1.1\r\nHost: shop\r\nAccept-Encoding: gzip\r\n\r\n";
    let status = |line: &str, fields: &str| format!("HTTP/1.1 {line}\r\n{fields}\r\n").into_bytes();
    for (what, request, answer) in [
        ("what is encoded already", get, long(&format!("{html}Content-Encoding: br\r\n"))),
        ("no-transform", get, long(&format!("{html}Cache-Control: private, no-transform\r\n"))),
        (
            "no-transform, by the caller",
            "GET / HTTP/1.1\r\nHost: shop\r\nAccept-Encoding: gzip\r\nCache-Control: no-transform\r\n\r\n",
            long(html),
        ),
        ("a digest of the content", get, long(&format!("{html}Content-Digest: sha-256=:AA==:\r\n"))),
        ("an image", get, long("Content-Type: image/png\r\n")),
        ("what has no type", get, long("")),
        ("an event stream", get, long("Content-Type: text/event-stream\r\n")),
        ("gRPC", get, long("Content-Type: application/grpc+proto\r\n")),
        ("what is small", get, response(html, "short")),
        ("a part", get, {
            let head = "HTTP/1.1 206 Partial Content\r\nContent-Type: text/html\r\nContent-Range: bytes 0-";
            format!("{head}{}/90000\r\nContent-Length: {}\r\n\r\n{body}", body.len() - 1, body.len()).into()
        }),
        ("nothing", get, status("204 No Content", html)),
        ("not modified", get, status("304 Not Modified", "ETag: \"v1\"\r\n")),
    ] {
        let (_, received) = exchange(&proxy, &backend, request, &answer).await;
        let sent = String::from_utf8(answer).unwrap();
        let (head, body) = sent.split_once("\r\n\r\n").unwrap();
        assert_eq!(received.text(), body, "{what}");
        for line in head.lines().skip(1) {
            let (name, value) = line.split_once(": ").unwrap();
            assert_eq!(received.header(name).as_deref(), Some(value), "{what}: {name}");
        }
        if !head.contains("Content-Encoding") {
            assert_eq!(received.header("content-encoding"), None, "{what}");
        }
    }
}

#[tokio::test]
async fn compression_by_content_type_size_and_algorithm_as_the_route_says() {
    let (proxy, backend) =
        scripted("algorithms: [Gzip], contentTypes: ['application/*+json', text/csv], minBytes: 10").await;
    let ask = "GET / HTTP/1.1\r\nHost: shop\r\nAccept-Encoding: zstd, br, gzip\r\n\r\n";
    for (kind, body, coding) in [
        ("application/problem+json", "0123456789", Some("gzip")),
        ("Text/CSV; header=present", "0123456789", Some("gzip")),
        ("text/csv", "012345678", None),
        ("application/json", "0123456789", None),
        ("text/html", "0123456789", None),
    ] {
        let answer = response(&format!("Content-Type: {kind}\r\n"), body);
        let (_, received) = exchange(&proxy, &backend, ask, &answer).await;
        assert_eq!(received.header("content-encoding").as_deref(), coding, "{kind}");
    }
}

#[tokio::test]
async fn compression_says_to_head_what_it_says_to_get() {
    let (proxy, backend) = scripted("").await;
    let head = "HEAD / HTTP/1.1\r\nHost: shop\r\nAccept-Encoding: gzip\r\n\r\n";
    let answer =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"v1\"\r\nContent-Length: 5000\r\n\r\n";
    let (_, received) = exchange(&proxy, &backend, head, answer).await;
    assert_eq!(received.header("content-encoding").as_deref(), Some("gzip"));
    assert_eq!(received.header("vary").as_deref(), Some("accept-encoding"));
    assert_eq!(received.header("etag").as_deref(), Some("W/\"v1\""));
    assert_ne!(received.header("content-length").as_deref(), Some("5000"));
    let small = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 50\r\n\r\n";
    let (_, received) = exchange(&proxy, &backend, head, small).await;
    assert_eq!(received.header("content-encoding"), None);
}

/// Without chunks the end of the connection is that of the response.
#[tokio::test]
async fn compression_for_http_1_0() {
    let (proxy, backend) = scripted("").await;
    let get = "GET / HTTP/1.0\r\nHost: shop\r\nAccept-Encoding: gzip\r\n\r\n";
    let (_, received) =
        exchange(&proxy, &backend, get, &response("Content-Type: text/plain\r\n", &text())).await;
    assert_eq!(received.header("content-encoding").as_deref(), Some("gzip"));
    assert_eq!(received.header("transfer-encoding"), None);
    assert_eq!(decode("gzip", &received.body), text().as_bytes());
}

#[tokio::test]
async fn compression_keeps_what_vary_says() {
    let (proxy, backend) = scripted("").await;
    let get = "GET / HTTP/1.1\r\nHost: shop\r\nAccept-Encoding: gzip\r\n\r\n";
    for (said, expected) in [
        ("Vary: Origin\r\n", "Origin, accept-encoding"),
        ("Vary: Origin, Accept-Encoding\r\n", "Origin, Accept-Encoding"),
        ("Vary: *\r\n", "*"),
    ] {
        let answer = response(&format!("Content-Type: text/plain\r\n{said}"), &text());
        let (_, received) = exchange(&proxy, &backend, get, &answer).await;
        assert_eq!(received.header("vary").as_deref(), Some(expected));
    }
}

/// What the application has written is with the caller before it writes more.
#[tokio::test]
async fn compression_holds_nothing_back() {
    let (proxy, backend) = scripted("").await;
    for coding in ["gzip", "br", "zstd"] {
        let mut caller = proxy.connect().await;
        caller.send(format!("GET / HTTP/1.1\r\nHost: shop\r\nAccept-Encoding: {coding}\r\n\r\n")).await;
        let mut callee = Wire::accept(&backend).await;
        callee.request().await;
        callee.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let head = caller.head().await;
        assert_eq!(head.header("content-encoding").as_deref(), Some(coding));
        let (mut decoder, mut sent) = (Decoder::new(coding), String::new());
        for word in ["first", "second", "third"] {
            callee.send(format!("{:x}\r\n{word}\r\n", word.len())).await;
            sent += word;
            loop {
                let chunk = caller.chunk().await;
                assert!(!chunk.is_empty(), "{coding}: the response ended before {word:?}");
                if decoder.take(&chunk) == sent.as_bytes() {
                    break;
                }
            }
        }
        callee.send("0\r\n\r\n").await;
        while !caller.chunk().await.is_empty() {}
    }
}

#[tokio::test]
async fn compression_keeps_trailers() {
    let (backend, address) = listen().await;
    let rule = "filters: [{ type: Compression }]";
    let proxy = Running::start(&with_rule(rule, "", &[address])).await;
    let mut request = http2::get("/");
    request.headers_mut().insert("accept-encoding", HeaderValue::from_static("br"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    let mut http2 = http2::caller(&proxy).await;
    let asked = tokio::spawn(async move {
        let response = soon(http2.send_request(request)).await.unwrap();
        let coding = response.headers().get("content-encoding").cloned();
        (coding, soon(response.collect()).await.unwrap())
    });
    let mut callee = Wire::accept(&backend).await;
    callee.request().await;
    callee.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n").await;
    callee.send("5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n").await;
    let (coding, collected) = asked.await.unwrap();
    assert_eq!(coding.unwrap(), "br");
    let sum: HeaderMap = collected.trailers().unwrap().clone();
    assert_eq!(sum.get("x-sum").unwrap(), "7");
    assert_eq!(decode("br", &collected.to_bytes()), b"hello");
}

/// What is larger than every buffer on the way, and does not compress.
#[tokio::test]
async fn compression_of_much() {
    let app = App::builder().start().await;
    let rule = "filters: [{ type: Compression, compression: { contentTypes: ['application/*'] } }]";
    let proxy = Running::start(&with_rule(rule, "", &[app.address()])).await;
    let mut noise = vec![0; 3_000_000];
    let mut random = 1_u32;
    for byte in &mut noise {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (random >> 24) as u8;
    }
    for coding in ["gzip", "br", "zstd"] {
        let mut request = http2::post("/echo", vec![Frame::data(noise.clone().into())]);
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/x-noise"));
        request.headers_mut().insert("accept-encoding", HeaderValue::from_static(coding));
        let response = soon(http2::caller(&proxy).await.send_request(request)).await.unwrap();
        assert_eq!(response.headers()["content-encoding"], coding);
        let body = soon(response.collect()).await.unwrap().to_bytes();
        assert!(decode(coding, &body) == noise, "{coding}");
    }
}

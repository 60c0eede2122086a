//! WebSockets over HTTP/2 (RFC 8441), and back.

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use http::Request;

use crate::peer::{Callee, caller, part, read, request, response};
use crate::support::{Running, Wire, listen, nowhere, one_backend, soon, with_rule};

/// A caller that knows that the proxy takes extended CONNECT.
async fn knowing(proxy: &Running) -> SendRequest<Bytes> {
    let caller = caller(proxy).await;
    assert!(crate::support::poll(|| caller.is_extended_connect_protocol_enabled()).await);
    caller
}

fn websocket(path: &str) -> Request<()> {
    let fields =
        [("sec-websocket-version", "13"), ("sec-websocket-protocol", "chat"), ("origin", "http://shop")];
    let mut request = request("CONNECT", path, &fields);
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    request
}

fn offers() -> h2::server::Builder {
    let mut settings = h2::server::Builder::new();
    settings.enable_connect_protocol();
    settings
}

#[tokio::test]
async fn a_websocket_over_http_2_is_an_upgrade_for_a_backend_of_http_1() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&one_backend(&[address])).await;
    let (answer, mut up) = knowing(&proxy).await.send_request(websocket("/chat?room=1"), false).unwrap();
    let mut callee = Wire::accept(&backend).await;
    let received = callee.head().await;
    assert!(received.head.starts_with("GET /chat?room=1 HTTP/1.1\r\n"), "{}", received.head);
    for (name, value) in [
        ("host", "shop"),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("origin", "http://shop"),
    ] {
        assert_eq!(received.header(name).as_deref(), Some(value), "{name}");
    }
    let key = http::HeaderValue::try_from(received.header("sec-websocket-key").unwrap()).unwrap();
    let accept = outrigger_http::websocket::accept(&key);
    callee
        .send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: chat\r\n\r\nhello",
            accept.to_str().unwrap()
        ))
        .await;
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    let names: Vec<_> = answer.headers().keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["sec-websocket-protocol"]);
    let mut down = answer.into_body();
    assert_eq!(part(&mut down).await, "hello");
    up.send_data(Bytes::from_static(b"\x00\xff"), false).unwrap();
    assert_eq!(callee.exactly(2).await, [0, 255]);
    // Each half closes on its own.
    up.send_data(Bytes::new(), true).unwrap();
    assert!(callee.closed().await);
    callee.send("last").await;
    callee.finish().await;
    assert_eq!(read(&mut down).await.unwrap().0, b"last");
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn a_backend_that_does_not_answer_the_key_is_a_502() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        // To an extended CONNECT, this would be consent.
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        let (backend, address) = listen().await;
        let proxy = Running::start(&one_backend(&[address])).await;
        let (response, _up) = knowing(&proxy).await.send_request(websocket("/"), false).unwrap();
        let mut callee = Wire::accept(&backend).await;
        callee.head().await;
        callee.send(answer).await;
        let response = soon(response).await.unwrap();
        assert_eq!(response.status(), 502);
        let why = response.headers()["proxy-status"].to_str().unwrap();
        assert!(why.contains("error=http_upgrade_failed"), "{why}");
        assert!(callee.closed().await);
    }
}

#[tokio::test]
async fn a_websocket_that_is_declined_is_the_backends_answer() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&one_backend(&[address])).await;
    let (answer, _up) = knowing(&proxy).await.send_request(websocket("/"), false).unwrap();
    let mut callee = Wire::accept(&backend).await;
    callee.head().await;
    callee.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(read(&mut answer.into_body()).await.unwrap().0, b"no");
}

#[tokio::test]
async fn a_websocket_over_http_2_stays_one_for_a_backend_that_takes_it() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
    let (answer, mut up) = knowing(&proxy).await.send_request(websocket("/chat"), false).unwrap();
    let mut callee = Callee::accept(&backend, &offers()).await;
    let (mut received, mut respond) = callee.next().await;
    assert_eq!(received.method(), "CONNECT");
    assert_eq!(received.uri(), "http://shop/chat");
    assert_eq!(received.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
    let names: Vec<_> = received.headers().keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["sec-websocket-version", "sec-websocket-protocol", "origin"]);
    let mut down =
        respond.send_response(response(200, &[("sec-websocket-protocol", "chat")]), false).unwrap();
    let answer = soon(answer).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().len()), (200, 1));
    let mut heard = answer.into_body();
    up.send_data(Bytes::from_static(b"ping"), false).unwrap();
    assert_eq!(part(received.body_mut()).await, "ping");
    down.send_data(Bytes::from_static(b"pong"), true).unwrap();
    assert_eq!(read(&mut heard).await.unwrap().0, b"pong");
    // A reset is not taken for an end.
    up.send_reset(h2::Reason::CANCEL);
    assert!(read(received.body_mut()).await.is_err());
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn an_upgrade_of_http_1_is_extended_connect_for_a_backend_that_takes_it() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
    let mut caller = proxy.connect().await;
    caller
        .send(
            "GET /chat HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )
        .await;
    let mut callee = Callee::accept(&backend, &offers()).await;
    let (mut received, mut respond) = callee.next().await;
    assert_eq!(received.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
    assert_eq!(received.headers().get("sec-websocket-key"), None);
    let mut down = respond.send_response(response(200, &[]), false).unwrap();
    let answer = caller.head().await;
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.header("upgrade").as_deref(), Some("WebSocket"));
    assert_eq!(answer.header("sec-websocket-accept").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    caller.send("ping").await;
    assert_eq!(part(received.body_mut()).await, "ping");
    down.send_data(Bytes::from_static(b"pong"), true).unwrap();
    assert_eq!(caller.exactly(4).await, b"pong");
    caller.finish().await;
    assert_eq!(read(received.body_mut()).await.unwrap().0, b"");
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn an_upgrade_to_anything_else_is_not_asked_of_a_backend_of_http_2() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
    let mut caller = proxy.connect().await;
    let mut callee = None;
    for upgrade in ["foo/2", "h2c", "foo, websocket"] {
        caller
            .send(format!(
                "GET / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n"
            ))
            .await;
        if callee.is_none() {
            callee = Some(Callee::accept(&backend, &offers()).await);
        }
        let (received, mut respond) = callee.as_mut().unwrap().next().await;
        assert_eq!(
            (received.method().as_str(), received.headers().get("upgrade")),
            ("GET", None),
            "{upgrade}"
        );
        respond.send_response(response(204, &[]), true).unwrap();
        assert_eq!(caller.response().await.status(), 204, "{upgrade}");
    }
}

#[tokio::test]
async fn a_connect_that_a_backend_of_http_2_refuses_is_answered_as_it_says() {
    let (backend, address) = listen().await;
    let connect = "matches: [{ method: CONNECT }]";
    let proxy = Running::start(&with_rule(connect, "protocol: H2C", &[address])).await;
    let mut caller = proxy.connect().await;
    caller.send("CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n").await;
    let mut callee = Callee::accept(&backend, &offers()).await;
    let (received, mut respond) = callee.next().await;
    let mut body = respond.send_response(response(403, &[]), false).unwrap();
    body.send_data(Bytes::from_static(b"no"), true).unwrap();
    // The stream is over for the backend, whatever of the tunnel there may be still.
    drop((received, respond, body));
    let answer = caller.response().await;
    assert_eq!((answer.status(), answer.body.as_slice()), (403, &b"no"[..]));
}

#[tokio::test]
async fn a_backend_that_does_not_take_extended_connect_is_a_502() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
    let (answer, _up) = knowing(&proxy).await.send_request(websocket("/"), false).unwrap();
    let _callee = Callee::accept(&backend, &h2::server::Builder::new()).await;
    let answer = soon(answer).await.unwrap();
    assert_eq!(answer.status(), 502);
    let why = answer.headers()["proxy-status"].to_str().unwrap();
    assert!(why.contains("error=http_upgrade_failed") && why.contains("extended CONNECT"), "{why}");
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_a_503_for_a_websocket_too() {
    let proxy = Running::start(&one_backend(&[nowhere().await])).await;
    let (answer, _up) = knowing(&proxy).await.send_request(websocket("/"), false).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 503);
}

#[tokio::test]
async fn no_protocol_leads_past_the_routes() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&one_backend(&[address])).await;
    let mut caller = knowing(&proxy).await;
    for protocol in ["h2c", "H2C", "websocket, h2c", "websocket,h2c", ""] {
        let mut request = request("CONNECT", "/", &[("http2-settings", "AAMAAABkAAQAAP__")]);
        request.extensions_mut().insert(Protocol::from(protocol));
        let Ok((answer, _up)) = caller.send_request(request, false) else { continue };
        let mut callee = Wire::accept(&backend).await;
        let named = callee.head().await.header("upgrade").unwrap();
        assert!(!named.to_ascii_lowercase().contains("h2c"), "{named}");
        callee.send("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(soon(answer).await.unwrap().status(), 400);
        assert!(callee.closed().await);
    }
}

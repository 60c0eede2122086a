//! GRPCRoutes, and what the proxy itself answers to calls of gRPC.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use outrigger_telemetry::AccessLog;
use outrigger_testkit::app::App;
use tokio::net::TcpListener;

use crate::http2;
use crate::support::{Running, nowhere, poll, soon};

/// A call, as gRPC frames it.
fn call(path: &str, message: &[u8]) -> Request<http2::Body> {
    let mut request = http2::post(path, vec![Frame::data(framed(message))]);
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc+proto"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    request
}

/// A message with its length, not compressed.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat().into()
}

/// A response of gRPC: its HTTP status, header, body and trailers.
#[derive(Debug)]
struct Answer {
    http: u16,
    header: HeaderMap,
    body: Bytes,
    trailers: HeaderMap,
}

impl Answer {
    fn field(&self, name: &str) -> &str {
        let value = self.trailers.get(name).or_else(|| self.header.get(name));
        value.map_or("", |value| value.to_str().unwrap())
    }

    fn status(&self) -> &str {
        self.field("grpc-status")
    }
}

async fn ask(proxy: &Running, path: &str) -> Answer {
    ask_with(proxy, call(path, b"hello")).await
}

async fn ask_with(proxy: &Running, request: Request<http2::Body>) -> Answer {
    let response = soon(http2::caller(proxy).await.send_request(request)).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = soon(body.collect()).await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    Answer { http: parts.status.as_u16(), header: parts.headers, body: body.to_bytes(), trailers }
}

/// A server of gRPC that echoes each message, and says in the trailers which path was asked for. The method `Refuse` is
/// answered by trailers alone.
pub(crate) async fn server(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // What speaks HTTP/1.1 to it gets nothing.
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(serve(name, request, respond));
                }
            });
        }
    });
    address
}

async fn serve(name: &'static str, request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
    let (parts, mut body) = request.into_parts();
    let kind = parts.headers.get("content-type").cloned().unwrap();
    let response = Response::builder().header("content-type", kind).header("x-server", name);
    if parts.uri.path().ends_with("/Refuse") {
        let response = response.header("grpc-status", "9").header("grpc-message", "no").body(()).unwrap();
        respond.send_response(response, true).unwrap();
        return;
    }
    if parts.uri.path().starts_with("/small/") {
        // Its answer must not come before what is wrong with the call is seen.
        while body.data().await.is_some_and(|data| data.is_ok()) {}
    }
    let Ok(mut send) = respond.send_response(response.body(()).unwrap(), false) else { return };
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        // The proxy may have reset the stream.
        if send.send_data(data, false).is_err() {
            return;
        }
    }
    if parts.uri.path().ends_with("/Stall") {
        std::future::pending::<()>().await;
    }
    let saw = parts.headers.get("x-asked").cloned().unwrap_or(HeaderValue::from_static("none"));
    let te = parts.headers.get("te").cloned().unwrap_or(HeaderValue::from_static("none"));
    let trailers = HeaderMap::from_iter([
        ("grpc-status".parse().unwrap(), HeaderValue::from_static("0")),
        ("x-path".parse().unwrap(), HeaderValue::from_str(parts.uri.path()).unwrap()),
        ("x-te".parse().unwrap(), te),
        ("x-saw".parse().unwrap(), saw),
    ]);
    let _ = send.send_trailers(trailers);
}

fn config(routes: &str, backends: &[(&str, SocketAddr)]) -> String {
    let backends: String = backends
        .iter()
        .map(|(name, at)| format!("  - {{ name: {name}, endpoints: [{{ address: '{at}' }}] }}\n"))
        .collect();
    format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]\n{routes}backends:\n{backends}"
    )
}

#[tokio::test]
async fn grpc_route_by_service_method_and_header() {
    let (a, b, c) = (server("a").await, server("b").await, server("c").await);
    let pages = App::builder().name("pages").start().await;
    let proxy = Running::start(&config(
        "httpRoutes: [{ name: pages, listeners: [web], rules: [{ backendRefs: [{ name: pages }] }] }]
grpcRoutes:
  - name: calls
    listeners: [web]
    hostnames: [shop]
    rules:
      - matches: [{ method: { service: shop.Cart } }]
        backendRefs: [{ name: a }]
      - matches: [{ method: { service: shop.Cart, method: Add } }]
        backendRefs: [{ name: b }]
      - matches: [{ method: { type: RegularExpression, service: 'shop[.].*', method: 'Get.*' } }]
        backendRefs: [{ name: c }]
      - matches: [{ method: { service: shop.Cart }, headers: [{ name: x-env, value: canary }] }]
        filters: [{ type: ResponseHeaderModifier, responseHeaderModifier: { set: [{ name: x-canary, value: '1' }] } }]
        backendRefs: [{ name: c }]
",
        &[("a", a), ("b", b), ("c", c), ("pages", pages.address())],
    ))
    .await;
    for (path, server) in [
        ("/shop.Cart/Remove", "a"),
        ("/shop.Cart/Add", "b"),
        ("/shop.Stock/GetAll", "c"),
        ("/shop.Cart/GetAll", "c"),
    ] {
        let answer = ask(&proxy, path).await;
        assert_eq!((answer.http, answer.status(), answer.field("x-server")), (200, "0", server), "{path}");
        assert_eq!(answer.field("x-path"), path);
        assert_eq!(answer.field("x-te"), "trailers");
        assert_eq!(answer.body, framed(b"hello"));
        assert_eq!(answer.header["content-type"], "application/grpc+proto");
    }
    let mut canary = call("/shop.Cart/Remove", b"x");
    canary.headers_mut().insert("x-env", HeaderValue::from_static("canary"));
    let answer = ask_with(&proxy, canary).await;
    assert_eq!((answer.field("x-server"), answer.field("x-canary")), ("c", "1"));
    // A status that the server says stays its own.
    let answer = ask(&proxy, "/shop.Cart/Refuse").await;
    assert_eq!((answer.http, answer.status(), answer.field("grpc-message")), (200, "9", "no"));
    // Calls that no rule takes, of this host, are the proxy's to answer; what is no call goes to the pages.
    let answer = ask(&proxy, "/other.Service/Call").await;
    assert_eq!((answer.http, answer.status()), (200, "12"), "{answer:?}");
}

/// What the proxy answers itself is gRPC to who speaks gRPC.
#[tokio::test]
async fn grpc_status_in_answers_the_proxy_makes() {
    let (nobody, app) = (nowhere().await, server("app").await);
    let hangs = App::builder().start().await;
    let log = Lines::default();
    let yaml = config(
        "grpcRoutes:
  - name: calls
    listeners: [web]
    rules:
      - matches: [{ method: { method: Stall } }]
        timeouts: { request: 200ms }
        backendRefs: [{ name: app }]
      - matches: [{ method: { service: down } }]
        backendRefs: [{ name: nobody }]
      - matches: [{ method: { service: hang } }]
        timeouts: { request: 200ms }
        backendRefs: [{ name: hangs }]
      - matches: [{ method: { service: gone } }]
        backendRefs: [{ name: gone }]
      - matches: [{ method: { service: none } }]
      - matches: [{ method: { service: small } }]
        filters: [{ type: BodyLimit, bodyLimit: { requestBytes: 5 } }]
        backendRefs: [{ name: app }]
      - matches: [{ method: { service: well } }]
        backendRefs: [{ name: app }]
",
        &[("nobody", nobody), ("app", app), ("hangs", hangs.address())],
    );
    let access_log = AccessLog::to(Box::new(log.clone()));
    let proxy = Running::start_with(&yaml, |options| options.access_log = access_log).await;
    for (path, status, reason) in [
        ("/down/Call", "14", "connection_refused"),
        ("/hang/Call", "4", "http_response_timeout"),
        ("/gone/Call", "14", "destination_unavailable"),
        ("/none/Call", "2", "proxy_configuration_error"),
        ("/small/Call", "8", "http_request_body_size"),
        ("/nowhere/Call", "12", "destination_not_found"),
    ] {
        let answer = ask(&proxy, path).await;
        assert_eq!((answer.http, answer.status()), (200, status), "{path}: {answer:?}");
        assert_eq!(answer.header["content-type"], "application/grpc");
        assert!(answer.field("grpc-message").starts_with(reason), "{answer:?}");
        assert!(answer.trailers.is_empty() && answer.body.is_empty(), "trailers alone: {answer:?}");
        let proxy_status = answer.header["proxy-status"].to_str().unwrap();
        assert!(proxy_status.starts_with(&format!("outrigger; error={reason}")), "{proxy_status}");
        let reason = format!("reason=\"{reason}\"");
        proxy.metric_is("outrigger_requests_total", &["code=\"200\"", &reason], 1.0).await;
        let wanted = format!("\"path\":\"{path}\"");
        assert!(poll(|| log.with(&wanted).is_some()).await, "{path} is logged");
        let line = log.with(&wanted).unwrap();
        assert_eq!(
            (&line["status"], &line["grpcStatus"]),
            (&200.into(), &status.parse::<u16>().unwrap().into())
        );
        assert!(reason.contains(line["reason"].as_str().unwrap()), "{line}");
    }
    // A response that has begun ends with the status.
    let answer = ask(&proxy, "/a.B/Stall").await;
    assert_eq!((answer.body.clone(), answer.status()), (framed(b"hello"), "4"), "{answer:?}");
    assert!(answer.trailers.contains_key("grpc-message"), "{answer:?}");
    assert!(poll(|| log.with("/a.B/Stall").is_some()).await);
    let line = log.with("/a.B/Stall").unwrap();
    assert_eq!((&line["grpcStatus"], &line["reason"]), (&4.into(), &"http_response_timeout".into()));
    // The application's own are logged too, out of the trailers or the header.
    for (path, status) in [("/well/Call", 0), ("/well/Refuse", 9)] {
        assert_eq!(ask(&proxy, path).await.status(), status.to_string());
        let wanted = format!("\"path\":\"{path}\"");
        assert!(poll(|| log.with(&wanted).is_some()).await);
        let line = log.with(&wanted).unwrap();
        assert_eq!((&line["grpcStatus"], line.get("reason")), (&status.into(), None));
    }
}

/// An access log that a test can read.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// The line that contains this text.
    pub(crate) fn with(&self, text: &str) -> Option<serde_json::Value> {
        let bytes = self.0.lock().unwrap().clone();
        let all = String::from_utf8(bytes).unwrap();
        let line = all.lines().find(|line| line.contains(text) && line.ends_with('}'))?;
        Some(serde_json::from_str(line).unwrap())
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn grpc_route_refuses_calls_over_http_1_1() {
    let app = server("app").await;
    let proxy = Running::start(&config(
        "grpcRoutes: [{ name: calls, listeners: [web], rules: [{ backendRefs: [{ name: app }] }] }]\n",
        &[("app", app)],
    ))
    .await;
    let ask = "POST /a.B/C HTTP/1.1\r\nHost: shop\r\nContent-Type: application/grpc\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0";
    let answer = proxy.ask(ask).await;
    assert_eq!(answer.status(), 505);
    let status = answer.header("proxy-status").unwrap();
    assert!(status.starts_with("outrigger; error=http_version_not_supported"), "{status}");
    // What is no call at all is not the route's.
    assert_eq!(proxy.ask("GET /a.B/C HTTP/1.1\r\nHost: shop\r\n\r\n").await.status(), 404);
}

/// Both ways at once: each message is answered before the next is sent.
#[tokio::test]
async fn grpc_route_streams_both_ways() {
    let app = server("app").await;
    let proxy = Running::start(&config(
        "grpcRoutes: [{ name: calls, listeners: [web], rules: [{ backendRefs: [{ name: app }] }] }]\n",
        &[("app", app)],
    ))
    .await;
    let stream = tokio::net::TcpStream::connect(proxy.at("web")).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://shop/a.B/Chat")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut send) = client.ready().await.unwrap().send_request(request, false).unwrap();
    send.send_data(framed(b"one"), false).unwrap();
    let mut body = soon(response).await.unwrap().into_body();
    assert_eq!(soon(body.data()).await.unwrap().unwrap(), framed(b"one"));
    send.send_data(framed(b"two"), false).unwrap();
    assert_eq!(soon(body.data()).await.unwrap().unwrap(), framed(b"two"));
    send.send_data(Bytes::new(), true).unwrap();
    assert!(soon(body.data()).await.is_none());
    assert_eq!(soon(body.trailers()).await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn grpc_route_header_modifiers_and_mirror() {
    let (app, copy) = (server("app").await, server("copy").await);
    let proxy = Running::start(&config(
        "grpcRoutes:
  - name: calls
    listeners: [web]
    rules:
      - filters:
          - { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-asked, value: '1' }] } }
          - { type: ResponseHeaderModifier, responseHeaderModifier: { add: [{ name: x-rule, value: '2' }] } }
          - { type: RequestMirror, requestMirror: { backendRef: { name: copy } } }
        backendRefs:
          - name: app
            filters: [{ type: ResponseHeaderModifier, responseHeaderModifier: { add: [{ name: x-share, value: '3' }] } }]
",
        &[("app", app), ("copy", copy)],
    ))
    .await;
    let answer = ask(&proxy, "/a.B/C").await;
    assert_eq!((answer.status(), answer.field("x-server")), ("0", "app"));
    assert_eq!((answer.field("x-rule"), answer.field("x-share"), answer.field("x-saw")), ("2", "3", "1"));
    let mirrored = ["backend=\"copy\"", "result=\"ok\""];
    proxy.metric_is("outrigger_mirrored_requests_total", &mirrored, 1.0).await;
}

#[tokio::test]
async fn grpc_route_session_persistence() {
    let (a, b) = (server("a").await, server("b").await);
    let routes = "grpcRoutes:
  - name: calls
    listeners: [web]
    rules:
      - sessionPersistence: { type: Header, sessionName: x-session }
        backendRefs: [{ name: a }, { name: b }]
";
    let proxy = Running::start(&config(routes, &[("a", a), ("b", b)])).await;
    let first = ask(&proxy, "/a.B/C").await;
    let token = first.header["x-session"].clone();
    for _ in 0..8 {
        let mut again = call("/a.B/C", b"x");
        again.headers_mut().insert("x-session", token.clone());
        let answer = ask_with(&proxy, again).await;
        assert_eq!(answer.field("x-server"), first.field("x-server"));
    }
}

//! Requests that pass if another service says so.

use std::net::SocketAddr;

use outrigger_testkit::app::App;

use crate::http2;
use crate::support::{Message, Running, Wire, listen, nowhere, soon};

async fn guarded(auth: SocketAddr, app: SocketAddr, http: &str) -> Running {
    let yaml = format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]
httpRoutes:
  - name: all
    listeners: [web]
    rules:
      - filters:
          - type: ExternalAuth
            externalAuth: {{ protocol: HTTP, backendRef: {{ name: auth }}{http} }}
        backendRefs: [{{ name: app }}]
        timeouts: {{ request: 5s }}
backends:
  - {{ name: app, endpoints: [{{ address: '{app}' }}] }}
  - {{ name: auth, endpoints: [{{ address: '{auth}' }}] }}
"
    );
    Running::start(&yaml).await
}

/// Sends a request, lets the service answer, and says what it was asked and what the application then got.
async fn passed(http: &str, request: &str, verdict: &str) -> (Message, Message) {
    let ((auth, auth_at), (app, app_at)) = (listen().await, listen().await);
    let proxy = guarded(auth_at, app_at, http).await;
    let mut caller = proxy.connect().await;
    caller.send(request).await;
    let mut service = Wire::accept(&auth).await;
    let question = service.request().await;
    service.send(verdict).await;
    (question, Wire::accept(&app).await.request().await)
}

const POST: &str = "POST /a//b?c HTTP/1.1\r\nHost: shop:81\r\nAuthorization: Basic x\r\nCookie: a=b\r\nX-User: root\r\n\
                    Content-Length: 2\r\n\r\nhi";

#[tokio::test]
async fn http_route_external_auth() {
    let verdict = "HTTP/1.1 200 OK\r\nX-User: ann\r\nX-Other: 1\r\nContent-Length: 2\r\n\r\nok";
    let (question, request) = passed("", POST, verdict).await;
    assert!(question.head.starts_with("POST /a//b?c HTTP/1.1\r\n"), "{}", question.head);
    assert_eq!(question.header("host").as_deref(), Some("shop:81"));
    assert_eq!(question.header("authorization").as_deref(), Some("Basic x"));
    assert_eq!((question.header("content-length").as_deref(), question.header("cookie")), (Some("0"), None));
    assert_eq!((request.text(), request.header("x-user").as_deref()), ("hi", Some("ann")));
    assert_eq!(
        (request.header("x-other").as_deref(), request.header("cookie").as_deref()),
        (Some("1"), Some("a=b"))
    );
}

#[tokio::test]
async fn http_route_external_auth_headers_and_path() {
    let http = ", http: { path: /check/, allowedHeaders: [Cookie], allowedResponseHeaders: [X-User] }";
    let verdict = "HTTP/1.1 200 OK\r\nX-Other: 1\r\nContent-Length: 0\r\n\r\n";
    let (question, request) = passed(http, POST, verdict).await;
    assert!(question.head.starts_with("POST /check/a//b?c HTTP/1.1\r\n"), "{}", question.head);
    assert_eq!((question.header("cookie").as_deref(), question.header("x-user")), (Some("a=b"), None));
    // What only the service may say, the caller did not say instead.
    assert_eq!((request.header("x-user"), request.header("x-other")), (None, None));
}

/// A caller cannot have the service's word taken off as if it were its connection's.
#[tokio::test]
async fn http_route_external_auth_headers_are_not_the_callers_to_take_off() {
    let request = "GET / HTTP/1.1\r\nHost: shop\r\nConnection: x-user\r\n\r\n";
    let verdict = "HTTP/1.1 200 OK\r\nX-User: ann\r\nContent-Length: 0\r\n\r\n";
    let (_, request) = passed("", request, verdict).await;
    assert_eq!(request.header("x-user").as_deref(), Some("ann"));
}

#[tokio::test]
async fn http_route_external_auth_denied() {
    let ((auth, auth_at), app) = (listen().await, App::builder().start().await);
    let proxy = guarded(auth_at, app.address(), "").await;
    let mut caller = proxy.connect().await;
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let mut service = Wire::accept(&auth).await;
    for (status, location) in
        [("401 Unauthorized", ""), ("302 Found", "Location: https://login.example/\r\n")]
    {
        service.request().await;
        service.send(format!("HTTP/1.1 {status}\r\n{location}Content-Length: 4\r\n\r\nno!\n")).await;
        let answer = caller.response().await;
        assert_eq!((answer.status().to_string().as_str(), answer.text()), (&status[..3], "no!\n"));
        assert_eq!(answer.header("location").is_some(), !location.is_empty());
        let says = answer.header("proxy-status").unwrap();
        assert_eq!(says, "outrigger; error=http_request_denied; details=\"by backend auth\"");
        caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    }
    proxy
        .metric_is("outrigger_requests_total", &["reason=\"http_request_denied\"", "code=\"401\""], 1.0)
        .await;
    assert_eq!(app.requests(), 0);
}

/// A call of gRPC is told in its own words.
#[tokio::test]
async fn http_route_external_auth_of_a_grpc_call() {
    let ((auth, auth_at), app) = (listen().await, App::builder().start().await);
    let proxy = guarded(auth_at, app.address(), "").await;
    let mut call = http2::get("/shop.Cart/Add");
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let mut caller = http2::caller(&proxy).await;
    let service = async {
        let mut service = Wire::accept(&auth).await;
        service.request().await;
        service.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n").await;
    };
    let (answer, ()) = tokio::join!(soon(caller.send_request(call)), service);
    let answer = answer.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &"7".parse().unwrap()));
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn http_route_external_auth_fails_closed() {
    let app = App::builder().start().await;
    let proxy = guarded(nowhere().await, app.address(), "").await;
    let answer = soon(http2::caller(&proxy).await.send_request(http2::get("/"))).await.unwrap();
    let says = answer.headers()["proxy-status"].to_str().unwrap();
    assert_eq!(answer.status(), 503);
    assert!(says.contains("error=connection_refused; details=\"authorization by backend auth: "), "{says}");
    let text = std::fs::read_to_string(&proxy.file).unwrap().replace("{ name: auth }", "{ name: nobody }");
    let proxy = Running::start(&text).await;
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await.status(), 503);
    assert_eq!(app.requests(), 0);
}

/// What the service has no business to say does not reach the caller.
#[tokio::test]
async fn http_route_external_auth_of_a_service_out_of_its_mind() {
    let ((auth, auth_at), app) = (listen().await, App::builder().start().await);
    let proxy = guarded(auth_at, app.address(), "").await;
    for (verdict, status) in [
        ("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", 502),
        (
            "HTTP/1.1 503 No\r\nConnection: close\r\nOutrigger-Unreached: connection_refused\r\nContent-Length: 0\r\n\r\n",
            503,
        ),
    ] {
        let mut caller = proxy.connect().await;
        caller.send("GET / HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").await;
        let mut service = Wire::accept(&auth).await;
        service.request().await;
        service.send(verdict).await;
        let answer = caller.response().await;
        assert_eq!((answer.status(), answer.header("outrigger-unreached")), (status, None));
        assert!(service.closed().await);
    }
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
    assert_eq!(app.requests(), 0);
}

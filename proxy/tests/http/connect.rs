//! CONNECT (RFC 9110, section 9.3.6): the application behind the proxy is the one that connects.

use bytes::Bytes;
use http::Request;

use crate::peer::{Callee, caller, part, read, response};
use crate::support::{PLAIN, Running, Wire, listen, soon};

/// A proxy that takes CONNECT for one host, and everything else for all.
async fn proxy(backend: &str, address: std::net::SocketAddr) -> Running {
    let yaml = format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', {PLAIN}, protocol: HTTP }}]\n\
         httpRoutes:\n\
         - {{ name: out, listeners: [web], hostnames: [db.example], rules: [{{ matches: [{{ method: CONNECT }}], \
         backendRefs: [{{ name: app }}] }}] }}\n\
         - {{ name: all, listeners: [web], rules: [{{ backendRefs: [{{ name: app }}] }}] }}\n\
         backends: [{{ name: app, endpoints: [{{ address: '{address}' }}]{backend} }}]\n"
    );
    Running::start(&yaml).await
}

fn connect(to: &'static str) -> Request<()> {
    Request::connect(to).header("proxy-authorization", "basic eA==").body(()).unwrap()
}

#[tokio::test]
async fn connect_passes_from_http_1_to_http_1_as_it_is() {
    let (backend, address) = listen().await;
    let proxy = proxy("", address).await;
    let mut caller = proxy.connect().await;
    caller.send("CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\nX-A: 1\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    let received = callee.head().await;
    assert!(received.head.starts_with("CONNECT db.example:5432 HTTP/1.1\r\n"), "{}", received.head);
    assert_eq!(received.header("host").as_deref(), Some("db.example:5432"));
    assert_eq!((received.header("x-a").as_deref(), received.header("connection")), (Some("1"), None));
    callee.send("HTTP/1.1 200 Connected\r\nX-B: 1\r\n\r\nfirst").await;
    let answer = caller.head().await;
    assert_eq!((answer.status(), answer.header("x-b").as_deref()), (200, Some("1")));
    assert_eq!(caller.exactly(5).await, b"first");
    caller.send([0, 255]).await;
    assert_eq!(callee.exactly(2).await, [0, 255]);
    caller.finish().await;
    assert!(callee.closed().await);
    callee.send("last").await;
    callee.finish().await;
    assert_eq!(caller.rest().await, b"last");
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn connect_that_is_declined_is_the_applications_answer() {
    let (backend, address) = listen().await;
    let proxy = proxy("", address).await;
    let mut caller = proxy.connect().await;
    caller.send("CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n").await;
    let mut callee = Wire::accept(&backend).await;
    callee.head().await;
    callee.send("HTTP/1.1 407 Who are you\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = caller.response().await;
    assert_eq!((answer.status(), answer.text()), (407, "no"));
}

#[tokio::test]
async fn connect_passes_between_the_versions() {
    let (backend, address) = listen().await;
    let running = proxy("", address).await;
    let (answer, mut up) = caller(&running).await.send_request(connect("db.example:5432"), false).unwrap();
    let mut callee = Wire::accept(&backend).await;
    let received = callee.head().await;
    assert!(received.head.starts_with("CONNECT db.example:5432 HTTP/1.1\r\n"), "{}", received.head);
    assert_eq!(received.header("host").as_deref(), Some("db.example:5432"));
    callee.send("HTTP/1.1 200 OK\r\n\r\nfirst").await;
    let mut down = soon(answer).await.unwrap().into_body();
    assert_eq!(part(&mut down).await, "first");
    up.send_data(Bytes::from_static(b"hello"), true).unwrap();
    assert_eq!(callee.exactly(5).await, b"hello");
    assert!(callee.closed().await);
    callee.finish().await;
    assert_eq!(read(&mut down).await.unwrap().0, b"");

    let (backend, address) = listen().await;
    let running = proxy(", protocol: H2C", address).await;
    let mut http1 = running.connect().await;
    http1.send("CONNECT db.example:5432 HTTP/1.1\r\nHost: db.example:5432\r\n\r\n").await;
    let mut callee = Callee::accept(&backend, &h2::server::Builder::new()).await;
    let (mut received, mut respond) = callee.next().await;
    assert_eq!(
        (received.method().as_str(), received.uri().to_string()),
        ("CONNECT", "db.example:5432".into())
    );
    let mut down = respond.send_response(response(200, &[]), false).unwrap();
    assert_eq!(http1.head().await.status(), 200);
    http1.send("hello").await;
    assert_eq!(part(received.body_mut()).await, "hello");
    down.send_data(Bytes::from_static(b"bye"), true).unwrap();
    assert_eq!(http1.exactly(3).await, b"bye");
    http1.finish().await;
    assert_eq!(read(received.body_mut()).await.unwrap().0, b"");
}

#[tokio::test]
async fn connect_is_taken_only_where_a_route_says_so() {
    let (_backend, address) = listen().await;
    let proxy = proxy("", address).await;
    let answer = proxy.ask("CONNECT other.example:80 HTTP/1.1\r\nHost: other.example:80\r\n\r\n").await;
    assert_eq!(answer.status(), 404);
    assert!(answer.header("proxy-status").unwrap().contains("CONNECT"), "{}", answer.head);
    let (answer, _up) = caller(&proxy).await.send_request(connect("other.example:80"), false).unwrap();
    assert_eq!(soon(answer).await.unwrap().status(), 404);
}

//! Copies of requests.

use std::net::SocketAddr;

use outrigger_testkit::app::App;

use crate::http2;
use crate::support::{Running, Wire, listen, nowhere, soon};

/// A proxy whose requests go to `app`, with these filters, and backends `b` and `c` for copies.
async fn mirrored(filters: &str, app: SocketAddr, b: SocketAddr, c: SocketAddr) -> Running {
    let yaml = format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]\n\
         httpRoutes: [{{ name: all, listeners: [web], rules: [{{ {filters} }}] }}]\n\
         backends:\n  - {{ name: app, endpoints: [{{ address: '{app}' }}] }}\n  \
         - {{ name: b, endpoints: [{{ address: '{b}' }}] }}\n  - {{ name: c, endpoints: [{{ address: '{c}' }}] }}\n"
    );
    Running::start(&yaml).await
}

fn to(backend: &str, more: &str) -> String {
    format!("{{ type: RequestMirror, requestMirror: {{ backendRef: {{ name: {backend} }}{more} }} }}")
}

const POST: &str = "POST /a?b HTTP/1.1\r\nHost: shop:81\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
                    4\r\nhalf\r\n5\r\nwhole\r\n0\r\n\r\n";

#[tokio::test]
async fn http_route_request_mirror() {
    let app = App::builder().start().await;
    let (mirror, at) = listen().await;
    let add = "{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: X-B, value: '2' }] } }";
    let rule = format!("backendRefs: [{{ name: app }}], filters: [{}, {add}]", to("b", ""));
    let proxy = mirrored(&rule, app.address(), at, at).await;
    let answer = proxy.ask(POST).await;
    // The response is the application's, and was not waited for.
    assert_eq!((answer.status(), answer.header("x-app").as_deref()), (200, Some("app")));
    let mut callee = Wire::accept(&mirror).await;
    let copy = callee.request().await;
    assert!(copy.head.starts_with("POST /a?b HTTP/1.1\r\n"), "{}", copy.head);
    assert_eq!((copy.text(), copy.header("host").as_deref()), ("halfwhole", Some("shop:81")));
    assert!(copy.head.contains("\r\nX-A: 1\r\n"), "{}", copy.head);
    assert_eq!((copy.header("x-a").as_deref(), copy.header("x-b").as_deref()), (Some("1"), Some("2")));
    callee.send("HTTP/1.1 500 Oh no\r\nContent-Length: 5\r\n\r\nworse").await;
    proxy.metric_is("outrigger_mirrored_requests_total", &["backend=\"b\"", "result=\"ok\""], 1.0).await;
    // Copies are not the caller's requests.
    assert_eq!(proxy.metric("outrigger_requests_total", &[]), 1.0);
}

#[tokio::test]
async fn http_route_request_mirror_over_http2() {
    let (app, b) = (App::builder().start().await, App::builder().start().await);
    let yaml = format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]\n\
         httpRoutes: [{{ name: all, listeners: [web], rules: [{{ backendRefs: [{{ name: app }}], filters: [{}] }}] }}]\n\
         backends:\n  - {{ name: app, endpoints: [{{ address: '{}' }}] }}\n  \
         - {{ name: b, protocol: H2C, endpoints: [{{ address: '{}' }}] }}\n",
        to("b", ""),
        app.address(),
        b.address()
    );
    let proxy = Running::start(&yaml).await;
    let answer = soon(http2::caller(&proxy).await.send_request(http2::get("/a"))).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(proxy.ask(POST).await.status(), 200);
    proxy.metric_is("outrigger_mirrored_requests_total", &["backend=\"b\"", "result=\"ok\""], 2.0).await;
    assert_eq!((app.requests(), b.requests()), (2, 2));
}

#[tokio::test]
async fn http_route_request_multiple_mirrors() {
    let [app, b, c] =
        [App::builder().start().await, App::builder().start().await, App::builder().start().await];
    let share = format!("{{ name: app, filters: [{}] }}", to("c", ""));
    let rule = format!("backendRefs: [{share}], filters: [{}, {}]", to("b", ""), to("c", ""));
    let proxy = mirrored(&rule, app.address(), b.address(), c.address()).await;
    assert_eq!(proxy.ask(POST).await.json()["body"]["text"], "halfwhole");
    proxy.metric_is("outrigger_mirrored_requests_total", &["result=\"ok\""], 3.0).await;
    assert_eq!((app.requests(), b.requests(), c.requests()), (1, 1, 2));
}

#[tokio::test]
async fn http_route_request_mirror_percentage() {
    for (share, least, most) in [
        (", percent: 20", 137, 263),
        (", fraction: { numerator: 1, denominator: 5 }", 137, 263),
        (", percent: 0", 0, 0),
        (", percent: 100", 1000, 1000),
    ] {
        let (app, b) = (App::builder().start().await, App::builder().start().await);
        let rule = format!("backendRefs: [{{ name: app }}], filters: [{}]", to("b", share));
        let proxy = mirrored(&rule, app.address(), b.address(), b.address()).await;
        let mut wire = proxy.connect().await;
        for _ in 0..50 {
            wire.send("GET /status/200 HTTP/1.1\r\nHost: shop\r\n\r\n".repeat(20)).await;
            for _ in 0..20 {
                assert_eq!(wire.response().await.status(), 200);
            }
        }
        // Five standard deviations of 1000 draws at 0.2 are 63.
        let counted = || proxy.metric("outrigger_mirrored_requests_total", &["result=\"ok\""]);
        // Those under way when the last response came may still arrive.
        let arrived = || b.requests() >= least && counted() as u64 == b.requests();
        crate::support::poll(arrived).await;
        let copies = b.requests();
        assert!((least..=most).contains(&copies), "{copies} of 1000 for{share}");
    }
}

/// A backend for copies that is not there, or does not answer, is the caller's concern in no way.
#[tokio::test]
async fn http_route_request_mirror_never_fails_or_slows_the_request() {
    let app = App::builder().start().await;
    let (silent, at) = listen().await;
    let rule = format!("backendRefs: [{{ name: app }}], filters: [{}, {}]", to("b", ""), to("c", ""));
    let proxy = mirrored(&rule, app.address(), at, nowhere().await).await;
    let mut wire = proxy.connect().await;
    // Far more than a copy may lie behind, so that the one that nobody reads breaks off.
    let body = "x".repeat(64 * 1024);
    wire.send("POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: 16777216\r\n\r\n").await;
    let head = wire.head().await;
    assert_eq!(head.status(), 200);
    let mut callee = Wire::accept(&silent).await;
    for _ in 0..256 {
        wire.send(&body).await;
        let chunked = head.header("transfer-encoding").is_some();
        let mut received = 0;
        while received < body.len() {
            received += if chunked { wire.chunk().await.len() } else { wire.some().await.len() };
        }
    }
    proxy.metric_is("outrigger_mirrored_requests_total", &["backend=\"c\"", "result=\"failed\""], 1.0).await;
    assert!(callee.head().await.head.starts_with("POST /echo "));
    drop(callee);
    proxy.metric_is("outrigger_mirrored_requests_total", &["backend=\"b\"", "result=\"failed\""], 1.0).await;
}

#[tokio::test]
async fn http_route_request_mirror_to_a_backend_that_is_not_known() {
    let app = App::builder().start().await;
    let rule = format!("backendRefs: [{{ name: app }}], filters: [{}]", to("unheard-of", ""));
    let proxy = mirrored(&rule, app.address(), app.address(), app.address()).await;
    assert_eq!(proxy.ask(POST).await.status(), 200);
    assert_eq!(app.requests(), 1);
}

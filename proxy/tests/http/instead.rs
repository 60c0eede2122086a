//! What a rule answers itself, and the faults that it makes.

use std::time::{Duration, Instant};

use outrigger_telemetry::AccessLog;
use outrigger_testkit::app::App;

use crate::grpc::Lines;
use crate::http2;
use crate::peer;
use crate::support::{Running, poll, soon, with_rule};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop\r\n\r\n";

fn answering(rules: &str) -> String {
    format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]\n\
         httpRoutes: [{{ name: all, listeners: [web], rules: [{rules}] }}]\n"
    )
}

fn fault(fault: &str) -> String {
    format!("filters: [{{ type: Fault, fault: {{ {fault} }} }}]")
}

#[tokio::test]
async fn http_route_fixed_response() {
    let fixed = "{ filters: [{ type: FixedResponse, fixedResponse: { status: 503, body: \"closed\\n\", headers: [{ name: Retry-After, value: '60' }] } }] }";
    let proxy = Running::start(&answering(fixed)).await;
    let mut wire = proxy.connect().await;
    for _ in 0..2 {
        wire.send("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nhi").await;
        let answer = wire.response().await;
        assert_eq!((answer.status(), answer.text()), (503, "closed\n"));
        assert_eq!(answer.header("retry-after").as_deref(), Some("60"));
        assert_eq!(answer.header("content-type").as_deref(), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("proxy-status").as_deref(), Some("outrigger"));
    }
    wire.send("HEAD / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    let head = wire.head().await;
    assert_eq!((head.status(), head.header("content-length").as_deref()), (503, Some("7")));
    proxy.metric_is("outrigger_requests_total", &["code=\"503\"", "rule=\"0\""], 3.0).await;
}

#[tokio::test]
async fn http_route_fixed_response_of_json_and_of_nothing() {
    let json = "{ filters: [{ type: FixedResponse, fixedResponse: { body: '{}', contentType: application/json } }] }";
    let answer = Running::start(&answering(json)).await.ask(GET).await;
    assert_eq!((answer.status(), answer.text()), (200, "{}"));
    assert_eq!(answer.header("content-type").as_deref(), Some("application/json"));
    let nothing = "{ filters: [{ type: FixedResponse, fixedResponse: { status: 204 } }] }";
    let answer = Running::start(&answering(nothing)).await.ask(GET).await;
    assert_eq!(
        (answer.status(), answer.header("content-type"), answer.header("content-length")),
        (204, None, None)
    );
}

#[tokio::test]
async fn http_route_fault_abort() {
    let app = App::builder().start().await;
    let proxy = Running::start(&with_rule(&fault("abort: { status: 418 }"), "", &[app.address()])).await;
    let answer = proxy.ask(GET).await;
    assert_eq!(answer.status(), 418);
    let says = answer.header("proxy-status").unwrap();
    assert!(says.starts_with("outrigger; error=fault_injected; details="), "{says}");
    assert_eq!(app.requests(), 0);
    let parts = ["reason=\"fault_injected\"", "code=\"418\"", "backend=\"app\""];
    proxy.metric_is("outrigger_requests_total", &parts, 1.0).await;
}

#[tokio::test]
async fn http_route_fault_abort_with_a_grpc_status_over_http2() {
    let app = App::builder().start().await;
    let proxy = Running::start(&with_rule(&fault("abort: { grpcStatus: 14 }"), "", &[app.address()])).await;
    let answer = soon(http2::caller(&proxy).await.send_request(http2::get("/shop.Cart/Add"))).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert!(answer.headers()["proxy-status"].to_str().unwrap().contains("error=fault_injected"));
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn http_route_fault_percentage() {
    let app = App::builder().start().await;
    let rule = fault("abort: { status: 500, fraction: { numerator: 3, denominator: 10 } }");
    let proxy = Running::start(&with_rule(&rule, "", &[app.address()])).await;
    let mut wire = proxy.connect().await;
    for _ in 0..10 {
        wire.send("GET /status/200 HTTP/1.1\r\nHost: shop\r\n\r\n".repeat(100)).await;
        for _ in 0..100 {
            wire.response().await;
        }
    }
    // Five standard deviations of 1000 draws at 0.3 are 73.
    let passed = app.requests();
    assert!((627..=773).contains(&passed), "{passed} of 1000");
    for (percent, status) in [(0, 200), (100, 500)] {
        let rule = fault(&format!("abort: {{ status: 500, percent: {percent} }}"));
        let proxy = Running::start(&with_rule(&rule, "", &[app.address()])).await;
        assert_eq!(proxy.ask(GET).await.status(), status, "{percent} %");
    }
}

#[tokio::test]
async fn http_route_fault_only_for_requests_with_a_header() {
    let app = App::builder().start().await;
    let rule = fault("headers: [{ name: X-Fault, value: 'yes' }], abort: { status: 500 }");
    let proxy = Running::start(&with_rule(&rule, "", &[app.address()])).await;
    assert_eq!(proxy.ask(GET).await.status(), 200);
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nHost: shop\r\nX-Fault: no\r\n\r\n").await.status(), 200);
    assert_eq!(proxy.ask("GET / HTTP/1.1\r\nHost: shop\r\nX-Fault: yes\r\n\r\n").await.status(), 500);
}

#[tokio::test]
async fn http_route_fault_delay() {
    let app = App::builder().start().await;
    let proxy = Running::start(&with_rule(&fault("delay: { duration: 150ms }"), "", &[app.address()])).await;
    let begun = Instant::now();
    assert_eq!(proxy.ask(GET).await.status(), 200);
    assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
    // A delay is a part of the request's time.
    let rule = format!("{}, timeouts: {{ request: 50ms }}", fault("delay: { duration: 1h }"));
    let proxy = Running::start(&with_rule(&rule, "", &[app.address()])).await;
    assert_eq!(proxy.ask("GET /hang HTTP/1.1\r\nHost: shop\r\n\r\n").await.status(), 504);
}

/// The response to a HEAD is whole without the body that it does not have, and says how long that would be.
#[tokio::test]
async fn an_answer_to_head_is_logged_as_what_it_is() {
    let log = Lines::default();
    let access_log = AccessLog::to(Box::new(log.clone()));
    let fixed = "{ filters: [{ type: FixedResponse, fixedResponse: { status: 200, body: fixed } }] }";
    let proxy = Running::start_with(&answering(fixed), |options| options.access_log = access_log).await;
    let mut wire = proxy.connect().await;
    wire.send("HEAD /one HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert_eq!(wire.head().await.header("content-length").as_deref(), Some("5"));
    let mut caller = peer::caller(&proxy).await;
    let (answer, _) = caller.send_request(peer::request("HEAD", "/two", &[]), true).unwrap();
    assert_eq!(soon(answer).await.unwrap().headers()["content-length"], "5");
    for path in ["/one", "/two"] {
        assert!(poll(|| log.with(path).is_some()).await);
        let line = log.with(path).unwrap();
        assert_eq!((line.get("details"), &line["responseBytes"]), (None, &0.into()), "{line}");
    }
}

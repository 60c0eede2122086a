//! What is sent again, and what is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use outrigger_telemetry::AccessLog;
use outrigger_testkit::app::App;
use tokio::net::TcpListener;

use crate::grpc::{Lines, framed};
use crate::http2;
use crate::support::{Running, Wire, listen, nowhere, one_backend, poll, soon, with_rule};

const RETRY: &str = "retry: { attempts: 3, codes: [503], backoff: 1ms }";

fn request(method: &str, path: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: shop\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn http_route_retry_after_a_status_as_often_as_the_route_says() {
    let app = App::builder().start().await;
    let proxy = Running::start(&with_rule(RETRY, "", &[app.address()])).await;
    assert_eq!(proxy.ask(&request("GET", "/fail-first/3?key=a", "")).await.status(), 200);
    assert_eq!(app.requests(), 4);
    proxy.metric_is("outrigger_retries_total", &[], 3.0).await;
    assert_eq!(proxy.ask(&request("GET", "/fail-first/4?key=b", "")).await.status(), 503);
    assert_eq!(app.requests(), 8);
    proxy.metric_is("outrigger_retries_total", &[], 6.0).await;
    // Neither a status that is not named, nor a route without retries.
    assert_eq!(proxy.ask(&request("GET", "/status/502", "")).await.status(), 502);
    assert_eq!(app.requests(), 9);
    let proxy = Running::start(&one_backend(&[app.address()])).await;
    assert_eq!(proxy.ask(&request("GET", "/fail-first/1?key=c", "")).await.status(), 503);
}

#[tokio::test]
async fn only_idempotent_methods_are_tried_again_after_a_status() {
    let app = App::builder().start().await;
    let proxy = Running::start(&with_rule(RETRY, "", &[app.address()])).await;
    for (number, (method, status)) in
        [("POST", 503), ("PATCH", 503), ("PUT", 200), ("DELETE", 200), ("OPTIONS", 200)]
            .into_iter()
            .enumerate()
    {
        let path = format!("/fail-first/1?key={number}");
        assert_eq!(proxy.ask(&request(method, &path, "x")).await.status(), status, "{method}");
    }
}

#[tokio::test]
async fn a_body_is_sent_again_whole_up_to_its_limit_and_not_beyond() {
    let app = App::builder().start().await;
    let proxy = Running::start(&with_rule(RETRY, "", &[app.address()])).await;
    let body = "0123456789abcdef".repeat(4096);
    let response = proxy.ask(&request("PUT", "/fail-first/2?key=kept", &body)).await;
    assert_eq!(response.json()["body"]["text"], body.as_str());
    let longer = body + "x";
    // The application answers before it reads: it is asked to fail only once the body is known to be too long.
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule(RETRY, "", &[address])).await;
    let mut caller = proxy.connect().await;
    caller.send(request("PUT", "/", &longer)).await;
    let mut callee = Wire::accept(&backend).await;
    assert_eq!(callee.request().await.body.len(), longer.len());
    callee.send("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(caller.response().await.status(), 503);
}

#[tokio::test]
async fn a_route_may_keep_less_of_a_body() {
    let (backend, address) = listen().await;
    let rule = "retry: { attempts: 1, codes: [503], backoff: 1ms, maxBodyBytes: 4 }";
    let proxy = Running::start(&with_rule(rule, "", &[address])).await;
    for (body, again) in [("1234", true), ("12345", false)] {
        let mut caller = proxy.connect().await;
        caller.send(request("PUT", "/", body)).await;
        let mut callee = Wire::accept(&backend).await;
        callee.request().await;
        callee
            .send("HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .await;
        if again {
            let mut second = Wire::accept(&backend).await;
            assert_eq!(second.request().await.text(), body);
            second.send("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
        }
        assert_eq!(caller.response().await.status(), if again { 204 } else { 503 });
    }
}

#[tokio::test]
async fn a_body_in_very_many_parts_is_not_kept() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule(RETRY, "", &[address])).await;
    let mut caller = proxy.connect().await;
    let chunks = "1\r\na\r\n".repeat(2000);
    caller
        .send(format!("PUT / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"))
        .await;
    let mut callee = Wire::accept(&backend).await;
    assert_eq!(callee.request().await.body.len(), 2000);
    callee.send("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(caller.response().await.status(), 503);
}

#[tokio::test]
async fn the_budget_bounds_retries() {
    let app = App::builder().start().await;
    let backend = "retryConstraint: { budget: { percent: 20, interval: 100s }, minRetryRate: { count: 0, interval: 1s } }";
    let proxy = Running::start(&with_rule(RETRY, backend, &[app.address()])).await;
    let mut wire = proxy.connect().await;
    for _ in 0..100 {
        wire.send("GET /status/503 HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        assert_eq!(wire.response().await.status(), 503);
    }
    assert_eq!(app.requests(), 120);
    proxy.metric_is("outrigger_retries_total", &[], 20.0).await;
    assert!(proxy.metric("outrigger_retries_refused_total", &[]) >= 80.0);
}

#[tokio::test]
async fn where_nobody_listens_another_endpoint_is_tried_at_once_whatever_the_method() {
    let app = App::builder().start().await;
    let gone = [nowhere().await, nowhere().await];
    for protocol in ["HTTP", "H2C"] {
        let backend = format!("protocol: {protocol}, balance: {{ type: RoundRobin }}");
        let proxy = Running::start(&with_rule("", &backend, &[gone[0], gone[1], app.address()])).await;
        for number in 0..10 {
            let method = if number % 2 == 0 { "POST" } else { "GET" };
            let response = proxy.ask(&request(method, "/", "hi")).await;
            assert_eq!((response.status(), &response.json()["body"]["text"]), (200, &"hi".into()));
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_breaks_off_is_left_for_another_if_that_is_safe() {
    let (backend, address) = listen().await;
    let app = App::builder().start().await;
    let rule = "retry: { attempts: 1, backoff: 1ms }";
    let backend_fields = "balance: { type: RoundRobin }";
    let proxy = Running::start(&with_rule(rule, backend_fields, &[address, app.address()])).await;
    tokio::spawn(async move {
        loop {
            let mut callee = Wire::accept(&backend).await;
            callee.request().await;
            callee.reset();
        }
    });
    for _ in 0..4 {
        assert_eq!(proxy.ask(&request("PUT", "/", "hi")).await.status(), 200);
    }
    let mut failures = 0;
    for _ in 0..4 {
        failures += u32::from(proxy.ask(&request("POST", "/", "hi")).await.status() == 502);
    }
    assert!(failures > 0, "a POST that may have reached the application was sent again");
}

#[tokio::test]
async fn a_connection_that_breaks_at_once_is_made_up_for_without_a_retry_policy() {
    let (backend, address) = listen().await;
    let app = App::builder().start().await;
    let proxy =
        Running::start(&with_rule("", "balance: { type: RoundRobin }", &[address, app.address()])).await;
    // As an application that ends does to those who wait to be accepted.
    tokio::spawn(async move {
        loop {
            Wire::accept(&backend).await.reset();
        }
    });
    for _ in 0..4 {
        assert_eq!(proxy.ask(&request("GET", "/", "")).await.status(), 200);
    }
}

#[tokio::test]
async fn http_route_retry_after_an_attempt_that_times_out() {
    let (hanging, address) = listen().await;
    let app = App::builder().start().await;
    let rule = "timeouts: { request: 10s, backendRequest: 50ms }, retry: { attempts: 1, backoff: 1ms }";
    let proxy =
        Running::start(&with_rule(rule, "balance: { type: RoundRobin }", &[address, app.address()])).await;
    for _ in 0..4 {
        assert_eq!(proxy.ask(&request("GET", "/", "")).await.status(), 200);
    }
    drop(hanging);
}

/// Answers each request on its connection, and closes right after `each` of them.
async fn close_after(listener: TcpListener, each: usize) {
    loop {
        let mut callee = Wire::accept(&listener).await;
        tokio::spawn(async move {
            for _ in 0..each {
                if callee.try_head().await.is_none() {
                    return;
                }
                callee.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        });
    }
}

#[tokio::test]
async fn a_connection_that_the_backend_closes_between_two_requests_costs_nobody_a_failure() {
    for each in [1, 2] {
        let (backend, address) = listen().await;
        tokio::spawn(close_after(backend, each));
        let proxy = Running::start(&one_backend(&[address])).await;
        let mut wire = proxy.connect().await;
        for number in 0..200 {
            wire.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
            let response = wire.response().await;
            assert_eq!(response.status(), 200, "request {number}: {response:?}");
        }
    }
}

#[tokio::test]
async fn many_connections_that_close_at_once_cost_nobody_a_failure() {
    let (backend, address) = listen().await;
    tokio::spawn(close_after(backend, 1));
    let proxy = Running::start(&one_backend(&[address])).await;
    let mut wires = Vec::new();
    for _ in 0..16 {
        wires.push(proxy.connect().await);
    }
    for _ in 0..20 {
        for wire in &mut wires {
            wire.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await;
        }
        for wire in &mut wires {
            assert_eq!(wire.response().await.status(), 200);
        }
    }
}

#[tokio::test]
async fn kept_connections_that_are_all_gone_cost_one_try_and_not_one_each() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&one_backend(&[address])).await;
    let mut caller = Vec::new();
    let mut callee = Vec::new();
    for _ in 0..4 {
        let mut wire = proxy.connect().await;
        wire.send(request("GET", "/", "")).await;
        callee.push(Wire::accept(&backend).await);
        caller.push(wire);
    }
    for (caller, callee) in caller.iter_mut().zip(&mut callee) {
        callee.request().await;
        callee.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        assert_eq!(caller.response().await.status(), 200);
    }
    // Each of them goes just as the next request arrives on it.
    for mut kept in callee {
        tokio::spawn(async move {
            kept.try_head().await;
            kept.reset();
        });
    }
    caller[0].send(request("GET", "/", "")).await;
    let mut new = Wire::accept(&backend).await;
    new.request().await;
    new.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(caller[0].response().await.status(), 204);
}

#[tokio::test]
async fn connections_to_a_backend_are_counted_by_how_they_ended() {
    let app = App::builder().start().await;
    let proxy = Running::start(&one_backend(&[nowhere().await, app.address()])).await;
    for _ in 0..8 {
        assert_eq!(proxy.ask("GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await.status(), 200);
    }
    proxy.metric_is("outrigger_backend_connections_total", &["result=\"ok\""], 1.0).await;
    assert!(proxy.metric("outrigger_backend_connections_total", &["result=\"refused\""]) > 0.5);
    proxy.metric_is("outrigger_backend_connections_open", &[], 1.0).await;
    app.stop().await;
    proxy.metric_is("outrigger_backend_connections_open", &[], 0.0).await;
}

/// A backend that answers the first request on each connection with this, and says how many came.
async fn answering(answers: &'static [&'static str]) -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let count = Arc::new(AtomicUsize::new(0));
    let came = count.clone();
    tokio::spawn(async move {
        loop {
            let mut callee = Wire::accept(&listener).await;
            callee.request().await;
            let number = came.fetch_add(1, Ordering::SeqCst);
            let answer = answers[number.min(answers.len() - 1)];
            callee.send(format!("HTTP/1.1 {answer}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")).await;
        }
    });
    (address, count)
}

#[tokio::test]
async fn a_backend_that_asks_to_be_left_alone_is_for_as_long_as_the_route_waits() {
    let retry =
        |most: &str| format!("retry: {{ attempts: 1, codes: [429, 503], backoff: 1ms, maxBackoff: {most} }}");
    // Long enough to be told from a back-off alone.
    let (address, count) = answering(&["429 Slow\r\nretry-after: 1", "204 Fine"]).await;
    let proxy = Running::start(&with_rule(&retry("1s"), "", &[address])).await;
    let began = Instant::now();
    assert_eq!(proxy.ask(&request("GET", "/", "")).await.status(), 204);
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(count.load(Ordering::SeqCst), 2);
    // A date that has passed asks for no wait.
    const PAST: &[&str] = &["503 Busy\r\nretry-after: Sun, 06 Nov 1994 08:49:37 GMT", "204 Fine"];
    let (address, _) = answering(PAST).await;
    let proxy = Running::start(&with_rule(&retry("1s"), "", &[address])).await;
    assert_eq!(proxy.ask(&request("GET", "/", "")).await.status(), 204);
    // Who asks for more than the route waits, or than there is time for, is left alone; the caller is told.
    const FUTURE: &[&str] = &["503 Busy\r\nretry-after: Fri, 31 Dec 9999 23:59:59 GMT"];
    for (answers, most, timeouts, why) in [
        (&["503 Busy\r\nretry-after: 2"][..], "1s", "", "retry_after"),
        (&["503 Busy\r\nretry-after: 60"], "1h", "timeouts: { request: 10s }, ", "deadline"),
        (FUTURE, "1h", "", "retry_after"),
    ] {
        let (address, count) = answering(answers).await;
        let log = Lines::default();
        let access_log = AccessLog::to(Box::new(log.clone()));
        let yaml = with_rule(&format!("{timeouts}{}", retry(most)), "", &[address]);
        let proxy = Running::start_with(&yaml, |options| options.access_log = access_log).await;
        let response = proxy.ask(&request("GET", "/left", "")).await;
        assert_eq!((response.status(), count.load(Ordering::SeqCst)), (503, 1));
        assert!(response.header("retry-after").is_some(), "{response:?}");
        assert!(poll(|| log.with("/left").is_some()).await);
        assert_eq!(log.with("/left").unwrap()["notRetried"], why);
    }
}

#[tokio::test]
async fn a_status_that_says_nothing_of_a_busy_service_is_not_waited_for() {
    let (address, count) = answering(&["500 No\r\nretry-after: 3600", "204 Fine"]).await;
    let rule = "retry: { attempts: 1, codes: [500], backoff: 1ms }";
    let proxy = Running::start(&with_rule(rule, "", &[address])).await;
    assert_eq!(proxy.ask(&request("GET", "/", "")).await.status(), 204);
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

/// A server of gRPC that answers the calls of each path in turn: with trailers alone of these statuses, with a message
/// before them for a status below 0, and not at all, by a reset, for 100.
async fn calls(statuses: &'static [i32]) -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let count = Arc::new(AtomicUsize::new(0));
    let came = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let came = came.clone();
            tokio::spawn(async move {
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let number = came.fetch_add(1, Ordering::SeqCst);
                    let status = statuses[number.min(statuses.len() - 1)];
                    let head = http::Response::builder().header("content-type", "application/grpc");
                    let value = HeaderValue::from(status.unsigned_abs());
                    if status == 100 {
                        respond.send_reset(h2::Reason::INTERNAL_ERROR);
                    } else if status < 0 {
                        let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
                        send.send_data(framed(b"a part"), false).unwrap();
                        let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), value)]);
                        send.send_trailers(trailers).unwrap();
                    } else {
                        respond
                            .send_response(head.header("grpc-status", value).body(()).unwrap(), true)
                            .unwrap();
                    }
                }
            });
        }
    });
    (address, count)
}

#[tokio::test]
async fn grpc_route_retry_after_a_status_of_grpc() {
    for (statuses, expected, came) in [
        // As often as the route says, whatever the method.
        (&[14, 8, 0][..], "0", 3),
        (&[14, 14, 14, 0], "14", 3),
        // A status that is not named; one that comes after a message; and a call that is lost has no status.
        (&[13, 0], "13", 1),
        (&[-14, 0], "14", 1),
        (&[100, 0], "14", 1),
        // That one answer may be sent again after says nothing of the next attempt.
        (&[14, 100, 0], "14", 2),
    ] {
        let (address, count) = calls(statuses).await;
        let rule = "retry: { attempts: 2, grpcStatuses: [UNAVAILABLE, RESOURCE_EXHAUSTED], backoff: 1ms }";
        let proxy = Running::start(&with_rule(rule, "protocol: H2C", &[address])).await;
        let mut call = http2::post("/s/M", vec![http_body::Frame::data(framed(b"hello"))]);
        call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        let response = soon(http2::caller(&proxy).await.send_request(call)).await.unwrap();
        let header = response.headers().get("grpc-status").cloned();
        let body = soon(http_body_util::BodyExt::collect(response.into_body())).await.unwrap();
        let status = header.or_else(|| body.trailers()?.get("grpc-status").cloned()).unwrap();
        assert_eq!(
            (status.to_str().unwrap(), count.load(Ordering::SeqCst)),
            (expected, came),
            "{statuses:?}"
        );
    }
}

#[tokio::test]
async fn retries_under_way_are_limited_their_wait_included() {
    let app = App::builder().start().await;
    let rule = "retry: { attempts: 1, codes: [503], backoff: 300ms, maxBackoff: 300ms }";
    let proxy = Running::start(&with_rule(rule, "limits: { retries: 2 }", &[app.address()])).await;
    let mut callers = Vec::new();
    for _ in 0..8 {
        let mut caller = proxy.connect().await;
        caller.send(request("GET", "/status/503", "")).await;
        callers.push(caller);
    }
    for caller in &mut callers {
        assert_eq!(caller.response().await.status(), 503);
    }
    assert_eq!(app.requests(), 10);
    proxy.metric_is("outrigger_retries_refused_total", &[], 6.0).await;
    // They are over, and others have their place.
    assert_eq!(proxy.ask(&request("GET", "/status/503", "")).await.status(), 503);
    assert_eq!(app.requests(), 12);
}

/// By its status, by resets, and not at all: the load beyond the requests themselves is a fifth of them, and ten a second.
#[tokio::test]
async fn a_backend_that_always_fails_gets_little_more_than_it_is_asked() {
    let (resetting, reset_at) = listen().await;
    let resets = Arc::new(AtomicUsize::new(0));
    let count = resets.clone();
    tokio::spawn(async move {
        loop {
            let mut callee = Wire::accept(&resetting).await;
            let count = count.clone();
            tokio::spawn(async move {
                callee.try_head().await;
                count.fetch_add(1, Ordering::SeqCst);
                callee.reset();
            });
        }
    });
    let app = App::builder().own_thread().start().await;
    for (path, address) in [("/status/503", app.address()), ("/", reset_at)] {
        let rule = "retry: { attempts: 5, codes: [503], backoff: 1ms }";
        let proxy = Running::start(&with_rule(rule, "", &[address])).await;
        let began = Instant::now();
        let mut asked = 0;
        while began.elapsed() < Duration::from_millis(1500) {
            let mut callers = Vec::new();
            for _ in 0..8 {
                let mut caller = proxy.connect().await;
                caller.send(request("GET", path, "")).await;
                callers.push(caller);
            }
            for caller in &mut callers {
                assert!(matches!(caller.response().await.status(), 502 | 503));
                asked += 1;
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let came = if path == "/" { resets.load(Ordering::SeqCst) } else { app.requests() as usize };
        let most = f64::from(asked) * 0.2 + 10.0 * (seconds + 1.0);
        assert!((came as f64) - f64::from(asked) <= most, "{came} came of {asked} in {seconds} s");
        assert!(came > asked as usize, "some were tried again");
    }
}

//! How long a request may take, over all of its attempts, and what a call of gRPC says of that itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use outrigger_telemetry::AccessLog;
use outrigger_testkit::app::App;

use crate::grpc::{Lines, framed};
use crate::http2;
use crate::support::{Running, listen, poll, soon, with_rule};

fn call(path: &str, timeout: &'static str) -> Request<http2::Body> {
    let mut request = http2::post(path, vec![Frame::data(framed(b"hello"))]);
    let headers = request.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    if !timeout.is_empty() {
        headers.insert("grpc-timeout", HeaderValue::from_static(timeout));
    }
    request
}

/// What the attempts of calls said of how long their callers wait; empty where nothing.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A server of gRPC. `/s/Hang` is never answered, `/s/Stall` only in part, and of `/s/Busy` every first call is refused after
/// 50 ms.
async fn server() -> (SocketAddr, Told) {
    let (listener, address) = listen().await;
    let told = Told::default();
    let all = told.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let told = all.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                let mut hung = Vec::new();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let said =
                        request.headers().get("grpc-timeout").map_or("", |value| value.to_str().unwrap());
                    let mut before = told.0.lock().unwrap();
                    before.push(said.to_owned());
                    let first = before.len() % 2 == 1;
                    drop(before);
                    let head = Response::builder().header("content-type", "application/grpc");
                    match request.uri().path() {
                        "/s/Hang" => hung.push(respond),
                        "/s/Stall" => {
                            let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
                            send.send_data(framed(b"hello"), false).unwrap();
                            std::mem::forget(send);
                        }
                        "/s/Busy" if first => {
                            tokio::spawn(async move {
                                tokio::time::sleep(Duration::from_millis(50)).await;
                                let head = head.header("grpc-status", "14").body(()).unwrap();
                                let _ = respond.send_response(head, true);
                            });
                        }
                        _ => {
                            let head = head.header("grpc-status", "0").body(()).unwrap();
                            let _ = respond.send_response(head, true);
                        }
                    }
                }
            });
        }
    });
    (address, told)
}

/// The status, wherever it is said.
async fn status(proxy: &Running, request: Request<http2::Body>) -> (String, Bytes) {
    let response = soon(http2::caller(proxy).await.send_request(request)).await.unwrap();
    let header = response.headers().get("grpc-status").cloned();
    let body = soon(response.into_body().collect()).await.unwrap();
    let of = |map: &HeaderMap| map.get("grpc-status").cloned();
    let status = header.or_else(|| body.trailers().and_then(of)).expect("a status");
    (status.to_str().unwrap().to_owned(), body.to_bytes())
}

fn millis(value: &str) -> f64 {
    let (digits, unit) = value.split_at(value.len() - 1);
    let each = match unit {
        "n" => 1e-6,
        "u" => 1e-3,
        "m" => 1.0,
        "S" => 1e3,
        _ => panic!("{value}"),
    };
    digits.parse::<f64>().unwrap() * each
}

#[tokio::test]
async fn a_call_ends_when_its_caller_says_even_where_its_route_has_no_timeout() {
    let (address, _) = server().await;
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
    for path in ["/s/Hang", "/s/Stall"] {
        let began = Instant::now();
        let (status, body) = status(&proxy, call(path, "150m")).await;
        assert_eq!(status, "4", "{path}");
        assert!(began.elapsed() >= Duration::from_millis(150), "{path}: {:?}", began.elapsed());
        assert_eq!(body.is_empty(), path == "/s/Hang");
    }
    proxy.metric_is("outrigger_requests_total", &["reason=\"http_response_timeout\""], 2.0).await;
}

/// No time at all is no time; the longest that can be said is as good as none; what is not valid is for the server to judge.
#[tokio::test]
async fn a_call_may_say_anything_of_how_long_it_waits() {
    let (address, told) = server().await;
    let proxy = Running::start(&with_rule("", "protocol: H2C", &[address])).await;
    for timeout in ["0n", "0H", "00000000S", "1n"] {
        assert_eq!(status(&proxy, call("/s/Hang", timeout)).await.0, "4", "{timeout}");
    }
    told.take();
    assert_eq!(status(&proxy, call("/s/Echo", "99999999H")).await.0, "0");
    let left = told.take().remove(0);
    assert!(left == "99999998H" || left == "99999999H", "{left}");
    for timeout in ["100000000S", "1", "S", "1s", "-1S", "+1S", "1.5S", "1S, 2S"] {
        assert_eq!(status(&proxy, call("/s/Echo", timeout)).await.0, "0", "{timeout}");
        assert_eq!(told.take(), [timeout]);
    }
}

#[tokio::test]
async fn of_two_deadlines_of_a_call_the_earlier_counts() {
    let (address, told) = server().await;
    let proxy = Running::start(&with_rule("timeouts: { request: 100ms }", "protocol: H2C", &[address])).await;
    let began = Instant::now();
    assert_eq!(status(&proxy, call("/s/Hang", "1H")).await.0, "4");
    assert!(began.elapsed() < Duration::from_secs(10));
    let left = millis(&told.take()[0]);
    assert!(left <= 100.0, "the server is told what is left of the route's: {left} ms");
    let proxy = Running::start(&with_rule("timeouts: { request: 1h }", "protocol: H2C", &[address])).await;
    assert_eq!(status(&proxy, call("/s/Hang", "100m")).await.0, "4");
}

#[tokio::test]
async fn each_attempt_is_told_how_long_its_caller_still_waits() {
    let (address, told) = server().await;
    let rule = "retry: { attempts: 2, grpcStatuses: [UNAVAILABLE], backoff: 10ms }";
    let proxy = Running::start(&with_rule(rule, "protocol: H2C", &[address])).await;
    assert_eq!(status(&proxy, call("/s/Busy", "20S")).await.0, "0");
    let told_of = told.take();
    let [first, second] = [millis(&told_of[0]), millis(&told_of[1])];
    assert!(first < 20_000.0 && first > 19_000.0, "{told_of:?}");
    assert!(second <= first - 60.0 && second > 10_000.0, "{told_of:?}");
    // Where nothing is said, or nonsense, nothing is added or changed.
    for said in ["", "5 s", "123456789S"] {
        assert_eq!(status(&proxy, call("/s/Ok", said)).await.0, "0");
        assert_eq!(told.take(), [said]);
    }
}

/// A retry that could only begin after the deadline is not waited for.
#[tokio::test]
async fn what_cannot_be_tried_again_in_time_is_answered_now() {
    let app = App::builder().start().await;
    let log = Lines::default();
    let rule = "timeouts: { request: 10s }, retry: { attempts: 3, codes: [503], backoff: 1h }";
    let access_log = AccessLog::to(Box::new(log.clone()));
    let yaml = with_rule(rule, "", &[app.address()]);
    let proxy = Running::start_with(&yaml, |options| options.access_log = access_log).await;
    let began = Instant::now();
    assert_eq!(proxy.ask("GET /status/503 HTTP/1.1\r\nHost: shop\r\n\r\n").await.status(), 503);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(app.requests(), 1);
    assert!(poll(|| log.with("/status/503").is_some()).await);
    let line = log.with("/status/503").unwrap();
    assert_eq!((&line["attempts"], &line["notRetried"]), (&1.into(), &"deadline".into()), "{line}");
    proxy.metric_is("outrigger_retries_refused_total", &[], 0.0).await;
}

#[tokio::test]
async fn attempts_end_with_the_deadline_of_their_request() {
    let app = App::builder().start().await;
    let rule = "timeouts: { request: 300ms, backendRequest: 100ms }, retry: { attempts: 100, backoff: 1ms }";
    let proxy = Running::start(&with_rule(rule, "", &[app.address()])).await;
    let began = Instant::now();
    assert_eq!(proxy.ask("GET /hang HTTP/1.1\r\nHost: shop\r\n\r\n").await.status(), 504);
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!((2..=4).contains(&app.requests()), "{}", app.requests());
}

//! The requests of a single connection of a caller go to all endpoints alike, and to a new one soon.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{HeaderValue, Request};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::client::conn::http2::SendRequest;
use outrigger_testkit::app::App;

use crate::grpc::framed;
use crate::http2;
use crate::support::{Running, with_rule};

/// How many requests are under way at a time.
const AT_ONCE: usize = 16;

fn get() -> Request<http2::Body> {
    http2::get("/status/200")
}

fn call() -> Request<http2::Body> {
    let mut request = http2::post("/grpc/Say", vec![Frame::data(framed(b"hello"))]);
    request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    request
}

/// Sends so many requests over one connection, and returns how many each application got.
async fn drive(
    caller: &SendRequest<http2::Body>,
    apps: &[App],
    count: usize,
    request: fn() -> Request<http2::Body>,
) -> Vec<u64> {
    let before: Vec<_> = apps.iter().map(App::requests).collect();
    let answers = stream::iter(0..count).map(|_| {
        let mut caller = caller.clone();
        async move {
            let answer = caller.send_request(request()).await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.into_body().collect().await.unwrap().to_bytes()
        }
    });
    let bodies: Vec<Bytes> = answers.buffer_unordered(AT_ONCE).collect().await;
    assert_eq!(bodies.len(), count);
    apps.iter().zip(before).map(|(app, before)| app.requests() - before).collect()
}

#[tokio::test]
async fn each_of_ten_endpoints_is_within_a_tenth_of_the_mean_and_an_eleventh_soon_has_its_share() {
    let mut apps = Vec::new();
    for _ in 0..11 {
        apps.push(App::builder().start().await);
    }
    let kinds: [(&str, fn() -> _); 4] =
        [("PeakEwma", call), ("PeakEwma", get), ("LeastRequest", call), ("RoundRobin", get)];
    for (kind, request) in kinds {
        let backend = format!("protocol: H2C, balance: {{ type: {kind} }}");
        let ten: Vec<_> = apps[..10].iter().map(App::address).collect();
        let eleven: Vec<_> = apps.iter().map(App::address).collect();
        let proxy = Running::start(&with_rule("", &backend, &ten)).await;
        let caller = http2::caller(&proxy).await;
        // Connections are made.
        drive(&caller, &apps[..10], 200, request).await;
        let got = drive(&caller, &apps[..10], 2_000, request).await;
        for count in &got {
            assert!((180..=220).contains(count), "{kind}: {got:?}");
        }

        std::fs::write(&proxy.file, with_rule("", &backend, &eleven)).unwrap();
        while drive(&caller, &apps, 20, request).await[10] == 0 {}
        let ready = Instant::now();
        // It has its share 2 s after it is ready at the latest.
        let mut got = vec![];
        while ready.elapsed() < Duration::from_secs(2) {
            got = drive(&caller, &apps, 1_100, request).await;
            if got[10] >= 80 {
                break;
            }
        }
        assert!(got[10] >= 80, "{kind}: {got:?}");
    }
}

//! A second attempt beside one that is slow.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_telemetry::AccessLog;
use outrigger_testkit::app::App;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::grpc::Lines;
use crate::support::{Message, Running, Wire, listen, poll, with_rule};

const HEDGE: &str = "retry: { attempts: 1, codes: [503], backoff: 1ms, hedgeDelay: 50ms }";

fn request(method: &str, path: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: shop\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A proxy whose requests go to the first of these in turn, then to the second.
async fn in_turn(rule: &str, backend: &str, addresses: &[SocketAddr]) -> Running {
    Running::start(&with_rule(rule, &format!("balance: {{ type: RoundRobin }}{backend}"), addresses)).await
}

/// The one of two connections that a request came on, and the request. The other backend has none yet.
async fn asked(backend: &TcpListener) -> (Wire, Message) {
    let mut callee = Wire::accept(backend).await;
    let message = callee.request().await;
    (callee, message)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";

#[tokio::test]
async fn who_answers_first_counts_and_the_other_is_given_up() {
    let (one, other) = (listen().await, listen().await);
    let log = Lines::default();
    let access_log = AccessLog::to(Box::new(log.clone()));
    let yaml = with_rule(HEDGE, "balance: { type: RoundRobin }", &[one.1, other.1]);
    let proxy = Running::start_with(&yaml, |options| options.access_log = access_log).await;
    for (number, first_wins) in [false, true].into_iter().enumerate() {
        let mut caller = proxy.connect().await;
        caller.send(request("PUT", &format!("/{number}"), "hello")).await;
        let ((mut a, first), (mut b, second)) = tokio::join!(asked(&one.0), asked(&other.0));
        assert_eq!((first.text(), second.text()), ("hello", "hello"), "both have all of it");
        let (winner, loser) = if first_wins { (&mut a, &mut b) } else { (&mut b, &mut a) };
        winner.send(format!("{OK}ok")).await;
        let response = caller.response().await;
        assert_eq!((response.status(), response.text()), (200, "ok"));
        assert!(loser.closed().await, "its connection is closed");
        // That of the other is kept; this test wants new ones.
        drop((a, b));
        let path = format!("\"path\":\"/{number}\"");
        assert!(poll(|| log.with(&path).is_some()).await);
        let line = log.with(&path).unwrap();
        assert_eq!((&line["attempts"], &line["retried"]), (&2.into(), &"hedge".into()), "{line}");
    }
    proxy.metric_is("outrigger_retries_total", &[], 2.0).await;
}

#[tokio::test]
async fn an_answer_in_time_is_not_hedged() {
    let (one, other) = (App::builder().start().await, App::builder().start().await);
    let rule = "retry: { attempts: 1, codes: [503], hedgeDelay: 20s }";
    let proxy = in_turn(rule, "", &[one.address(), other.address()]).await;
    for _ in 0..10 {
        assert_eq!(proxy.ask(&request("GET", "/", "")).await.status(), 200);
    }
    assert_eq!(one.requests() + other.requests(), 10);
}

#[tokio::test]
async fn what_is_not_idempotent_has_no_budget_or_no_other_endpoint_is_not_hedged() {
    let spent = ", retryConstraint: { budget: { percent: 0 }, minRetryRate: { count: 0 } }";
    let limited = ", limits: { retries: 0 }";
    for (method, backend, both, refused) in [
        ("POST", "", true, 0.0),
        ("GET", spent, true, 1.0),
        ("GET", limited, true, 1.0),
        ("GET", "", false, 0.0),
    ] {
        let (one, other) = (App::builder().start().await, App::builder().start().await);
        let rule = format!("timeouts: {{ request: 400ms }}, {HEDGE}");
        let addresses = [one.address(), other.address()];
        let proxy = in_turn(&rule, backend, if both { &addresses } else { &addresses[..1] }).await;
        assert_eq!(proxy.ask(&request(method, "/hang", "")).await.status(), 504);
        assert_eq!(one.requests() + other.requests(), 1, "{method}{backend}");
        proxy.metric_is("outrigger_retries_refused_total", &[], refused).await;
    }
}

/// While the body is on its way only one attempt can read it.
#[tokio::test]
async fn what_is_not_there_as_a_whole_is_not_hedged() {
    let (one, other) = (App::builder().start().await, App::builder().start().await);
    let proxy =
        in_turn(&format!("timeouts: {{ request: 400ms }}, {HEDGE}"), "", &[one.address(), other.address()])
            .await;
    let mut caller = proxy.connect().await;
    caller.send("PUT / HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\n01234").await;
    assert_eq!(caller.response().await.status(), 504);
    assert_eq!(one.requests() + other.requests(), 1);
}

#[tokio::test]
async fn a_bad_answer_does_not_count_while_the_other_may_give_a_good_one() {
    let (one, other) = (listen().await, listen().await);
    let proxy = in_turn(HEDGE, "", &[one.1, other.1]).await;
    for bad in ["HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", ""] {
        for first_is_bad in [true, false] {
            let mut caller = proxy.connect().await;
            caller.send(request("GET", "/", "")).await;
            let ((mut a, _), (mut b, _)) = tokio::join!(asked(&one.0), asked(&other.0));
            let (failing, good) = if first_is_bad { (&mut a, &mut b) } else { (&mut b, &mut a) };
            failing.send(bad).await;
            failing.finish().await;
            assert!(failing.closed().await, "the proxy has heard it");
            good.send(format!("{OK}ok")).await;
            assert_eq!(caller.response().await.status(), 200, "{bad:?}");
        }
    }
    // Neither is good: then the last word is the second's, for there are no more attempts.
    let mut caller = proxy.connect().await;
    caller.send(request("GET", "/", "")).await;
    let ((mut a, _), (mut b, _)) = tokio::join!(asked(&one.0), asked(&other.0));
    for callee in [&mut a, &mut b] {
        callee.send("HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    }
    assert_eq!(caller.response().await.status(), 503);
}

#[tokio::test]
async fn over_http_2_the_other_stream_is_reset_and_its_connection_goes_on() {
    let (one, one_at) = listen().await;
    let other = App::builder().start().await;
    let rule = "retry: { attempts: 1, hedgeDelay: 50ms }";
    let proxy = in_turn(rule, ", protocol: H2C", &[one_at, other.address()]).await;
    let (tell, mut resets) = mpsc::unbounded_channel();
    // It accepts one connection: the second request comes on the same, though the first was given up.
    let server = tokio::spawn(async move {
        let (stream, _) = one.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(asked) = connection.accept().await {
            let (_, mut respond) = asked.unwrap();
            let tell = tell.clone();
            tokio::spawn(async move {
                let _ = tell.send(std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap());
            });
        }
    });
    for _ in 0..2 {
        let reset = loop {
            assert_eq!(proxy.ask(&request("GET", "/", "")).await.status(), 200);
            // Those that the other was asked for first reset nothing.
            if let Ok(reset) = timeout(Duration::from_millis(200), resets.recv()).await {
                break reset;
            }
        };
        assert_eq!(reset, Some(h2::Reason::CANCEL));
    }
    server.abort();
}

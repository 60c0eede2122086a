//! Limits of what is under way, at a backend and at a listener: what is over them, and that every place comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::http2;
use crate::support::{Message, Running, Wire, listen, one_backend, soon, with_rule};

const GET: &str = "GET / HTTP/1.1\r\nHost: shop\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What `caller` asks for has come to the backend, and is not answered yet.
async fn under_way(caller: &mut Wire, backend: &TcpListener) -> Wire {
    caller.send(GET).await;
    let mut callee = Wire::accept(backend).await;
    callee.request().await;
    callee
}

/// A request was refused because much is under way.
fn assert_full(response: &Message) {
    assert_eq!(response.status(), 503, "{response:?}");
    let status = response.header("proxy-status").unwrap();
    assert!(status.starts_with("outrigger; error=http_request_limit_reached; details="), "{status}");
    assert_eq!(response.header("retry-after").unwrap(), "1");
}

#[tokio::test]
async fn what_is_over_a_backends_requests_is_refused_until_a_response_has_ended() {
    let (backend, address) = listen().await;
    let proxy = Running::start(&with_rule("", "limits: { requests: 2 }", &[address])).await;
    let (mut one, mut two) = (proxy.connect().await, proxy.connect().await);
    let mut callee = under_way(&mut one, &backend).await;
    let _another = under_way(&mut two, &backend).await;
    let refused = proxy.ask(GET).await;
    assert_full(&refused);
    assert!(
        refused.text().contains("backend app has as many requests in flight as it may, 2"),
        "{refused:?}"
    );
    // A response that has begun is still under way.
    callee.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").await;
    assert_eq!(one.head().await.status(), 200);
    assert_full(&proxy.ask(GET).await);
    callee.send("k").await;
    assert_eq!(one.exactly(2).await, b"ok");
    one.send(GET).await;
    callee.request().await;
    callee.send(OK).await;
    assert_eq!(one.response().await.status(), 200);
    proxy.metric_is("outrigger_requests_total", &["reason=\"http_request_limit_reached\""], 2.0).await;
}

#[tokio::test]
async fn who_may_wait_gets_its_turn_and_no_more_wait_than_may() {
    let (backend, address) = listen().await;
    let limits = "limits: { requests: 1, waiting: 1, waitTimeout: 20s }";
    let proxy = Running::start(&with_rule("", limits, &[address])).await;
    let (mut one, mut two) = (proxy.connect().await, proxy.connect().await);
    let mut callee = under_way(&mut one, &backend).await;
    two.send(GET).await;
    proxy.metric_is("outrigger_requests_in_flight", &["backend=\"app\""], 2.0).await;
    let refused = proxy.ask(GET).await;
    assert_full(&refused);
    assert!(refused.text().contains("and as many wait as may"), "{refused:?}");
    callee.send(OK).await;
    assert_eq!(one.response().await.text(), "ok");
    callee.request().await;
    callee.send(OK).await;
    assert_eq!(two.response().await.text(), "ok");
}

#[tokio::test]
async fn who_waits_in_vain_is_refused_in_time() {
    let (backend, address) = listen().await;
    let limits = "limits: { requests: 1, waiting: 5, waitTimeout: 20ms }";
    let proxy = Running::start(&with_rule("", limits, &[address])).await;
    let mut one = proxy.connect().await;
    let _callee = under_way(&mut one, &backend).await;
    let refused = proxy.ask(GET).await;
    assert_full(&refused);
    assert!(refused.text().contains("none ended within the wait timeout of 20ms"), "{refused:?}");
}

/// Whatever becomes of a request, its place is free again: with only one, the next request gets it.
#[tokio::test]
async fn every_way_out_gives_the_place_back() {
    let (backend, address) = listen().await;
    let limits = "limits: { requests: 1, waiting: 1, waitTimeout: 20s }";
    let rule = "timeouts: { request: 1s }";
    let yaml = with_rule(rule, limits, &[address]);
    let proxy = Running::start(&yaml).await;
    for way in 0..9 {
        let mut caller = proxy.connect().await;
        let upgrade = "GET / HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
        // What is not idempotent is not sent again.
        let post = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n";
        caller.send(if way == 7 { upgrade } else { post }).await;
        let mut callee = Wire::accept(&backend).await;
        callee.request().await;
        match way {
            // The caller leaves before the response, and within it.
            0 => caller.reset(),
            1 => {
                callee.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").await;
                caller.head().await;
                caller.reset();
            }
            // The backend breaks off before it, and within it.
            2 => {
                callee.reset();
                assert_eq!(caller.response().await.status(), 502);
            }
            3 => {
                callee.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").await;
                callee.reset();
                caller.rest().await;
            }
            // What it says is not HTTP.
            4 => {
                callee.send("nonsense\r\n\r\n").await;
                assert_eq!(caller.response().await.status(), 502);
            }
            // The route's time is over, before the response and within it.
            5 => assert_eq!(caller.response().await.status(), 504),
            6 => {
                callee.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").await;
                caller.rest().await;
            }
            // An upgraded connection holds it to its end.
            7 => {
                let switch =
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
                callee.send(switch).await;
                assert_eq!(caller.head().await.status(), 101);
                let mut waiting = proxy.connect().await;
                waiting.send(GET).await;
                proxy.metric_is("outrigger_requests_in_flight", &["backend=\"app\""], 2.0).await;
                assert_full(&proxy.ask(GET).await);
                waiting.reset();
            }
            // It is simply answered.
            _ => {
                callee.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
                assert_eq!(caller.response().await.status(), 200);
            }
        }
        let mut next = proxy.connect().await;
        if way == 7 {
            // Both ends leave it.
            continue;
        }
        let mut callee = under_way(&mut next, &backend).await;
        callee.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
        assert_eq!(next.response().await.status(), 200, "after {way}");
    }
    proxy.metric_is("outrigger_requests_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn a_listener_counts_the_requests_of_all_its_callers() {
    let (backend, address) = listen().await;
    let yaml = one_backend(&[address]).replace("http: { ", "http: { limits: { requests: 1 }, ");
    let proxy = Running::start(&yaml).await;
    let mut one = proxy.connect().await;
    let mut callee = under_way(&mut one, &backend).await;
    let refused = proxy.ask(GET).await;
    assert_full(&refused);
    assert!(
        refused.text().contains("listener web has as many requests in flight as it may, 1"),
        "{refused:?}"
    );
    // A call of gRPC hears the same in its own words: UNAVAILABLE, and when it may try again.
    let mut call = http2::post("/shop.Cart/Add", Vec::new());
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let answer = soon(http2::caller(&proxy).await.send_request(call)).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &"14".parse().unwrap()));
    assert_eq!(answer.headers()["grpc-retry-pushback-ms"], "1000");
    callee.send(OK).await;
    assert_eq!(one.response().await.text(), "ok");
    one.send(GET).await;
    callee.request().await;
    callee.send(OK).await;
    assert_eq!(one.response().await.text(), "ok");
}

/// An application that works on so many requests at once, and lets the others wait.
struct Busy {
    address: SocketAddr,
    most: Arc<AtomicU32>,
}

impl Busy {
    async fn start(workers: usize, time: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (most, here) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let free = Arc::new(Semaphore::new(workers));
        let seen = most.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (free, here, seen) = (free.clone(), here.clone(), seen.clone());
                tokio::spawn(async move {
                    let mut bytes = [0; 4096];
                    // No request here is longer than that, nor comes in parts.
                    while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                        seen.fetch_max(here.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let turn = free.acquire().await.unwrap();
                        tokio::time::sleep(time).await;
                        drop(turn);
                        here.fetch_sub(1, Ordering::SeqCst);
                        if stream.write_all(OK.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, most }
    }
}

#[tokio::test]
async fn the_workers_of_a_proxy_share_a_limit_and_its_queue() {
    let app = Busy::start(100, Duration::from_millis(2)).await;
    let limits = "limits: { requests: 3, waiting: 200, waitTimeout: 20s }";
    let proxy = Running::start_with(&with_rule("", limits, &[app.address]), |options| {
        options.workers = Some(3);
    })
    .await;
    let web = proxy.at("web");
    let mut callers = JoinSet::new();
    for _ in 0..60 {
        callers.spawn(async move {
            let mut caller = Wire::connect(web).await;
            let mut answered = 0;
            for _ in 0..5 {
                caller.send(GET).await;
                answered += u32::from(caller.response().await.status() == 200);
            }
            answered
        });
    }
    let answered: u32 = callers.join_all().await.into_iter().sum();
    assert_eq!(answered, 300, "nobody is refused who may wait");
    assert!(app.most.load(Ordering::SeqCst) <= 3, "{:?}", app.most);
}

/// What is answered in a second, and how long what is refused takes, at the median.
async fn offered(web: SocketAddr, rate: u32, time: Duration) -> (f64, Duration) {
    let (began, mut under_way) = (Instant::now(), JoinSet::new());
    let count = rate * time.as_millis() as u32 / 1000;
    for number in 0..count {
        let due = began + Duration::from_secs(1) * number / rate;
        tokio::time::sleep_until(due.into()).await;
        under_way.spawn(async move {
            let mut caller = Wire::connect(web).await;
            let asked = Instant::now();
            caller.send(GET).await;
            let status = caller.response().await.status();
            (status, asked.elapsed())
        });
    }
    let ended = under_way.join_all().await;
    let answered = ended.iter().filter(|(status, _)| *status == 200).count();
    let mut refused: Vec<_> =
        ended.iter().filter(|(status, _)| *status == 503).map(|(_, took)| *took).collect();
    refused.sort();
    (answered as f64 / time.as_secs_f64(), refused.get(refused.len() / 2).copied().unwrap_or_default())
}

#[tokio::test]
async fn an_adaptive_limit_keeps_goodput_at_three_times_the_capacity() {
    // 4 at once, 20 ms each: 200 in a second.
    let app = Busy::start(4, Duration::from_millis(20)).await;
    let proxy = Running::start(&with_rule("", "limits: { adaptive: { min: 2 } }", &[app.address])).await;
    let web = proxy.at("web");
    // As many as it works on, one after the other.
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        callers.spawn(async move {
            let mut caller = Wire::connect(web).await;
            for _ in 0..30 {
                caller.send(GET).await;
                assert_eq!(caller.response().await.status(), 200);
            }
        });
    }
    let began = Instant::now();
    callers.join_all().await;
    let peak = 120.0 / began.elapsed().as_secs_f64();
    offered(web, 600, Duration::from_secs(2)).await;
    // It goes by the time of a machine that may be busy with other things just then: one of some looks has to be good.
    let mut looks = Vec::new();
    let is_good =
        |&(goodput, refused): &(f64, Duration)| goodput > 0.9 * peak && refused < Duration::from_millis(5);
    while looks.len() < 4 && !looks.last().is_some_and(is_good) {
        looks.push(offered(web, 600, Duration::from_secs(3)).await);
    }
    println!("goodput and time until refusal {looks:?}, after {peak}/s");
    assert!(looks.last().is_some_and(is_good), "{looks:?}, after {peak}/s");
    // Without a limit some hundred would be queued there by now.
    assert!(app.most.load(Ordering::SeqCst) < 100, "{:?}", app.most);
    let seen = http2::caller(&proxy).await.send_request(http2::get("/")).await.unwrap();
    assert_eq!(seen.status().as_u16(), 200);
    soon(seen.collect()).await.unwrap();
}

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::callee::Callee;

/// A few requests of 10 bytes there and 20 back.
pub(super) fn load(arrivals: Arrivals) -> Load {
    Load {
        traffic: Traffic::Http1,
        arrivals,
        connections: 4,
        streams: 1,
        request_bytes: 10,
        response_bytes: 20,
        connect: Connect::Keep,
        tls: Tls::Off,
        seed: 1,
    }
}

async fn start(load: &Load) -> (Callee, Target) {
    let callee =
        if load.tls == Tls::Off { Callee::start(load).await } else { Callee::start_with_tls(load).await };
    let callee = callee.unwrap();
    let target = Target::application(callee.address(), callee.trust().map(ToOwned::to_owned));
    (callee, target)
}

/// Runs it for 100 ms against the application: everything that is due is answered, and was seen there.
async fn succeeds(load: Load) {
    let (callee, target) = start(&load).await;
    let mut callers = Callers::connect(&load, &target).await.unwrap();
    let before = callee.seen();
    let measured = callers.run(Duration::from_millis(100)).await.unwrap();
    assert_eq!(measured.first_error, None, "{load:?}");
    assert_eq!((measured.answered, measured.latency.len()), (measured.due, measured.due), "{load:?}");
    assert!(callee.seen() - before >= measured.answered, "{load:?}");
    match load.arrivals.rate() {
        Some(rate) => assert_eq!(measured.due, (rate / 10.0).round() as u64, "{load:?}"),
        None => assert!(measured.due > 0, "{load:?}"),
    }
}

async fn succeeds_in_every_way(traffic: Traffic) {
    let streams = match traffic {
        Traffic::Http2 | Traffic::Grpc | Traffic::GrpcStream => 3,
        _ => 1,
    };
    for connect in [Connect::Keep, Connect::Each] {
        for tls in [Tls::Off, Tls::Full, Tls::Resumed] {
            for (bytes, rate) in [(0, 500.0), (20, 500.0), (1_000_000, 50.0)] {
                let (request_bytes, response_bytes) = match traffic {
                    Traffic::Tcp if bytes == 0 => continue,
                    _ => (bytes / 2, bytes),
                };
                let arrivals = Arrivals::Poisson { rate };
                succeeds(Load {
                    traffic,
                    streams,
                    request_bytes,
                    response_bytes,
                    connect,
                    tls,
                    ..load(arrivals)
                })
                .await;
            }
        }
    }
    succeeds(Load { traffic, streams, ..load(Arrivals::Saturated) }).await;
}

#[tokio::test]
async fn http1_in_every_way() {
    succeeds_in_every_way(Traffic::Http1).await;
}

#[tokio::test]
async fn http2_in_every_way() {
    succeeds_in_every_way(Traffic::Http2).await;
}

#[tokio::test]
async fn grpc_in_every_way() {
    succeeds_in_every_way(Traffic::Grpc).await;
}

#[tokio::test]
async fn grpc_streams_in_every_way() {
    succeeds_in_every_way(Traffic::GrpcStream).await;
}

#[tokio::test]
async fn websocket_in_every_way() {
    succeeds_in_every_way(Traffic::WebSocket).await;
}

#[tokio::test]
async fn tcp_in_every_way() {
    succeeds_in_every_way(Traffic::Tcp).await;
}

#[tokio::test]
async fn bytes_in_bulk() {
    for tls in [Tls::Off, Tls::Full] {
        succeeds(Load { traffic: Traffic::TcpBulk, tls, ..load(Arrivals::Saturated) }).await;
    }
}

#[tokio::test]
async fn a_run_after_the_first_uses_the_same_connections() {
    let load = load(Arrivals::Poisson { rate: 500.0 });
    let (callee, target) = start(&load).await;
    let mut callers = Callers::connect(&load, &target).await.unwrap();
    drop(callee);
    // Nobody accepts any more.
    for _ in 0..2 {
        callers.stay_awake(true);
        let measured = callers.run(Duration::from_millis(100)).await.unwrap();
        assert_eq!((measured.answered, measured.errors), (50, 0));
    }
}

#[tokio::test]
async fn answers_of_another_length_are_errors_but_to_those_who_expect_none() {
    for traffic in [Traffic::Http1, Traffic::Http2, Traffic::Grpc, Traffic::GrpcStream, Traffic::WebSocket] {
        let asked = Load { traffic, ..load(Arrivals::Fixed { rate: 100.0 }) };
        let (callee, target) = start(&Load { response_bytes: 19, ..asked.clone() }).await;
        let mut callers = Callers::connect(&asked, &target).await.unwrap();
        let measured = callers.run(Duration::from_millis(50)).await.unwrap();
        assert_eq!((measured.answered, measured.errors), (0, 5), "{traffic:?}");
        let why = measured.rejected(&asked).unwrap();
        assert_eq!(why, "5 of 5 requests failed, the first: the answer was 19 bytes long, not 20");
        let anything = Target { exact: false, ..target };
        let mut callers = Callers::connect(&asked, &anything).await.unwrap();
        let measured = callers.run(Duration::from_millis(50)).await.unwrap();
        assert_eq!((measured.answered, measured.errors), (5, 0), "{traffic:?}");
        drop(callee);
    }
}

#[test]
fn requests_have_a_path_that_their_protocol_knows() {
    let target = Target::application("127.0.0.1:1".parse().unwrap(), None);
    assert_eq!(target.path(Traffic::Http2), "/bench");
    assert_eq!(target.path(Traffic::Grpc), "/bench.Bench/Call");
    assert_eq!(Target { path: "/other".into(), ..target }.path(Traffic::Grpc), "/other");
}

/// Answers each request on each connection with these bytes.
async fn answering(answer: &'static [u8]) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    stream.write_all(answer).await.unwrap();
                    if answer.windows(5).any(|word| word == b"close") {
                        break;
                    }
                }
            });
        }
    });
    Target::application(address, None)
}

async fn measure(target: &Target, arrivals: Arrivals) -> Measured {
    let mut callers = Callers::connect(&load(arrivals), target).await.unwrap();
    callers.run(Duration::from_millis(50)).await.unwrap()
}

#[tokio::test]
async fn answers_of_strangers_are_read_however_long_they_are() {
    let chunked =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nf\r\n0123456789abcde\r\n0\r\n\r\n";
    let until_close = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n0123456789abcdefghij";
    for answer in [&chunked[..], until_close] {
        let target = answering(answer).await;
        let measured = measure(&target, Arrivals::Fixed { rate: 200.0 }).await;
        assert_eq!((measured.answered, measured.first_error), (10, None));
    }
}

#[tokio::test]
async fn answers_that_are_none_are_errors() {
    for (answer, why) in [
        (&b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"[..], "the answer was 503"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\nconnection: close\r\n\r\nshort", "closed before its end"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n0123456789abcdefghijk", "more follows"),
    ] {
        let target = answering(answer).await;
        let measured = measure(&target, Arrivals::Fixed { rate: 200.0 }).await;
        assert_eq!((measured.answered, measured.errors), (0, 10));
        let first = measured.first_error.unwrap();
        assert!(first.contains(why), "{first}");
    }
}

#[tokio::test]
async fn handshakes_that_are_not_what_is_measured_are_errors() {
    for traffic in [Traffic::Http1, Traffic::Http2] {
        let arrivals = Arrivals::Fixed { rate: 100.0 };
        let resumed = Load { traffic, tls: Tls::Resumed, connect: Connect::Each, ..load(arrivals) };
        let callee = Callee::start_without_sessions(&resumed).await.unwrap();
        let target = Target::application(callee.address(), callee.trust().map(ToOwned::to_owned));
        let mut callers = Callers::connect(&resumed, &target).await.unwrap();
        let measured = callers.run(Duration::from_millis(50)).await.unwrap();
        assert_eq!((measured.answered, measured.errors), (0, 5));
        let first = measured.first_error.unwrap();
        assert!(first.starts_with("the handshake was Some(Full)"), "{first}");
    }
}

#[tokio::test]
async fn loads_that_make_no_sense_are_refused() {
    let sound = load(Arrivals::Saturated);
    let (_callee, target) = start(&sound).await;
    let rate = Arrivals::Fixed { rate: 10.0 };
    for (load, why) in [
        (Load { connections: 0, ..sound.clone() }, "needs a connection"),
        (Load { streams: 2, ..sound.clone() }, "one request at a time"),
        (Load { arrivals: Arrivals::Poisson { rate: f64::NAN }, ..sound.clone() }, "no rate"),
        (Load { traffic: Traffic::Tcp, request_bytes: 0, ..sound.clone() }, "0 bytes"),
        (Load { traffic: Traffic::TcpBulk, arrivals: rate, ..sound.clone() }, "bulk"),
        (Load { traffic: Traffic::TcpBulk, connect: Connect::Each, ..sound.clone() }, "kept"),
    ] {
        let error = Callers::connect(&load, &target).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let nobody = Target { address: "127.0.0.1:1".parse().unwrap(), ..target };
    let error = format!("{:#}", Callers::connect(&sound, &nobody).await.unwrap_err());
    assert!(error.starts_with("callers cannot speak Http1 to 127.0.0.1:1: cannot connect"), "{error}");
}

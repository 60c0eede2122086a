//! Names and paths lead to applications, and what passes is left as it is.

use std::time::{Duration, Instant};

use outrigger_testkit::app::App;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::developer::{Answer, Developer};

#[tokio::test]
async fn names_and_paths_are_served_over_https_within_two_seconds() {
    let (shop, api) = (App::builder().name("shop").start().await, App::builder().name("api").start().await);
    let (shop_port, api_port) = (shop.address().port(), api.address().port());
    let developer = Developer::new();
    let began = Instant::now();
    let dev = developer.dev(&[
        &format!("shop={shop_port}"),
        &format!("api=localhost:{api_port}"),
        &format!("shop/api=http://127.0.0.1:{api_port}"),
    ]);
    let answer = dev.get("shop.localhost", "/cart?id=7", "").await;
    let took = began.elapsed();
    println!("served after {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!((answer.status, answer.header("x-app")), (200, Some("shop")));
    assert!(answer.text().contains("/cart?id=7"), "{}", answer.text());
    assert_eq!(
        dev.urls[0],
        format!("https://shop.localhost:{} → localhost:{shop_port}", dev.port).replace(" →", "     →")
    );
    for (host, path, app) in [
        ("api.localhost", "/", "api"),
        ("shop.localhost", "/api", "api"),
        ("shop.localhost", "/api/items", "api"),
        ("shop.localhost", "/apis", "shop"),
    ] {
        assert_eq!(dev.get(host, path, "").await.header("x-app"), Some(app), "{host}{path}");
    }
    assert_eq!(dev.get("shop.localhost", "/api/items", "").await.text().matches("/api/items").count(), 1);

    let line = dev.log.recv_timeout(Duration::from_secs(5)).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["host"], &line["status"], &line["backend"]),
        (&format!("shop.localhost:{}", dev.port).into(), &200.into(), &"shop".into())
    );
}

/// Another name is not vouched for, even by somebody who has the authority's key.
#[tokio::test]
async fn http_leads_to_https() {
    let app = App::builder().start().await;
    let developer = Developer::new();
    let http = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let port = http.port().to_string();
    let site = format!("shop={}", app.address().port());
    let dev = developer.start(developer.command(&["dev", "--https-port", "0", "--http-port", &port, &site]));
    let mut stream = TcpStream::connect(http).await.unwrap();
    stream
        .write_all(b"GET /a?b=c HTTP/1.1\r\nhost: shop.localhost\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let answer = Answer::read(&bytes);
    let expected = format!("https://shop.localhost:{}/a?b=c", dev.port);
    assert_eq!((answer.status, answer.header("location")), (307, Some(expected.as_str())));
}

#[tokio::test]
async fn a_websocket_passes_untouched() {
    let app = App::builder().start().await;
    let developer = Developer::new();
    let dev = developer.dev(&[&format!("shop={}", app.address().port())]);
    let mut stream = dev.connect("shop.localhost").await;
    let upgrade = "GET /upgrade HTTP/1.1\r\nhost: shop.localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    for frame in [&b"\x81\x05hello"[..], b"\x00\xff\x01"] {
        stream.write_all(frame).await.unwrap();
        let mut back = vec![0; frame.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, frame);
    }
}

/// The application sends its second event only once the first has come through.
#[tokio::test]
async fn server_sent_events_are_not_held_back() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, mut first_seen) = tokio::sync::mpsc::channel::<()>(1);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            if head.is_empty() {
                continue;
            }
            let start =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(start.as_bytes()).await.unwrap();
            stream.write_all(b"d\r\ndata: first\n\n\r\n").await.unwrap();
            first_seen.recv().await;
            stream.write_all(b"e\r\ndata: second\n\n\r\n0\r\n\r\n").await.unwrap();
        }
    });
    let developer = Developer::new();
    let dev = developer.dev(&[&format!("shop={port}")]);
    let mut stream = dev.connect("shop.localhost").await;
    let request = "GET /events HTTP/1.1\r\nhost: shop.localhost\r\naccept: text/event-stream\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    for event in ["data: first\n\n", "data: second\n\n"] {
        while !text.contains(event) {
            let mut some = [0; 1024];
            let read = tokio::time::timeout(crate::developer::PATIENCE, stream.read(&mut some)).await;
            let read = read.expect("the event comes at once").unwrap();
            assert!(read > 0, "{text}");
            text.push_str(std::str::from_utf8(&some[..read]).unwrap());
        }
        let _ = seen.send(()).await;
    }
}

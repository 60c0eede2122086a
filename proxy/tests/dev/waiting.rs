//! An application that is not up yet.

use std::time::Duration;

use outrigger_testkit::app::App;

use crate::developer::{Developer, PATIENCE};

const HTML: &str = "accept: text/html,*/*;q=0.8\r\n";

#[tokio::test]
async fn an_application_that_is_not_up_yet_gets_a_page_that_says_so() {
    let nowhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let developer = Developer::new();
    let dev = developer.dev(&[&format!("shop={}", nowhere.port())]);
    assert!(dev.urls[0].ends_with("(not up yet)"), "{:?}", dev.urls);

    let page = dev.get("shop.localhost", "/", HTML).await;
    assert_eq!((page.status, page.header("content-type")), (503, Some("text/html; charset=utf-8")));
    assert!(page.text().contains("<h1>shop.localhost is not up yet</h1>"), "{}", page.text());
    assert!(page.text().contains(&nowhere.to_string()), "{}", page.text());
    assert_eq!(page.header("cache-control"), Some("no-store"));
    let address =
        page.text().split(['"', '(', ' ']).find(|word| word.contains("://") || word.starts_with("//"));
    assert_eq!(address, None, "nothing is loaded from elsewhere");

    let plain = dev.get("shop.localhost", "/", "accept: application/json\r\n").await;
    assert_eq!((plain.status, plain.header("content-type")), (503, Some("text/plain; charset=utf-8")));
    assert!(plain.header("proxy-status").unwrap().contains("connection_refused"), "{plain:?}");

    let app = App::builder().name("shop").address(nowhere).start().await;
    assert_eq!(dev.get("shop.localhost", "/", HTML).await.header("x-app"), Some("shop"));
    app.kill().await;
}

/// The page asks once a second: a developer's terminal is not to be filled with that.
#[tokio::test]
async fn what_the_page_asks_is_not_logged() {
    let nowhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let developer = Developer::new();
    let dev = developer.dev(&[&format!("shop={}", nowhere.port())]);
    let mut stream = dev.connect("shop.localhost").await;
    let look = "GET / HTTP/1.1\r\nhost: shop.localhost\r\noutrigger-waiting: 1\r\nconnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, look.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes).await;
    assert_eq!(crate::developer::Answer::read(&bytes).status, 503);
    dev.get("shop.localhost", "/logged", "").await;
    let line = dev.log.recv_timeout(PATIENCE).unwrap();
    assert!(line.contains("\"path\":\"/logged\""), "{line}");
    assert!(dev.log.recv_timeout(Duration::from_millis(300)).is_err());
}

/// As the port of a container does before the application within it listens.
#[tokio::test]
async fn a_port_that_drops_its_connections_is_not_up_either() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let developer = Developer::new();
    let dev = developer.dev(&[&format!("shop={port}")]);
    // The other loopback address refuses: which of the two is heard of last is open.
    let page = dev.get("shop.localhost", "/", HTML).await;
    assert!([502, 503].contains(&page.status), "{page:?}");
    assert!(page.text().contains("<h1>shop.localhost is not up yet</h1>"), "{}", page.text());
}

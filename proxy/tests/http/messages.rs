//! HTTP/1 messages: versions, lengths, connections.

use outrigger_testkit::app::App;

use crate::support::{Running, one_backend};

#[tokio::test]
async fn http_1_0_closes_unless_it_is_asked_to_stay() {
    let app = App::builder().start().await;
    let proxy = Running::start(&one_backend(&[app.address()])).await;
    let mut wire = proxy.connect().await;
    wire.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let response = wire.response().await;
    assert_eq!((response.status(), response.header("connection").as_deref()), (200, Some("keep-alive")));
    wire.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(wire.response().await.status(), 200);
    assert!(wire.closed().await);
}

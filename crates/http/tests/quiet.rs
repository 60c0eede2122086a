//! Callers of HTTP/1 that ask for nothing are let go; those with something under way are not.
#![allow(clippy::unwrap_used, missing_docs)]

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use outrigger_http::Error;
use outrigger_http::message::{Asked, Handler, Reply};
use outrigger_http::serve::{Drain, Settings, Version, connection};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

/// Answers only once it is told to.
struct Slow(Rc<Notify>);

impl Handler for Slow {
    type Body = Full<Bytes>;

    fn answer(&self, _: Asked) -> impl Future<Output = Reply<Full<Bytes>>> + use<> {
        let go = self.0.clone();
        async move {
            go.notified().await;
            Reply::new(Response::new(Full::new(Bytes::from_static(b"done"))))
        }
    }

    fn refuse(&self, error: Error) -> Reply<Full<Bytes>> {
        let mut response = Response::new(Full::new(error.to_string().into()));
        *response.status_mut() = error.reason.status();
        Reply::new(response)
    }
}

/// A connection whose every answer waits for `go`.
fn serve(drain: &Rc<Drain>, go: &Rc<Notify>) -> (DuplexStream, JoinHandle<bool>) {
    let (caller, served) = tokio::io::duplex(1024);
    let (drain, slow) = (drain.clone(), Slow(go.clone()));
    let second = Some(Duration::from_secs(1));
    let settings = Settings { header_timeout: second, idle_timeout: second, ..Settings::default() };
    let settings = Arc::new(settings);
    let task = async move { connection(served, Version::Http1, slow, settings, drain).await.is_ok() };
    (caller, spawn_local(task))
}

#[tokio::test]
async fn a_caller_that_asks_for_nothing_is_let_go_at_the_second_look() {
    let story = async {
        let drain = Rc::new(Drain::default());
        let go = Rc::new(Notify::new());
        let (mut slow, slow_served) = serve(&drain, &go);
        let (mut busy, busy_served) = serve(&drain, &go);
        slow.write_all(b"GET / HTTP/1.1\r\nHost: s").await.unwrap();
        busy.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await.unwrap();
        tokio::task::yield_now().await;

        drain.tick();
        tokio::task::yield_now().await;
        assert!(!slow_served.is_finished(), "it has only just come");
        drain.tick();
        assert!(slow_served.await.unwrap());
        let mut told = String::new();
        slow.read_to_string(&mut told).await.unwrap();
        assert!(told.starts_with("HTTP/1.1 408 "), "{told}");

        drain.tick();
        go.notify_one();
        let mut answer = [0; 15];
        busy.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        drain.tick();
        tokio::task::yield_now().await;
        assert!(!busy_served.is_finished(), "it was answered just now");
        drain.tick();
        assert!(busy_served.await.unwrap());
    };
    LocalSet::new().run_until(story).await;
}

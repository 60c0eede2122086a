//! By default nothing that is silent for half an hour is cut, and nothing lost is kept for ever.
#![allow(clippy::unwrap_used, missing_docs)]

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use outrigger_http::Error;
use outrigger_http::body::{BodyError, Due};
use outrigger_http::message::{Asked, Handler, Reply};
use outrigger_http::serve::{Drain, Settings, Version, connection};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};

/// Half an hour, and a little more than an hour, in ticks.
const HALF_AN_HOUR: u32 = 1800;
const AN_HOUR: u32 = 3605;

/// One event, and then nothing.
struct Events(Option<Bytes>);

impl Body for Events {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0.take().map_or(Poll::Pending, |event| Poll::Ready(Some(Ok(Frame::data(event)))))
    }
}

impl Due for Events {}

struct Stream;

impl Handler for Stream {
    type Body = Events;

    fn answer(&self, _: Asked) -> impl Future<Output = Reply<Events>> + use<> {
        std::future::ready(Reply::new(Response::new(Events(Some(Bytes::from_static(b"event"))))))
    }

    fn refuse(&self, _: Error) -> Reply<Events> {
        Reply::new(Response::new(Events(None)))
    }
}

fn serve(drain: &Rc<Drain>, version: Version) -> (DuplexStream, JoinHandle<bool>) {
    let (caller, served) = tokio::io::duplex(64 * 1024);
    let (drain, settings) = (drain.clone(), Arc::new(Settings::default()));
    (caller, spawn_local(async move { connection(served, version, Stream, settings, drain).await.is_ok() }))
}

async fn pass(drain: &Drain, ticks: u32) {
    for _ in 0..ticks {
        drain.tick();
    }
    // Each task that was woken gets its turn.
    for _ in 0..10 {
        yield_now().await;
    }
}

#[tokio::test]
async fn silent_events_over_http_1_are_kept_for_half_an_hour() {
    let story = async {
        let drain = Rc::new(Drain::default());
        let (mut caller, served) = serve(&drain, Version::Http1);
        caller.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"event\r\n") {
            caller.read_buf(&mut answer).await.unwrap();
        }
        pass(&drain, HALF_AN_HOUR).await;
        assert!(!served.is_finished());
        pass(&drain, AN_HOUR - HALF_AN_HOUR).await;
        assert!(served.is_finished());
    };
    LocalSet::new().run_until(story).await;
}

#[tokio::test]
async fn silent_events_over_http_2_are_kept_for_half_an_hour() {
    let story = async {
        let drain = Rc::new(Drain::default());
        let (caller, served) = serve(&drain, Version::Http2);
        let (sender, connection) = h2::client::handshake(caller).await.unwrap();
        spawn_local(connection);
        let mut sender = sender.ready().await.unwrap();
        let request = Request::get("http://shop/").body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "event");
        let next = spawn_local(async move { body.data().await });
        pass(&drain, HALF_AN_HOUR).await;
        assert!(!next.is_finished());
        pass(&drain, AN_HOUR - HALF_AN_HOUR).await;
        let ended = next.await.unwrap().unwrap().unwrap_err();
        assert_eq!(ended.reason(), Some(h2::Reason::INTERNAL_ERROR));
        assert!(!served.is_finished(), "the connection goes on");
    };
    LocalSet::new().run_until(story).await;
}

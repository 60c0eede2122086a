//! Serving one connection of HTTP, whichever version it speaks, until it ends or is drained.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming as HyperIncoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Sleep;

use crate::body::{BodyError, Incoming};
use crate::h2;
use crate::message::{Asked, Handler, Interim};
use crate::upgrade::OnUpgrade;

/// How long a caller of HTTP/1 may at least take for a request's head, and between two requests. One that has sent no
/// whole head in up to twice this time is let go.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a caller that has not asked for anything yet still may once its connection is to end: a request's head may
/// be on its way. The others end by themselves: they are idle, or something is under way on them.
const LAST_WORD: Duration = Duration::from_secs(1);
/// How many bytes of header a message may have.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// The version of HTTP that a connection speaks, as detection or ALPN found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Tells the connections of one worker, or of one listener, to end when what is under way is done.
#[derive(Debug, Default)]
pub struct Drain {
    on: Cell<bool>,
    notify: Notify,
    /// Those who speak HTTP/1.
    callers: RefCell<Vec<Weak<Quiet>>>,
}

impl Drain {
    /// Tells them.
    pub fn begin(&self) {
        self.on.set(true);
        self.notify.notify_waiters();
    }

    /// Whether they were told.
    pub const fn is_on(&self) -> bool {
        self.on.get()
    }

    /// Lets go of the callers that have sent no whole head since this was called last. To be called every
    /// [`HEADER_READ_TIMEOUT`].
    pub fn let_go_of_quiet(&self) {
        self.callers.borrow_mut().retain(|caller| caller.upgrade().is_some_and(|caller| caller.is_heard()));
    }

    /// Remembers a caller. Those that have gone are forgotten as often as their number doubles.
    fn remember(&self, caller: &Rc<Quiet>) {
        let mut callers = self.callers.borrow_mut();
        if callers.len() == callers.capacity() {
            callers.retain(|caller| caller.strong_count() > 0);
            let here = callers.len();
            callers.reserve(here.max(64));
        }
        callers.push(Rc::downgrade(caller));
    }

    /// Ready once they are told.
    pub async fn begun(&self) {
        if !self.is_on() {
            self.notify.notified().await;
        }
    }
}

/// A connection that can be asked to end when what is under way is done.
pub(crate) trait Serving: Future {
    fn wind_down(self: Pin<&mut Self>);
}

/// Serves one connection until it ends. When `drain` begins, HTTP/1.1 callers are told `Connection: close` with the
/// response under way, and HTTP/2 callers GOAWAY, in both phases; what is under way is finished.
///
/// # Errors
/// What ended the connection, if it was not either side's orderly end.
pub async fn connection<IO, H, B>(
    io: IO,
    version: Version,
    handler: H,
    drain: Rc<Drain>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler<Body = B> + Unpin + 'static,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<BodyError> + Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let quiet = Rc::new(Quiet { heard: Cell::new(true), ..Quiet::default() });
    if version == Version::Http2 {
        let connection = h2::server::Connection::new(io, handler, quiet.clone());
        return Ok(drained(connection, &drain, &quiet).await.unwrap_or(Ok(()))?);
    }
    let io = TokioIo::new(io);
    let asked = quiet.clone();
    let service = service_fn(move |request: Request<HyperIncoming>| {
        let busy = asked.asked();
        let reply = handler.answer(receive(request));
        async move { Ok::<_, Infallible>(reply.await.response.map(|body| Answer { body, _busy: busy })) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .header_read_timeout(None)
        .max_header_size(MAX_HEADER_BYTES)
        .serve_connection(io, service)
        .with_upgrades();
    drain.remember(&quiet);
    Ok(drained(connection, &drain, &quiet).await.unwrap_or(Ok(()))?)
}

fn receive(mut request: Request<HyperIncoming>) -> Asked {
    let upgrades =
        request.headers().contains_key(http::header::UPGRADE) || request.method() == http::Method::CONNECT;
    let upgrade = upgrades.then(|| OnUpgrade::hyper(hyper::upgrade::on(&mut request)));
    Asked { request: request.map(Incoming::from), spelling: None, interim: Interim::default(), upgrade }
}

/// Whether a caller asks for anything. Looked at once in a while: a timer for each head cost more than reading it.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    /// Requests that are not yet answered.
    busy: Cell<u32>,
    /// Whether anything was ever asked.
    asked: Cell<bool>,
    /// Whether something was asked or answered since the last look.
    heard: Cell<bool>,
    /// Whether the connection is to end.
    over: Cell<bool>,
    /// Wakes the connection's task.
    waker: RefCell<Option<Waker>>,
}

/// A request that is not yet answered.
#[derive(Debug)]
pub(crate) struct Busy(Rc<Quiet>);

impl Quiet {
    /// Notes a request, until what is returned is dropped.
    pub(crate) fn asked(self: &Rc<Self>) -> Busy {
        self.asked.set(true);
        self.busy.set(self.busy.get() + 1);
        Busy(self.clone())
    }

    /// Whether anything was heard since the last look; if not, its connection ends.
    fn is_heard(&self) -> bool {
        let heard = self.heard.replace(false) || self.busy.get() > 0;
        if !heard {
            self.over.set(true);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
        heard
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get().saturating_sub(1));
        self.0.heard.set(true);
    }
}

/// A response's body, which keeps its connection busy.
struct Answer<B> {
    body: B,
    _busy: Busy,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<IO, S, B> Serving for hyper::server::conn::http1::UpgradeableConnection<IO, S>
where
    Self: Future,
    S: hyper::service::HttpService<HyperIncoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    IO: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn wind_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Polls a connection to its end, and winds it down once `drain` begins; `None` if its caller was quiet for too long.
/// The waits for both are registered once, not at each poll: this runs several times per request.
async fn drained<C: Serving>(connection: C, drain: &Drain, quiet: &Quiet) -> Option<C::Output> {
    let mut connection = pin!(connection);
    let mut begun = pin!(drain.begun());
    let (mut registered, mut winding) = (false, false);
    // Boxed, for every connection would have the room for it.
    let mut last_word: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx: &mut Context<'_>| -> Poll<Option<C::Output>> {
        if quiet.over.get() {
            return Poll::Ready(None);
        }
        let first = !std::mem::replace(&mut registered, true);
        if first {
            quiet.waker.replace(Some(cx.waker().clone()));
        }
        // Before it is wound down: a request that is there already is under way.
        let polled = connection.as_mut().poll(cx);
        if polled.is_ready() || !(first || drain.is_on()) {
            return polled.map(Some);
        }
        if winding {
            let silent =
                !quiet.asked.get() && last_word.as_mut().is_some_and(|w| w.as_mut().poll(cx).is_ready());
            return if silent { Poll::Ready(None) } else { Poll::Pending };
        }
        winding = begun.as_mut().poll(cx).is_ready() || drain.is_on();
        if winding {
            connection.as_mut().wind_down();
            let polled = connection.as_mut().poll(cx);
            if polled.is_pending() && !quiet.asked.get() {
                let wait = last_word.insert(Box::pin(tokio::time::sleep(LAST_WORD)));
                // Only registers it: it has just begun.
                let _ = wait.as_mut().poll(cx);
            }
            return polled.map(Some);
        }
        polled.map(Some)
    })
    .await
}

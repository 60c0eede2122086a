//! Serving one connection of HTTP, whichever version it speaks, until it ends or is drained.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Body;
use hyper::body::Incoming as HyperIncoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Sleep;

use crate::Local;
use crate::body::Incoming;
use crate::h1::{self, Limits};
use crate::message::{Asked, Handler, Interim};

/// How often a [`Drain`]'s clock ticks.
pub const TICK: Duration = Duration::from_secs(1);
/// How long a connection that nobody has asked anything of still may once it is to end: a request may be on its way.
const LAST_WORD: Duration = Duration::from_secs(1);
/// How many requests a caller may have under way on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// The version of HTTP that a connection speaks, as detection or ALPN found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What a listener allows its callers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How much header a request, or the response to it, may have.
    pub limits: Limits,
    /// How many requests a caller may have under way on one connection of HTTP/2.
    pub streams: u32,
    /// How long a caller may take for a request's header; `None`: as long as it likes.
    pub header_timeout: Option<Duration>,
    /// How long a connection is kept on which nothing is asked; `None`: as long as its caller likes.
    pub idle_timeout: Option<Duration>,
    /// How fast a request's body has to come while it is waited for.
    pub body_rate: Option<BodyRate>,
}

/// How fast a body has to come.
#[derive(Debug, Clone, Copy)]
pub struct BodyRate {
    /// Bytes a second.
    pub bytes: u64,
    /// How long that does not matter.
    pub grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            streams: MAX_STREAMS,
            header_timeout: Some(Duration::from_mins(1)),
            idle_timeout: Some(Duration::from_mins(5)),
            body_rate: None,
        }
    }
}

impl Settings {
    pub(crate) fn header_ticks(&self) -> u32 {
        self.header_timeout.map_or(u32::MAX, ticks)
    }

    pub(crate) fn idle_ticks(&self) -> u32 {
        self.idle_timeout.map_or(u32::MAX, ticks)
    }

    /// Whether a body of which so many bytes came while it was waited for is too slow.
    pub(crate) fn is_too_slow(&self, bytes: u64, waited: u32) -> bool {
        self.body_rate.is_some_and(|rate| {
            let late = u64::from(waited.saturating_sub(ticks(rate.grace)));
            late > 0 && bytes < late.saturating_mul(rate.bytes)
        })
    }
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u32::MAX)
}

/// A caller of HTTP/1, for the eyes of its [`Drain`].
pub(crate) trait Caller {
    /// Another tick has passed.
    fn tick(&self);
    /// The connection is to end.
    fn wind_down(&self);
}

/// Tells the connections of one worker, or of one listener, to end when what is under way is done; and what time it is.
#[derive(Default)]
pub struct Drain {
    on: Cell<bool>,
    notify: Notify,
    now: Cell<u32>,
    /// Those who speak HTTP/1.
    callers: RefCell<Vec<Weak<dyn Caller>>>,
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("on", &self.on).field("now", &self.now).finish_non_exhaustive()
    }
}

impl Drain {
    /// Tells them.
    pub fn begin(&self) {
        self.on.set(true);
        self.notify.notify_waiters();
        self.each(|caller| caller.wind_down());
    }

    /// Whether they were told.
    pub const fn is_on(&self) -> bool {
        self.on.get()
    }

    /// How often the clock has ticked.
    pub(crate) const fn now(&self) -> u32 {
        self.now.get()
    }

    /// Lets the clock tick, and lets go of the callers that had their time. To be called every [`TICK`]: a timer for each
    /// request cost more than reading it.
    pub fn tick(&self) {
        self.now.set(self.now.get().wrapping_add(1));
        self.each(|caller| caller.tick());
    }

    /// Whether no caller of HTTP/1 is there that time matters to.
    pub fn is_empty(&self) -> bool {
        self.callers.borrow().is_empty()
    }

    fn each(&self, tell: impl Fn(&dyn Caller)) {
        self.callers.borrow_mut().retain(|caller| match caller.upgrade() {
            Some(caller) => {
                tell(&*caller);
                true
            }
            None => false,
        });
    }

    /// Remembers a caller. Those that have gone are forgotten at each tick, and as often as their number doubles.
    pub(crate) fn remember(&self, caller: Weak<dyn Caller>) {
        let mut callers = self.callers.borrow_mut();
        if callers.len() == callers.capacity() {
            callers.retain(|caller| caller.strong_count() > 0);
            let here = callers.len();
            callers.reserve(here.max(64));
        }
        callers.push(caller);
    }

    /// Ready once they are told.
    pub async fn begun(&self) {
        if !self.is_on() {
            self.notify.notified().await;
        }
    }
}

/// A connection that can be asked to end when what is under way is done.
trait Serving: Future {
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
    settings: Arc<Settings>,
    drain: Rc<Drain>,
) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler<Body = B> + 'static,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + fmt::Display,
{
    match version {
        Version::Http1 => h1::serve(io, handler, settings, drain).await,
        Version::Http2 => http2(io, handler, &settings, &drain).await,
    }
}

async fn http2<IO, H, B>(io: IO, handler: H, settings: &Settings, drain: &Drain) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Handler<Body = B> + 'static,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let asked = Rc::new(Cell::new(false));
    let asks = asked.clone();
    let service = service_fn(move |request: Request<HyperIncoming>| {
        asks.set(true);
        let request = request.map(Incoming::from);
        let reply =
            handler.answer(Asked { request, spelling: None, interim: Interim::default(), upgrade: None });
        async move { Ok::<_, Infallible>(reply.await.response) }
    });
    let connection = hyper::server::conn::http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(settings.streams)
        .max_header_list_size(u32::try_from(settings.limits.bytes).unwrap_or(u32::MAX))
        .max_local_error_reset_streams(Some(1024))
        .max_pending_accept_reset_streams(Some(20))
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(TokioIo::new(io), service);
    drained(connection, drain, &asked).await.unwrap_or(Ok(())).map_err(io::Error::other)
}

impl<IO, S, B> Serving for hyper::server::conn::http2::Connection<IO, S, Local>
where
    Self: Future,
    S: hyper::service::HttpService<HyperIncoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    IO: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    Local: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn wind_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Polls a connection to its end, and winds it down once `drain` begins; `None` if its caller then had nothing to ask.
/// The wait for that is registered once, not at each poll: this runs several times per request.
async fn drained<C: Serving>(connection: C, drain: &Drain, asked: &Cell<bool>) -> Option<C::Output> {
    let mut connection = pin!(connection);
    let mut begun = pin!(drain.begun());
    let (mut registered, mut winding) = (false, false);
    // Boxed, for every connection would have the room for it.
    let mut last_word: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx: &mut Context<'_>| -> Poll<Option<C::Output>> {
        let first = !std::mem::replace(&mut registered, true);
        // Before it is wound down: a request that is there already is under way.
        let polled = connection.as_mut().poll(cx);
        if polled.is_ready() || !(first || drain.is_on()) {
            return polled.map(Some);
        }
        if winding {
            let silent = !asked.get() && last_word.as_mut().is_some_and(|w| w.as_mut().poll(cx).is_ready());
            return if silent { Poll::Ready(None) } else { Poll::Pending };
        }
        winding = begun.as_mut().poll(cx).is_ready() || drain.is_on();
        if winding {
            connection.as_mut().wind_down();
            let polled = connection.as_mut().poll(cx);
            if polled.is_pending() && !asked.get() {
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

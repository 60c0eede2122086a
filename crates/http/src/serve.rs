//! Serving one connection of HTTP, whichever version it speaks, until it ends or is drained.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use crate::Local;

/// How long a caller may take for a request's head, from its first byte, and between two requests.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_mins(1);
/// How many bytes of header a message may have.
const MAX_HEADER_BYTES: usize = 64 * 1024;
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

/// Tells the connections of one worker, or of one listener, to end when what is under way is done.
#[derive(Debug, Default)]
pub struct Drain {
    on: Cell<bool>,
    notify: Notify,
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
pub async fn connection<IO, F, R, B>(
    io: IO,
    version: Version,
    handler: F,
    drain: Rc<Drain>,
) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R + 'static,
    R: Future<Output = Response<B>> + 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let io = TokioIo::new(io);
    let service = service_fn(move |request| {
        let response = handler(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    match version {
        Version::Http1 => {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_READ_TIMEOUT)
                .max_header_size(MAX_HEADER_BYTES)
                .serve_connection(io, service)
                .with_upgrades();
            drained(connection, &drain).await
        }
        Version::Http2 => {
            let connection = hyper::server::conn::http2::Builder::new(Local)
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(MAX_HEADER_BYTES as u32)
                .max_local_error_reset_streams(Some(1024))
                .max_pending_accept_reset_streams(Some(20))
                .initial_stream_window_size(256 * 1024)
                .initial_connection_window_size(1024 * 1024)
                .keep_alive_interval(Some(Duration::from_secs(30)))
                .keep_alive_timeout(Duration::from_secs(20))
                .serve_connection(io, service);
            drained(connection, &drain).await
        }
    }
}

impl<IO, S, B> Serving for hyper::server::conn::http1::UpgradeableConnection<IO, S>
where
    Self: Future,
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    IO: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn wind_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<IO, S, B> Serving for hyper::server::conn::http2::Connection<IO, S, Local>
where
    Self: Future,
    S: hyper::service::HttpService<Incoming, ResBody = B>,
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

/// Polls a connection to its end, and winds it down once `drain` begins. The wait for that is registered once, not
/// at each poll: this runs several times per request.
async fn drained<C: Serving>(connection: C, drain: &Drain) -> C::Output {
    let mut connection = pin!(connection);
    let mut begun = pin!(drain.begun());
    let (mut registered, mut winding) = (false, false);
    poll_fn(|cx: &mut Context<'_>| -> Poll<C::Output> {
        if !winding && (drain.is_on() || !std::mem::replace(&mut registered, true)) {
            winding = begun.as_mut().poll(cx).is_ready() || drain.is_on();
            if winding {
                connection.as_mut().wind_down();
            }
        }
        connection.as_mut().poll(cx)
    })
    .await
}

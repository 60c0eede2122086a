//! A connection of HTTP/1 to a backend: one request at a time, and the next one once both it and its response are over.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

use super::conn::{self, Body, Conn, Next, Sending, Source};
use super::encode::{self, is_switch};
use super::head::{self, Limits, ResponseHead, Wrong};
use super::outbox::Coding;
use crate::body::{BodyError, Incoming, RequestBody};
use crate::filter::strip_passed_on;
use crate::message::{Answered, Interim, InterimResponse, Outgoing};
use crate::upgrade::{OnUpgrade, Tunnel};

/// How long nothing may move of a request whose response is complete.
const STALLED: Duration = Duration::from_mins(5);

/// A connection to a backend.
#[derive(Debug)]
pub(crate) struct Sender<IO>(Rc<Called<IO>>);

struct Called<IO> {
    conn: Conn<IO>,
    /// Whether the backend takes another request after this one.
    keep_alive: Cell<bool>,
    /// Whether the request's body is still being sent.
    uploading: Cell<bool>,
    /// Whose request it is.
    caller: RefCell<Interim>,
    /// What the backend is called in errors.
    name: Box<str>,
}

impl<IO> fmt::Debug for Called<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Called").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Source for Called<IO> {
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.pass_on_end(cx);
        self.conn.poll_body(cx, |wrong, limits| wrong.of_response(limits, &self.name))
    }

    fn let_go(&self) {
        self.conn.let_go();
    }
}

/// Why a request got no response.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// The connection broke.
    Broke(io::Error),
    /// What came is not a response that can be sent on.
    Wrong(Wrong),
    /// The request's body broke off, or contradicts its header.
    Body,
}

impl<IO: AsyncRead + AsyncWrite + Unpin + 'static> Sender<IO> {
    pub(crate) fn new(io: IO, name: Box<str>) -> Self {
        Self(Rc::new(Called {
            conn: Conn::new(io, Limits::default()),
            keep_alive: Cell::new(true),
            uploading: Cell::new(false),
            caller: RefCell::default(),
            name,
        }))
    }

    /// Whether another request can be sent: the last one is over, and the backend has not closed the connection as far
    /// as can be seen without asking it. Where it is usable, the task of `cx` is woken when that ends, unless another asks.
    pub(crate) fn is_usable(&self, cx: &mut Context<'_>) -> bool {
        let Called { conn, keep_alive, uploading, .. } = &*self.0;
        keep_alive.get()
            && !uploading.get()
            && conn.is_read()
            && !conn.has_more()
            && conn.poll_fill(cx).is_pending()
    }

    /// What `look` sees of the connection; `None` once it was closed, or given to another use.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&IO) -> T) -> Option<T> {
        self.0.conn.look(look)
    }

    /// Lets go of the caller whose request is over: it may have gone while the connection is kept.
    pub(crate) fn rest(&self) {
        self.0.caller.take();
    }

    /// Closes it, whatever is under way.
    pub(crate) fn close(&self) {
        self.0.conn.close();
    }

    /// Sends a request, and waits for the head of its response. Where it fails, the request is in its slot again, with its
    /// body if nothing was taken of it; and it is known whether a byte of the request was written.
    pub(crate) async fn send(
        &self,
        slot: &mut Option<Outgoing>,
        limits: Limits,
    ) -> Result<Answered, (Unsent, bool)> {
        let called = &self.0;
        let nothing = || (Unsent::Broke(io::Error::other("the request was sent already")), false);
        let Some(Outgoing { request, spelling, interim }) = slot.take() else { return Err(nothing()) };
        called.conn.set_limits(limits);
        called.conn.begin_message();
        let (parts, body) = request.into_parts();
        let mut coding = Coding::Done;
        called.conn.write(|out| {
            let body = (body.is_end_stream(), body.size_hint());
            coding = encode::request(&parts, spelling.as_deref(), body, out);
        });
        let mut sending = Sending::new(body, coding);
        called.caller.replace(interim.clone());
        let mut sent = false;
        let head = poll_fn(|cx| {
            if let Some(failed) = called.poll_sending(&mut sending, &mut sent, cx) {
                return Poll::Ready(Err(failed));
            }
            if sent {
                called.pass_on_end(cx);
            }
            loop {
                let head = std::task::ready!(called.poll_head(cx, &parts.method))?;
                let interim_only =
                    head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS;
                if !interim_only {
                    return Poll::Ready(Ok(head));
                }
                let mut response = Response::new(());
                *response.status_mut() = head.status;
                *response.headers_mut() = head.headers;
                strip_passed_on(response.headers_mut(), false);
                response.headers_mut().remove(CONTENT_LENGTH);
                interim.send(&InterimResponse { response, spelling: Some(head.spelling) });
            }
        })
        .await;
        match head {
            Ok(head) => Ok(self.begin(head, &parts.method, sending, sent)),
            Err(unsent) => {
                called.conn.close();
                let written = called.conn.has_begun_message();
                let whole = !written && !sending.begun;
                let body = sending.into_body().filter(|_| whole).unwrap_or(RequestBody::Spent);
                *slot = Some(Outgoing { request: Request::from_parts(parts, body), spelling, interim });
                Err((unsent, written))
            }
        }
    }

    /// Begins to read a response, while what is left of the request is still being sent.
    fn begin(
        &self,
        head: ResponseHead,
        method: &Method,
        mut sending: Sending<RequestBody>,
        sent: bool,
    ) -> Answered {
        let called = &self.0;
        called.keep_alive.set(head.keep_alive && called.keep_alive.get());
        called.conn.begin(head.framing);
        let switch = is_switch(method, head.status);
        let upgrade = if switch { self.upgrade() } else { None };
        if !sent && !switch {
            called.uploading.set(true);
            let called = called.clone();
            tokio::task::spawn_local(async move {
                let mut stalled = pin!(sleep(STALLED));
                let sent = poll_fn(|cx| {
                    called.conn.driven(cx);
                    let sent = sending.poll_send(&called.conn, cx);
                    if sent.is_pending() {
                        let over = stalled.as_mut().poll(cx).is_ready() && called.conn.is_read();
                        stalled.as_mut().reset(Instant::now() + STALLED);
                        // Set anew, it has to be asked again to wake this task.
                        let _ = stalled.as_mut().poll(cx);
                        if over {
                            called.conn.close();
                            return Poll::Ready(Ok(()));
                        }
                    }
                    sent
                });
                match sent.await {
                    Ok(()) => called.uploading.set(false),
                    // The response may be whole all the same.
                    Err(conn::Unsent::Io(_)) => called.keep_alive.set(false),
                    // The backend must not take a part of a request for all of it.
                    Err(conn::Unsent::Body(_) | conn::Unsent::Length(_)) => called.conn.close(),
                }
            });
        }
        let body = if switch || called.conn.is_read() {
            Incoming::empty()
        } else {
            Incoming::http1(Body::new(called.clone(), head.framing))
        };
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        Answered { response, spelling: Some(head.spelling), upgrade }
    }

    fn upgrade(&self) -> Option<OnUpgrade> {
        let (before, io) = self.0.conn.take()?;
        let (sender, upgrade) = OnUpgrade::pair();
        sender.send(Tunnel::new(before, io)).ok()?;
        Some(upgrade)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Called<IO> {
    /// Sends what can be sent of a request. What the connection does not take is no failure once it has taken something:
    /// the backend may have answered before it stopped reading.
    fn poll_sending(
        &self,
        sending: &mut Sending<RequestBody>,
        sent: &mut bool,
        cx: &mut Context<'_>,
    ) -> Option<Unsent> {
        if *sent {
            return None;
        }
        match sending.poll_send(&self.conn, cx) {
            Poll::Pending => None,
            Poll::Ready(Ok(())) => {
                *sent = true;
                None
            }
            Poll::Ready(Err(conn::Unsent::Io(_))) if self.conn.has_begun_message() => {
                self.keep_alive.set(false);
                *sent = true;
                None
            }
            Poll::Ready(Err(conn::Unsent::Io(error))) => Some(Unsent::Broke(error)),
            Poll::Ready(Err(conn::Unsent::Body(_) | conn::Unsent::Length(_))) => Some(Unsent::Body),
        }
    }

    /// Once the caller has said its last on its connection, the backend hears the same. What it makes of that is its own
    /// affair: some applications take it that the caller is gone.
    fn pass_on_end(&self, cx: &mut Context<'_>) {
        if !self.uploading.get() && self.caller.borrow().has_finished() {
            self.caller.take();
            self.keep_alive.set(false);
            // What fails here fails the response as well.
            let _ = self.conn.poll_shutdown(cx);
        }
    }

    fn poll_head(&self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<ResponseHead, Unsent>> {
        let next =
            std::task::ready!(self.conn.poll_head(cx, |raw, limits| head::response(raw, limits, method)));
        Poll::Ready(match next {
            Ok(Next::Head(head)) => Ok(head),
            Ok(Next::Wrong(wrong)) => Err(Unsent::Wrong(wrong)),
            Ok(Next::End(_)) => Err(Unsent::Broke(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection ended before the response",
            ))),
            Err(error) => Err(Unsent::Broke(error)),
        })
    }
}

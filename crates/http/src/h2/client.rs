//! A connection of HTTP/2 to an endpoint, which many requests share.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use http::uri::Scheme;
use http::{Method, Request, Response};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use super::alive::{KeepAlive, Terms};
use super::extended::{self, Wanted};
use super::heard::{Ear, Heard};
use super::received::{Received, Uploading};
use super::sending::Sending;
use super::sieve::Sieve;
use super::{
    ByteStream, MAX_RESETS, MAX_SEND_BUFFER, SHARED_FRAME_OVERHEAD, SHARED_WINDOW, STREAM_WINDOW, fits,
    say_length_once, spell, spelled,
};
use crate::body::{Incoming, RequestBody};
use crate::error::Error;
use crate::filter::{strip_hop_by_hop, to_http2};
use crate::forward::UNREACHED;
use crate::h1::{Limits, Spelling, Wrong};
use crate::message::{Answered, Interim, InterimResponse, Outgoing};
use crate::room::{Connections, Unused};
use crate::upgrade::{OnUpgrade, Tunnel};

/// How much header `h2` is told to read: the most that a listener can allow, for all share the connection, and more, so
/// that what is too large can be named.
const MAX_HEADER_LIST: u32 = 2 * 1024 * 1024;
/// A sidecar that is gone is found within 30 s, while requests wait for it.
const ALIVE: Terms =
    Terms { silence: Duration::from_secs(10), patience: Duration::from_secs(10), sparing: Duration::ZERO };
/// So is an application. But gRPC's servers end a connection that asks whether they are there three times too often: more
/// than once in 5 minutes in which they sent no part of a message (gRFC A8).
const ALIVE_APPLICATION: Terms = Terms { sparing: Duration::from_secs(5 * 60 + 10), ..ALIVE };

/// A connection to send requests on. Its [`Driver`] ends once it is dropped and its last response has ended.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: RefCell<SendRequest<Bytes>>,
    state: Rc<State>,
}

/// Who is at the other end of a connection, and what is known of it.
#[derive(Debug)]
pub(crate) struct Callee {
    /// What its requests are said to be asked over.
    pub(crate) scheme: Scheme,
    /// Whether the other end is a sidecar too, with an application of HTTP/1.1 behind it: it is told how headers were
    /// spelled, and says so.
    pub(crate) carried: bool,
    /// Whether the other end is a sidecar.
    pub(crate) sidecar: bool,
    /// How many requests it takes at a time, as it has said on other connections; what it says on this one is kept there.
    pub(crate) streams: Rc<Cell<usize>>,
    /// When the connection gets no more requests.
    pub(crate) expires: Option<Instant>,
    /// The backend's connections, where they are limited.
    pub(crate) room: Option<Arc<Connections>>,
}

#[derive(Debug)]
struct State {
    callee: Callee,
    /// How many requests are under way.
    streams: Cell<u32>,
    /// When the last request on it ended, or it was made.
    used: Cell<Instant>,
    /// Counts it as unused, while it is.
    unused: RefCell<Option<Unused>>,
    ended: Cell<bool>,
    heard: Rc<Heard>,
    /// Told when the endpoint has said what it offers, and at the end.
    news: Notify,
    /// Whether any request was answered.
    answered: Cell<bool>,
}

/// What a connection is moved by; to be polled for as long as it lasts.
pub(crate) struct Driver<IO: AsyncRead + AsyncWrite + Unpin> {
    connection: client::Connection<Ear<Sieve<IO>>, Bytes>,
    alive: Option<KeepAlive>,
    state: Rc<State>,
    /// Called once the endpoint says in good order that it takes no more requests.
    leaving: Option<Box<dyn FnOnce()>>,
}

/// Begins to speak HTTP/2.
pub(crate) async fn handshake<IO>(io: IO, callee: Callee) -> Result<(Connection, Driver<IO>), h2::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (ear, heard) = Ear::new(Sieve::new(io));
    let (sender, mut connection) = client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(SHARED_WINDOW)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_local_error_reset_streams(Some(MAX_RESETS))
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .data_frame_budget(SHARED_FRAME_OVERHEAD)
        .enable_push(false)
        .handshake(ear)
        .await?;
    let terms = if callee.sidecar { ALIVE } else { ALIVE_APPLICATION };
    let alive = connection.ping_pong().map(|pings| KeepAlive::new(pings, terms, heard.clone()));
    let state = Rc::new(State {
        callee,
        streams: Cell::new(0),
        used: Cell::new(Instant::now()),
        unused: RefCell::default(),
        ended: Cell::new(false),
        heard,
        news: Notify::new(),
        answered: Cell::new(false),
    });
    let driver = Driver { connection, alive, state: state.clone(), leaving: None };
    Ok((Connection { sender: RefCell::new(sender), state }, driver))
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    /// Calls `leaving`, once, if the endpoint says in good order that it takes no more requests, whether any are under way
    /// or not.
    pub(crate) fn on_leaving(&mut self, leaving: impl FnOnce() + 'static) {
        self.leaving = Some(Box::new(leaving));
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Future for Driver<IO> {
    type Output = Result<(), h2::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let wanted = this.state.streams.get() > 0;
        let greeted = this.state.heard.is_greeted();
        let gone = this.alive.as_mut().is_some_and(|alive| alive.poll(cx, wanted).is_ready());
        let polled = if gone {
            Poll::Ready(Err(h2::Reason::SETTINGS_TIMEOUT.into()))
        } else {
            Pin::new(&mut this.connection).poll(cx)
        };
        if polled.is_ready() {
            this.state.ended.set(true);
        }
        if this.leaving.is_some()
            && this.state.heard.is_leaving()
            && let Some(leaving) = this.leaving.take()
        {
            leaving();
        }
        if polled.is_ready() || greeted != this.state.heard.is_greeted() {
            this.state.news.notify_waiters();
        }
        polled
    }
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// It is larger than it may be.
    Wrong(Wrong, Limits),
    /// The stream or its connection failed.
    Http2(h2::Error),
    /// It failed before a byte of the request was written to the connection.
    Unwritten(h2::Error),
}

impl From<h2::Error> for Unsent {
    fn from(error: h2::Error) -> Self {
        Self::Http2(error)
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct UnderWay {
    state: Rc<State>,
    /// When it ended, if that is known.
    ended: Option<Instant>,
}

impl UnderWay {
    /// It has ended, at this time.
    pub(crate) const fn ended(&mut self, now: Instant) {
        self.ended = Some(now);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let left = self.state.streams.get().saturating_sub(1);
        self.state.streams.set(left);
        if left == 0 {
            self.state.used.set(self.ended.unwrap_or_else(Instant::now));
            if let Some(room) = &self.state.callee.room {
                self.state.unused.replace(Some(room.rest()));
            }
        }
    }
}

impl Connection {
    /// Whether requests can be sent on it, though they may have to wait for others to end.
    pub(crate) fn is_open(&self) -> bool {
        !self.has_ended() && !matches!(self.poll_ready(), Poll::Ready(Err(_)))
    }

    /// Whether it is gone. One that is not may take no more requests all the same.
    pub(crate) fn has_ended(&self) -> bool {
        self.state.ended.get()
    }

    /// Whether a request sent on it goes out at once, with at most `most` at a time. One beyond the endpoint's own limit
    /// would wait for another to end, and one beyond a limit that it has yet to say be refused.
    pub(crate) fn has_room(&self, most: u32) -> bool {
        let streams = self.state.streams.get();
        streams < most
            && !self.has_ended()
            && matches!(self.poll_ready(), Poll::Ready(Ok(())))
            && (streams as usize) < self.most_streams()
    }

    fn most_streams(&self) -> usize {
        let (said, known) = (self.sender.borrow().current_max_send_streams(), &self.state.callee.streams);
        if self.state.heard.is_greeted() {
            known.set(said);
            return said;
        }
        said.min(known.get()).max(1)
    }

    /// Whether any request on it was answered.
    pub(crate) fn has_answered(&self) -> bool {
        self.state.answered.get()
    }

    /// How many requests are under way.
    pub(crate) fn streams(&self) -> u32 {
        self.state.streams.get()
    }

    /// For how long none has been.
    pub(crate) fn rested(&self, now: Instant) -> Option<Duration> {
        (self.streams() == 0).then(|| now.saturating_duration_since(self.state.used.get()))
    }

    /// The same, unless the endpoint said beforehand that it takes no more.
    pub(crate) fn rested_unwarned(&self, now: Instant) -> Option<Duration> {
        self.rested(now).filter(|_| !self.is_told_to_leave())
    }

    /// Whether it is too old to get another.
    pub(crate) fn is_expired(&self, now: Instant) -> bool {
        self.state.callee.expires.is_some_and(|expires| now >= expires)
    }

    /// Whether the endpoint has said in good order that it takes no more.
    pub(crate) fn is_told_to_leave(&self) -> bool {
        self.state.heard.is_leaving()
    }

    /// Counts a request as under way.
    pub(crate) fn begin(&self) -> UnderWay {
        self.state.streams.set(self.state.streams.get() + 1);
        if self.state.callee.room.is_some() {
            self.state.unused.take();
        }
        UnderWay { state: self.state.clone(), ended: None }
    }

    fn poll_ready(&self) -> Poll<Result<(), h2::Error>> {
        self.sender.borrow_mut().poll_ready(&mut Context::from_waker(Waker::noop()))
    }

    /// Sends the request in `slot`, and waits for the response's head. With `upgrade`, as extended CONNECT.
    ///
    /// # Errors
    /// Where the request is still in its slot, not a byte of it was sent.
    pub(crate) async fn send(
        &self,
        slot: &mut Option<Outgoing>,
        limits: Limits,
        upgrade: bool,
    ) -> Result<Answered, Unsent> {
        let mark = self.state.heard.mark();
        match self.exchange(slot, limits, upgrade).await {
            Ok(answered) => {
                self.state.answered.set(true);
                Ok(answered)
            }
            // As of a connection whose end had come already when the request was put on it.
            Err(Unsent::Http2(error)) if self.state.heard.is_silent_since(mark) => {
                Err(Unsent::Unwritten(error))
            }
            Err(unsent) => Err(unsent),
        }
    }

    async fn exchange(
        &self,
        slot: &mut Option<Outgoing>,
        limits: Limits,
        upgrade: bool,
    ) -> Result<Answered, Unsent> {
        if let Poll::Ready(Err(error)) = self.poll_ready() {
            return Err(error.into());
        }
        let Some(Outgoing { request, spelling, interim }) = slot.take() else {
            return Err(h2::Error::from(h2::Reason::INTERNAL_ERROR).into());
        };
        let (mut parts, body) = request.into_parts();
        let wanted = if upgrade {
            extended::to_connect(&mut parts.method, &mut parts.headers, &mut parts.extensions)
        } else {
            None
        };
        let connect = parts.method == Method::CONNECT;
        to_http2(&mut parts.uri, &mut parts.version, &mut parts.headers, &self.state.callee.scheme);
        // A route's filters may have set what HTTP/2 has no place for.
        strip_hop_by_hop(&mut parts.headers, false);
        if self.state.callee.carried {
            spell(&mut parts.headers, spelling.as_deref());
        }
        let last = body.is_end_stream() && !connect;
        let sent = self.sender.borrow_mut().send_request(Request::from_parts(parts, ()), last);
        let (response, stream) = sent?;
        if connect {
            let (response, _) = wait(response, &interim, limits, self.state.callee.carried).await?;
            return Ok(tunnelled(response, stream, wanted, limits));
        }
        let uploading =
            if last { Uploading::default() } else { upload(body, stream, self.state.callee.carried).await };
        let (response, spelling) = wait(response, &interim, limits, self.state.callee.carried).await?;
        let (parts, stream) = response.into_parts();
        let body = Received::new(stream, &parts.headers, limits, refuse)
            .carried(self.state.callee.carried)
            .with_upload(uploading);
        let response = Response::from_parts(parts, Incoming::http2(body));
        Ok(Answered { response, spelling, upgrade: None })
    }

    /// Whether the endpoint takes extended CONNECT (RFC 8441, section 3). Waits until it has said what it offers.
    pub(crate) async fn takes_upgrades(&self) -> bool {
        loop {
            let news = self.state.news.notified();
            if self.sender.borrow().is_extended_connect_protocol_enabled() {
                return true;
            }
            if self.state.ended.get() || self.state.heard.is_greeted() {
                return false;
            }
            news.await;
        }
    }
}

fn refuse(wrong: Wrong, limits: &Limits) -> Error {
    wrong.of_response(limits, "the response's trailers")
}

/// Waits for the response's head, and how it was spelled. Interim responses are passed on.
async fn wait(
    mut response: ResponseFuture,
    interim: &Interim,
    limits: Limits,
    carried: bool,
) -> Result<(Response<h2::RecvStream>, Option<Rc<Spelling>>), Unsent> {
    let mut response = poll_fn(|cx| {
        // Pending only where the final one has not come either.
        while let Some(Ok(mut response)) = ready!(response.poll_informational(cx)) {
            let spelling = if carried { spelled(response.headers_mut()) } else { None };
            response.headers_mut().remove(UNREACHED);
            if let Err(wrong) = fits(response.headers(), 0, &limits) {
                return Poll::Ready(Err(Unsent::Wrong(wrong, limits)));
            }
            interim.send(&InterimResponse { response, spelling });
        }
        Pin::new(&mut response).poll(cx).map_err(Unsent::Http2)
    })
    .await?;
    let spelling = if carried { spelled(response.headers_mut()) } else { None };
    say_length_once(response.headers_mut());
    fits(response.headers(), 0, &limits).map_err(|wrong| Unsent::Wrong(wrong, limits))?;
    Ok((response, spelling))
}

/// Sends a request's body. What does not go out at once does so in a task of its own, whoever reads the response.
async fn upload(body: RequestBody, stream: h2::SendStream<Bytes>, carried: bool) -> Uploading {
    let mut sending = Sending::new(body, stream, carried);
    let unsent = poll_fn(|cx| Poll::Ready(pin!(&mut sending).poll(cx).is_pending())).await;
    Uploading(unsent.then(|| tokio::task::spawn_local(sending).abort_handle()))
}

/// The answer to CONNECT: a successful one has no end, and bytes both ways. With `wanted`, it is one to an upgrade.
fn tunnelled(
    response: Response<h2::RecvStream>,
    mut stream: h2::SendStream<Bytes>,
    wanted: Option<Wanted>,
    limits: Limits,
) -> Answered {
    let (mut parts, receive) = response.into_parts();
    if parts.status.is_success() {
        if let Some(wanted) = wanted {
            extended::to_switching(&mut parts.status, &mut parts.headers, wanted);
        }
        let (there, upgrade) = OnUpgrade::pair();
        // Received, for its other end is at hand.
        let _ = there.send(Tunnel::new(Bytes::new(), ByteStream::new(stream, receive)));
        let response = Response::from_parts(parts, Incoming::empty());
        return Answered { response, spelling: None, upgrade: Some(upgrade) };
    }
    // The endpoint may have closed the stream with its answer.
    let _ = stream.send_data(Bytes::new(), true);
    let body = Incoming::http2(Received::new(receive, &parts.headers, limits, refuse));
    Answered { response: Response::from_parts(parts, body), spelling: None, upgrade: None }
}

#[cfg(test)]
mod tests;

//! A caller's connection of HTTP/2.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{self, Handshake, SendResponse};
use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::alive::{Ear, Heard, KeepAlive, Terms};
use super::extended;
use super::received::Received;
use super::sending::Sending;
use super::{ByteStream, CONNECTION_WINDOW, MAX_RESETS, MAX_SEND_BUFFER, STREAM_WINDOW};
use crate::body::{BodyError, Incoming};
use crate::error::{Error, Reason};
use crate::filter::strip_hop_by_hop;
use crate::message::{Asked, Handler, Interim, InterimResponse, InterimSink, Reply};
use crate::serve::{Busy, Quiet, Serving};
use crate::upgrade::{OnUpgrade, Tunnel};

/// How many requests a caller may have under way.
const MAX_STREAMS: u32 = 256;
/// How many streams a caller may open and reset before they are even looked at (CVE-2023-44487).
const MAX_UNSEEN_RESETS: usize = 20;
/// How many bytes of header a request may have.
const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// A caller that is gone is found within 50 seconds.
const ALIVE: Terms = Terms { silence: Duration::from_secs(30), patience: Duration::from_secs(20) };

/// A caller's connection, to be polled to its end.
pub(crate) struct Connection<IO: AsyncRead + AsyncWrite + Unpin, H> {
    state: State<IO>,
    handler: H,
    quiet: Rc<Quiet>,
    ending: bool,
}

enum State<IO: AsyncRead + AsyncWrite + Unpin> {
    Greeting(Handshake<Ear<IO>, Bytes>, Rc<Heard>),
    Open(server::Connection<Ear<IO>, Bytes>, Option<KeepAlive>),
}

impl<IO, H> Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    /// A connection whose requests are answered by `handler`, and noted in `quiet`.
    pub(crate) fn new(io: IO, handler: H, quiet: Rc<Quiet>) -> Self {
        let (ear, heard) = Ear::new(io);
        let handshake = server::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_local_error_reset_streams(Some(MAX_RESETS))
            .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
            .max_send_buffer_size(MAX_SEND_BUFFER)
            .enable_connect_protocol()
            .handshake(ear);
        Self { state: State::Greeting(handshake, heard), handler, quiet, ending: false }
    }
}

impl<IO, H, B> Future for Connection<IO, H>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler<Body = B> + Unpin + 'static,
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin + 'static,
{
    type Output = Result<(), h2::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Greeting(handshake, heard) => {
                    let mut connection = ready!(Pin::new(handshake).poll(cx))?;
                    let pings = connection.ping_pong();
                    let alive = pings.map(|pings| KeepAlive::new(pings, ALIVE, heard.clone()));
                    if this.ending {
                        connection.graceful_shutdown();
                    }
                    this.state = State::Open(connection, alive);
                }
                State::Open(connection, alive) => {
                    if alive.as_mut().is_some_and(|alive| alive.poll(cx, true).is_ready()) {
                        return Poll::Ready(Err(h2::Reason::SETTINGS_TIMEOUT.into()));
                    }
                    let Some(accepted) = ready!(connection.poll_accept(cx)) else {
                        return Poll::Ready(Ok(()));
                    };
                    let (request, respond) = accepted?;
                    accept(&this.handler, request, respond, this.quiet.asked());
                }
            }
        }
    }
}

impl<IO, H> Serving for Connection<IO, H>
where
    Self: Future,
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Unpin,
{
    fn wind_down(self: Pin<&mut Self>) {
        let this = self.get_mut();
        this.ending = true;
        if let State::Open(connection, _) = &mut this.state {
            connection.graceful_shutdown();
        }
    }
}

/// The way back to the caller, until the final response has begun.
#[derive(Debug)]
struct Respond(RefCell<Option<SendResponse<Bytes>>>);

impl InterimSink for Respond {
    fn send(&self, interim: &InterimResponse) {
        let mut head = Response::new(());
        *head.status_mut() = interim.response.status();
        head.headers_mut().clone_from(interim.response.headers());
        strip_hop_by_hop(head.headers_mut(), false);
        if let Some(respond) = &mut *self.0.borrow_mut() {
            // Fails if the stream is gone, which the wait for the final response hears of.
            let _ = respond.send_informational(head);
        }
    }
}

/// What is left to do with a stream, once its request has been handed over.
struct Stream {
    respond: Rc<Respond>,
    head: bool,
    /// Whether it is extended CONNECT.
    upgraded: bool,
    /// CONNECT: what the caller sends, and who takes the tunnel.
    tunnel: Option<(RecvStream, tokio::sync::oneshot::Sender<Tunnel>)>,
    _busy: Busy,
}

/// Answers a request in a task of its own.
fn accept<H, B>(handler: &H, request: Request<RecvStream>, respond: SendResponse<Bytes>, busy: Busy)
where
    H: Handler<Body = B> + 'static,
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin + 'static,
{
    let respond = Rc::new(Respond(RefCell::new(Some(respond))));
    let (mut parts, receive) = request.into_parts();
    let head = parts.method == Method::HEAD;
    let connect = parts.method == Method::CONNECT;
    if let Err(error) = consistent(&parts) {
        let stream = Stream { respond, head, upgraded: false, tunnel: None, _busy: busy };
        let reply = handler.decline(error, &Request::from_parts(parts, ()));
        tokio::task::spawn_local(stream.run(std::future::ready(reply)));
        return;
    }
    let upgraded = extended::to_upgrade(&mut parts.method, &mut parts.headers, &mut parts.extensions);
    let (body, tunnel, upgrade) = if connect {
        let (there, upgrade) = OnUpgrade::pair();
        (Incoming::empty(), Some((receive, there)), Some(upgrade))
    } else {
        (Received::new(receive, &parts.headers).into(), None, None)
    };
    let asked = Asked {
        request: Request::from_parts(parts, body),
        spelling: None,
        interim: Interim::to(respond.clone()),
        upgrade,
    };
    let answer = handler.answer(asked);
    let stream = Stream { respond, head, upgraded, tunnel, _busy: busy };
    tokio::task::spawn_local(stream.run(answer));
}

/// Whether a request says but one thing of its host (RFC 9113, section 8.3.1).
fn consistent(parts: &Parts) -> Result<(), Error> {
    let wrong = |why| Err(Error::unsent(Reason::HttpRequestError, why));
    let authority = parts.uri.authority().map(Authority::as_str);
    if authority.is_some_and(|authority| authority.contains('@')) {
        return wrong("the request's :authority names a user");
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    match (authority, hosts.next(), hosts.next()) {
        (_, _, Some(_)) => wrong("the request has several Host fields"),
        (Some(authority), Some(host), _) if !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => {
            wrong("the request's Host is not its :authority")
        }
        _ => Ok(()),
    }
}

impl Stream {
    async fn run<B>(self, answer: impl Future<Output = Reply<B>>)
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        let reply = {
            let mut answer = pin!(answer);
            let waiting = poll_fn(|cx| match answer.as_mut().poll(cx) {
                Poll::Ready(reply) => Poll::Ready(Some(reply)),
                Poll::Pending => self.poll_reset(cx).map(|()| None),
            });
            waiting.await
        };
        let (Some(reply), Some(respond)) = (reply, self.respond.0.take()) else { return };
        if let Err(error) = self.reply(reply, respond).await {
            debug!(%error, "a response could not be sent");
        }
    }

    /// Ready once the caller does not want the response any more.
    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.respond.0.borrow_mut() {
            Some(respond) => respond.poll_reset(cx).map(drop),
            None => Poll::Pending,
        }
    }

    async fn reply<B>(self, reply: Reply<B>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        let (mut parts, mut body) = reply.response.into_parts();
        if self.upgraded && parts.status == StatusCode::SWITCHING_PROTOCOLS {
            extended::from_switching(&mut parts.status, &mut parts.headers);
        }
        strip_hop_by_hop(&mut parts.headers, false);
        let tunnel = self.tunnel.filter(|_| parts.status.is_success());
        let empty = body.is_end_stream();
        if let Some(length) = body.size_hint().exact().filter(|_| !empty) {
            parts.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
        }
        let last = (empty || self.head) && tunnel.is_none();
        let stream = match respond.send_response(Response::from_parts(parts, ()), last) {
            Ok(stream) => stream,
            Err(error) => {
                respond.send_reset(h2::Reason::INTERNAL_ERROR);
                return Err(error);
            }
        };
        if let Some((receive, there)) = tunnel {
            // If nobody takes it, it is reset.
            let _ = there.send(Tunnel::new(Bytes::new(), ByteStream::new(stream, receive)));
        } else if self.head {
            // Not sent, but gone through: its observer hears that it ended.
            while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
        } else if !empty {
            Sending::new(body, stream).await;
        }
        Ok(())
    }
}

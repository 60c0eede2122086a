//! Serving a caller of HTTP/2.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{self, SendResponse};
use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tracing::debug;

use super::alive::{KeepAlive, Terms};
use super::exchanges::{Boxes, Exchanges};
use super::heard::Ear;
use super::pace::{BodyPace, Motion, Pace, UnderWay};
use super::received::Received;
use super::sending::Sending;
use super::{
    ByteStream, CONNECTION_WINDOW, FRAME_OVERHEAD, MAX_RESETS, MAX_SEND_BUFFER, SHARED_FRAME_OVERHEAD,
    SHARED_WINDOW, STREAM_WINDOW, extended, fits, read_anyway, say_length_once, spell, spelled,
};
use crate::body::{BodyError, Due, Incoming};
use crate::error::Error;
use crate::filter::strip_hop_by_hop;
use crate::h1::{Limits, Wrong, same_host};
use crate::memory::{Account, Stall};
use crate::message::{Asked, Handler, Interim, InterimResponse, InterimSink, Reply};
use crate::serve::{Caller as Watched, Drain, LAST_WORD, Settings, TimedOut};
use crate::upgrade::{OnUpgrade, Tunnel};

/// A caller that is gone is found within 50 seconds.
const ALIVE: Terms =
    Terms { silence: Duration::from_secs(30), patience: Duration::from_secs(20), sparing: Duration::ZERO };
/// How many bytes of interim responses a request may get: `h2` keeps what its caller does not read.
const MAX_INTERIM: usize = 1024 * 1024;

/// Serves a connection until it ends. When its drain begins, or nothing was asked for too long, its caller is told
/// GOAWAY, in both phases. With `carried` the caller is another sidecar, which says how headers were spelled and is told.
pub(crate) async fn serve<IO, H, B>(
    io: IO,
    handler: H,
    settings: Arc<Settings>,
    drain: Rc<Drain>,
    carried: bool,
) -> Result<Option<TimedOut>, h2::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    H: Handler<Body = B> + 'static,
    B: Due<Data = Bytes, Error: Into<BodyError>> + Unpin + 'static,
{
    let (ear, heard) = Ear::new(io);
    let pace = Pace::new(settings.clone(), &drain);
    let mut last_word = pin!(last_word(&pace));
    let (window, overhead) = if settings.many_callers {
        (SHARED_WINDOW, SHARED_FRAME_OVERHEAD)
    } else {
        (CONNECTION_WINDOW, FRAME_OVERHEAD)
    };
    let mut handshake = server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(window)
        .max_concurrent_streams(settings.streams)
        .max_header_list_size(read_anyway(&settings.limits))
        .max_local_error_reset_streams(Some(MAX_RESETS))
        .max_pending_accept_reset_streams(settings.unseen_resets)
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .data_frame_budget(overhead)
        .enable_connect_protocol()
        .handshake(ear);
    let greeted = poll_fn(|cx| match Pin::new(&mut handshake).poll(cx) {
        Poll::Pending => last_word.as_mut().poll(cx).map(|()| None),
        Poll::Ready(greeted) => Poll::Ready(Some(greeted)),
    });
    let Some(mut connection) = greeted.await.transpose()? else { return Ok(pace.timed_out()) };
    drop(handshake);
    let mut alive = connection.ping_pong().map(|pings| KeepAlive::new(pings, ALIVE, heard));
    let mut ending = false;
    let mut parting = pin!(parting(&pace));
    let caller = Caller { handler, pace: pace.clone(), settings, drain, carried };
    let (mut exchanges, answers) = (Exchanges::new(), Boxes::default());
    let mut look = |exchanges: &mut Exchanges<_>, cx: &mut Context<'_>| {
        loop {
            if alive.as_mut().is_some_and(|alive| alive.poll(cx, true).is_ready()) {
                return Poll::Ready(Ok(Some(TimedOut::Silence)));
            }
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    let (stream, asked) = caller.accept(request, respond);
                    let answer = asked.map(|asked| answers.hold(|| caller.handler.answer(asked)));
                    exchanges.begin(|| stream.run(answer));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(pace.timed_out())),
                Poll::Pending if ending => return parting.as_mut().poll(cx).map(|()| Ok(pace.timed_out())),
                // Only now: a request that is there already is under way. One whose caller has yet to ask is on its way,
                // and were GOAWAY there before it, the caller could not send it.
                Poll::Pending
                    if pace.is_ending(cx) && (pace.asked() || last_word.as_mut().poll(cx).is_ready()) =>
                {
                    ending = true;
                    connection.graceful_shutdown();
                }
                Poll::Pending => {
                    if pace.is_resting() {
                        exchanges.rest();
                        answers.clear();
                    }
                    return Poll::Pending;
                }
            }
        }
    };
    poll_fn(|cx| exchanges.poll(cx, &mut look)).await
}

/// Ends when a connection that is to end has had its time, on which nothing was ever asked.
async fn last_word(pace: &Pace) {
    poll_fn(|cx| if pace.is_ending(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    parting(pace).await;
}

/// Ends when a caller that never asked has had its time to answer GOAWAY.
async fn parting(pace: &Pace) {
    tokio::time::sleep(LAST_WORD).await;
    poll_fn(|_| if pace.asked() { Poll::Pending } else { Poll::Ready(()) }).await;
}

/// What all requests of a connection share.
struct Caller<H> {
    handler: H,
    pace: Rc<Pace>,
    settings: Arc<Settings>,
    drain: Rc<Drain>,
    carried: bool,
}

/// The way back to the caller, until the final response has begun.
#[derive(Debug)]
pub(super) struct Respond {
    stream: RefCell<Option<SendResponse<Bytes>>>,
    /// How many bytes of interim responses there were.
    interim: Cell<usize>,
    /// Whether the caller is told how headers were spelled.
    carried: bool,
    /// Whether anything moves either way, to the end of the response.
    pub(super) motion: Motion,
}

impl Watched for Respond {
    fn tick(&self) {
        self.motion.tick();
    }

    /// A request under way is finished.
    fn wind_down(&self) {}
}

impl InterimSink for Respond {
    fn silence(&self) -> Option<Error> {
        self.motion.silence()
    }

    fn send(&self, interim: &InterimResponse) {
        let mut head = Response::new(());
        *head.status_mut() = interim.response.status();
        head.headers_mut().clone_from(interim.response.headers());
        strip_hop_by_hop(head.headers_mut(), false);
        if self.carried {
            spell(head.headers_mut(), interim.spelling.as_deref());
        }
        let fields = head.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
        let bytes = self.interim.get().saturating_add(fields.sum::<usize>() + 32);
        self.interim.set(bytes);
        if bytes > MAX_INTERIM {
            return;
        }
        if let Some(respond) = &mut *self.stream.borrow_mut() {
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
    tunnel: Option<(RecvStream, oneshot::Sender<Tunnel>)>,
    memory: Rc<Account>,
    _under_way: UnderWay,
}

impl<H: Handler> Caller<H> {
    /// Takes up a request: what is to be answered, or what is said of one that is wrong.
    fn accept(
        &self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> (Stream, Result<Asked, Reply<H::Body>>) {
        let (mut parts, receive) = request.into_parts();
        let respond = Rc::new(Respond {
            stream: RefCell::new(Some(respond)),
            interim: Cell::default(),
            carried: self.carried,
            motion: Motion::new(&self.settings),
        });
        if self.settings.stream_timeout.is_some() {
            self.drain.remember(Rc::downgrade(&respond) as Weak<dyn Watched>);
        }
        let spelling = if self.carried { spelled(&mut parts.headers) } else { None };
        say_length_once(&mut parts.headers);
        let head = parts.method == Method::HEAD;
        let connect = parts.method == Method::CONNECT;
        let under_way = self.pace.begin();
        let memory = self.drain.memory().clone();
        let mut stream =
            Stream { respond, head, upgraded: false, tunnel: None, memory, _under_way: under_way };
        if let Err(wrong) = check(&parts, &self.settings.limits) {
            let error = wrong.of_request(&self.settings.limits);
            let reply = self.handler.decline(error, &Request::from_parts(parts, ()));
            return (stream, Err(reply));
        }
        stream.upgraded = extended::to_upgrade(&mut parts.method, &mut parts.headers, &mut parts.extensions);
        let (body, upgrade) = if connect {
            let (there, upgrade) = OnUpgrade::pair();
            stream.tunnel = Some((receive, there));
            (Incoming::empty(), Some(upgrade))
        } else if receive.is_end_stream() {
            (Incoming::empty(), None)
        } else {
            let pace = BodyPace::new(&self.settings, &self.drain);
            let body = Received::new(receive, &parts.headers, self.settings.limits, Wrong::of_request)
                .carried(self.carried)
                .of(stream.respond.clone());
            (Incoming::http2(body.with_pace(pace)), None)
        };
        let request = Request::from_parts(parts, body);
        let interim = Interim::to(stream.respond.clone());
        (stream, Ok(Asked { request, spelling, interim, upgrade }))
    }
}

/// Whether a request is not too large, and says but one thing of its host (RFC 9113, section 8.3.1).
fn check(parts: &Parts, limits: &Limits) -> Result<(), Wrong> {
    let target = parts.uri.path_and_query().map_or(0, |path| path.as_str().len());
    if target > limits.bytes {
        return Err(Wrong::FirstLine);
    }
    fits(&parts.headers, target, limits)?;
    // HTTP/1.1 would take it for something else (RFC 9113, section 8.3.1).
    let is_path = parts.uri.path_and_query().is_none_or(|target| match target.as_str() {
        "*" => parts.method == Method::OPTIONS,
        path => path.starts_with('/'),
    });
    if !is_path && parts.uri.scheme().is_some() {
        return Err(Wrong::Malformed("the :path is not one"));
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    let authority = parts.uri.authority();
    match (authority, host) {
        _ if more.is_some() => Err(Wrong::Malformed("there is more than one Host")),
        (None, None) => Err(Wrong::Malformed("there is neither an :authority nor a Host")),
        (Some(authority), _) if authority.as_str().contains('@') => {
            Err(Wrong::Malformed("the :authority names a user"))
        }
        (Some(authority), Some(host)) if !same_host(authority, host.as_bytes(), parts.uri.scheme_str()) => {
            Err(Wrong::Malformed("the :authority and Host do not agree"))
        }
        (None, Some(host))
            if Authority::try_from(host.as_bytes()).map_or(true, |host| host.as_str().contains('@')) =>
        {
            Err(Wrong::Malformed("the Host is not valid"))
        }
        _ => Ok(()),
    }
}

impl Stream {
    /// Answers the request, unless its caller stops waiting for that.
    async fn run<B>(self, answer: Result<impl Future<Output = Reply<B>> + Unpin, Reply<B>>)
    where
        B: Due<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        let reply = match answer {
            Ok(answer) => self.wait(answer).await,
            Err(reply) => Some(reply),
        };
        let (Some(reply), Some(respond)) = (reply, self.respond.stream.take()) else { return };
        if let Err(error) = self.reply(reply, respond).await {
            debug!(%error, "a response could not be sent");
        }
    }

    /// The answer; `None` if its caller does not want it any more. What the future holds is not needed from then on.
    async fn wait<B>(&self, mut answer: impl Future<Output = Reply<B>> + Unpin) -> Option<Reply<B>> {
        poll_fn(|cx| match Pin::new(&mut answer).poll(cx) {
            Poll::Ready(reply) => Poll::Ready(Some(reply)),
            Poll::Pending => {
                // Woken once nothing has moved for too long: whoever answers sees to that.
                let _ = self.respond.motion.is_silent(cx);
                self.poll_reset(cx).map(|()| None)
            }
        })
        .await
    }

    /// Ready once the caller does not want the response any more.
    fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self.respond.stream.borrow_mut() {
            Some(respond) => respond.poll_reset(cx).map(drop),
            None => Poll::Pending,
        }
    }

    async fn reply<B>(self, reply: Reply<B>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error>
    where
        B: Due<Data = Bytes, Error: Into<BodyError>> + Unpin,
    {
        let carried = self.respond.carried;
        let response = self.respond.clone();
        response.motion.begin();
        let (mut parts, mut body) = reply.response.into_parts();
        if self.upgraded && parts.status == StatusCode::SWITCHING_PROTOCOLS {
            extended::from_switching(&mut parts.status, &mut parts.headers);
        }
        strip_hop_by_hop(&mut parts.headers, false);
        if carried {
            spell(&mut parts.headers, reply.spelling.as_deref());
        }
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
            let stall = Stall::new(&self.memory);
            Sending::new(body, stream, carried).counted(stall).of(response).await;
        }
        Ok(())
    }
}

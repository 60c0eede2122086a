//! Serving a caller of HTTP/1: its requests, one after the other, until either side has had enough.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::conn::{Body, Conn, Next, Sending, Source, Unsent};
use super::encode::{self, AnswerTo, is_switch};
use super::head::{self, RequestHead, Wrong};
use crate::body::{BodyError, Due, Incoming};
use crate::error::Error;
use crate::filter;
use crate::message::{Asked, Handler, Interim, InterimResponse, InterimSink, Reply};
use crate::serve::{Caller, Drain, LAST_WORD, Settings, TimedOut};
use crate::upgrade::{OnUpgrade, Tunnel};

/// How long what a caller still sends is taken off its hands after the last response, so that it gets to read it (RFC
/// 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// How many bytes may wait to be written before interim responses, which nobody has to read, are left out.
const MAX_INTERIM: usize = 64 * 1024;

/// A connection that is served.
struct Served<IO> {
    conn: Conn<IO>,
    pace: Pace,
    /// Whether an interim response can be sent: a request of HTTP/1.1 waits for its answer.
    awaits: Cell<bool>,
}

/// What a caller is waited for with, and since when.
struct Pace {
    settings: Arc<Settings>,
    drain: Rc<Drain>,
    phase: Cell<Phase>,
    /// In ticks of the drain's clock.
    since: Cell<u32>,
    /// How long the body under way was waited for, in ticks, and how much of it came.
    waited: Cell<u32>,
    bytes: Cell<u64>,
    /// Whether anything was ever asked.
    asked: Cell<bool>,
    expired: Cell<bool>,
    /// Which of its times ends the connection.
    timed_out: Cell<Option<TimedOut>>,
    /// For how many ticks nothing has moved on the request under way, and whether that is too long.
    still: Cell<u32>,
    silent: Cell<bool>,
    /// When the connection began, in ticks of the drain's clock.
    began: u32,
    last_word: RefCell<Option<Pin<Box<Sleep>>>>,
}

/// What a caller is waited for with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The next request.
    Idle,
    /// The rest of a head.
    Head,
    /// A part of a body.
    Body,
    /// Nothing: it is not the caller's turn.
    Busy,
}

impl Pace {
    /// Whether nothing has moved on the request under way for as long as that may be.
    fn is_silent(&self, moved: bool) -> bool {
        let under_way = matches!(self.phase.get(), Phase::Busy | Phase::Body);
        self.still.set(if moved || !under_way { 0 } else { self.still.get().saturating_add(1) });
        self.still.get() > self.settings.stream_ticks()
    }

    /// Whether the connection is to end after the response under way.
    fn is_last(&self) -> bool {
        let aged = self.drain.now().saturating_sub(self.began) > self.settings.age_ticks();
        if aged {
            self.timed_out.set(Some(TimedOut::Age));
        }
        aged || self.drain.is_on()
    }

    /// Which of its times a caller has had that is over.
    fn overdue(&self) -> Option<TimedOut> {
        match self.phase.get() {
            Phase::Idle if self.asked.get() => Some(TimedOut::Idle),
            Phase::Idle | Phase::Head => Some(TimedOut::Header),
            // That is the request's reason.
            Phase::Body | Phase::Busy => None,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.drain.now());
    }

    /// Whether a caller has had its time.
    fn is_over(&self) -> bool {
        let since = self.drain.now().saturating_sub(self.since.get());
        match self.phase.get() {
            Phase::Busy => false,
            // The first request of a connection is due as a head is that has begun.
            Phase::Idle if self.asked.get() => since > self.settings.idle_ticks(),
            Phase::Idle | Phase::Head => since > self.settings.header_ticks(),
            Phase::Body => {
                self.waited.set(self.waited.get() + 1);
                self.settings.is_too_slow(self.bytes.get(), self.waited.get())
            }
        }
    }
}

impl<IO> Caller for Served<IO> {
    fn tick(&self) {
        if self.pace.is_over() {
            self.pace.expired.set(true);
            self.pace.timed_out.set(self.pace.overdue());
            self.conn.wake();
        }
        if self.pace.is_silent(self.conn.has_moved()) {
            self.pace.silent.set(true);
            self.conn.wake();
        }
    }

    fn wind_down(&self) {
        self.conn.wake();
    }

    fn make_room(&self) {
        // Not at once: its next request may be on the way.
        let quiet = self.pace.drain.now() != self.pace.since.get();
        if self.pace.phase.get() == Phase::Idle && self.pace.asked.get() && quiet {
            self.pace.expired.set(true);
            self.conn.wake();
        }
    }
}

impl<IO> fmt::Debug for Served<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served").field("phase", &self.pace.phase.get()).finish_non_exhaustive()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> InterimSink for Served<IO> {
    fn send(&self, interim: &InterimResponse) {
        if self.conn.waiting() > MAX_INTERIM {
            // A caller may be slower than they come, or not read at all. Whoever drives the connection is woken below.
            let _ = self.conn.poll_flush(&mut Context::from_waker(Waker::noop()));
        }
        if self.awaits.get() && self.conn.waiting() <= MAX_INTERIM {
            let response = &interim.response;
            self.conn.write(|out| {
                encode::interim(response.status(), response.headers(), interim.spelling.as_deref(), out);
            });
        }
        self.conn.wake();
    }

    fn has_finished(&self) -> bool {
        self.conn.is_read_closed()
    }

    fn silence(&self) -> Option<Error> {
        let awaited = self.pace.phase.get() == Phase::Body;
        self.pace.silent.get().then(|| self.pace.settings.silence(awaited))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Source for Served<IO> {
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.pace.expired.get() {
            return Poll::Ready(Some(Err(BodyError::too_slow())));
        }
        if self.pace.silent.get() {
            return Poll::Ready(Some(Err(BodyError::Refused(self.pace.settings.silence(true)))));
        }
        let frame = self.conn.poll_body(cx, Wrong::of_request);
        match &frame {
            Poll::Pending if self.pace.phase.get() != Phase::Body => self.pace.enter(Phase::Body),
            Poll::Pending => {}
            Poll::Ready(frame) => {
                self.pace.phase.set(Phase::Busy);
                if let Some(Ok(frame)) = frame {
                    let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                    self.pace.bytes.set(self.pace.bytes.get() + length);
                }
            }
        }
        frame
    }

    fn let_go(&self) {
        self.pace.phase.set(Phase::Busy);
        self.conn.let_go();
    }
}

/// Serves a connection until it ends. When its drain begins, the response under way says `Connection: close`.
pub(crate) async fn serve<IO, H, B>(
    io: IO,
    handler: H,
    settings: Arc<Settings>,
    drain: Rc<Drain>,
) -> io::Result<Option<TimedOut>>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler<Body = B>,
    B: Due<Data = Bytes> + Unpin,
    B::Error: fmt::Display,
{
    let conn = Conn::new(io, settings.limits);
    let pace = Pace {
        since: Cell::new(drain.now()),
        began: drain.now(),
        settings,
        drain: drain.clone(),
        phase: Cell::new(Phase::Idle),
        waited: Cell::default(),
        bytes: Cell::default(),
        asked: Cell::default(),
        expired: Cell::default(),
        timed_out: Cell::default(),
        still: Cell::default(),
        silent: Cell::default(),
        last_word: RefCell::default(),
    };
    let served = Rc::new(Served { conn, pace, awaits: Cell::default() });
    let caller: Weak<dyn Caller> = Rc::downgrade(&(served.clone() as Rc<dyn Caller>));
    drain.remember(caller);
    let ended = served.requests(&handler).await;
    served.conn.close();
    ended.map(|()| served.pace.timed_out.get())
}

impl<IO: AsyncRead + AsyncWrite + Unpin + 'static> Served<IO> {
    async fn requests<H, B>(self: &Rc<Self>, handler: &H) -> io::Result<()>
    where
        H: Handler<Body = B>,
        B: Due<Data = Bytes> + Unpin,
        B::Error: fmt::Display,
    {
        loop {
            match poll_fn(|cx| self.poll_request(cx)).await? {
                Next::End(false) => return poll_fn(|cx| self.conn.poll_shutdown(cx)).await,
                Next::End(true) => {
                    return self.refuse(handler, Wrong::Malformed("the header is cut off")).await;
                }
                Next::Wrong(wrong) => return self.refuse(handler, wrong).await,
                Next::Head(head) => {
                    // Boxed, for every idle connection would have the room for it.
                    if !Box::pin(self.exchange(handler, head)).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Waits for the next request.
    fn poll_request(&self, cx: &mut Context<'_>) -> Poll<io::Result<Next<RequestHead>>> {
        self.conn.driven(cx);
        if self.pace.phase.get() == Phase::Busy {
            self.conn.shrink();
            self.pace.enter(Phase::Idle);
        }
        // What has come already is under way.
        let polled = self.conn.poll_head(cx, head::request)?;
        if let Poll::Ready(next) = polled {
            self.pace.phase.set(Phase::Busy);
            return Poll::Ready(Ok(next));
        }
        if self.conn.has_more() && self.pace.phase.get() == Phase::Idle {
            self.pace.enter(Phase::Head);
        }
        if self.pace.expired.get() {
            let late = self.pace.phase.get() == Phase::Head;
            return Poll::Ready(Ok(if late { Next::Wrong(Wrong::Late) } else { Next::End(false) }));
        }
        if self.pace.drain.is_on() {
            ready!(self.poll_last_word(cx));
            return Poll::Ready(Ok(Next::End(false)));
        }
        Poll::Pending
    }

    /// A caller that has asked before can ask elsewhere; one that has not, or has begun to, may be about to.
    fn poll_last_word(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.pace.asked.get() && self.pace.phase.get() == Phase::Idle {
            return Poll::Ready(());
        }
        let mut wait = self.pace.last_word.borrow_mut();
        wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_WORD))).as_mut().poll(cx)
    }

    /// Says what is wrong with a request, and ends: where the next one begins is not known.
    async fn refuse<H, B>(self: &Rc<Self>, handler: &H, wrong: Wrong) -> io::Result<()>
    where
        H: Handler<Body = B>,
        B: Due<Data = Bytes> + Unpin,
        B::Error: fmt::Display,
    {
        let reply = handler.refuse(wrong.of_request(&self.conn.limits()));
        let to = AnswerTo { method: Method::GET, version: Version::HTTP_11, keep_alive: false };
        self.respond(reply, &to).await?;
        self.linger().await;
        Ok(())
    }

    /// Answers one request; `false` if it was the last.
    async fn exchange<H, B>(self: &Rc<Self>, handler: &H, head: RequestHead) -> io::Result<bool>
    where
        H: Handler<Body = B>,
        B: Due<Data = Bytes> + Unpin,
        B::Error: fmt::Display,
    {
        let mut to =
            AnswerTo { method: head.method.clone(), version: head.version, keep_alive: head.keep_alive };
        let (asked, upgrade) = self.ask(head);
        let reply = {
            let mut answer = pin!(handler.answer(asked));
            poll_fn(|cx| match answer.as_mut().poll(cx) {
                Poll::Ready(reply) => Poll::Ready(Ok(reply)),
                Poll::Pending => self.poll_meanwhile(cx).map_ok(|never| match never {}),
            })
            .await?
        };
        self.awaits.set(false);
        // A body that nobody has read would be taken for the next request.
        let unread = !self.conn.is_read() && !self.conn.is_held() && !self.conn.discard_buffered();
        to.keep_alive &= !unread && !self.pace.is_last() && !self.conn.is_read_closed();
        let status = reply.response.status();
        let keep_alive = self.respond(reply, &to).await?;
        if is_switch(&to.method, status)
            && let Some(upgrade) = upgrade
        {
            self.hand_over(upgrade);
            return Ok(false);
        }
        // The response may be there before all of the request is.
        poll_fn(|cx| self.conn.poll_let_go(cx)).await;
        if keep_alive && (self.conn.is_read() || self.conn.discard_buffered()) {
            return Ok(true);
        }
        // Closed with something unread, the connection is reset, and the caller may lose the response.
        if !self.conn.is_read() || self.conn.has_more() {
            self.linger().await;
            return Ok(false);
        }
        poll_fn(|cx| self.conn.poll_shutdown(cx)).await?;
        Ok(false)
    }

    /// The request as its handler gets it.
    fn ask(self: &Rc<Self>, head: RequestHead) -> (Asked, Option<oneshot::Sender<Tunnel>>) {
        let pace = &self.pace;
        pace.asked.set(true);
        pace.expired.set(false);
        pace.timed_out.set(None);
        pace.still.set(0);
        pace.silent.set(false);
        pace.waited.set(0);
        pace.bytes.set(0);
        self.awaits.set(head.version == Version::HTTP_11);
        self.conn.begin(head.framing);
        let body = if self.conn.is_read() {
            Incoming::empty()
        } else {
            self.conn.hold();
            Incoming::http1(Body::new(self.clone(), head.framing))
        };
        let upgrades =
            head.method == Method::CONNECT || filter::upgrade(head.version, &head.headers).is_some();
        let (sender, upgrade) = upgrades.then(OnUpgrade::pair).unzip();
        let mut request = Request::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        *request.version_mut() = head.version;
        *request.headers_mut() = head.headers;
        let interim = Interim::to(self.clone());
        (Asked { request, spelling: Some(head.spelling), interim, upgrade }, sender)
    }

    /// While a request is answered: sends interim responses, and notices a caller that is gone. One that has only said
    /// its last still gets the answer.
    fn poll_meanwhile(&self, cx: &mut Context<'_>) -> Poll<io::Result<std::convert::Infallible>> {
        self.conn.driven(cx);
        // Not pending for its own sake: whatever waits here wakes this task.
        let _ = self.conn.poll_flush(cx)?;
        while self.conn.is_read() && !self.conn.is_read_closed() && !self.conn.has_more() {
            if ready!(self.conn.poll_fill(cx))? == 0 {
                // The backend is to hear of it.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    /// Writes a response; whether the connection goes on after it.
    async fn respond<B>(&self, reply: Reply<B>, to: &AnswerTo) -> io::Result<bool>
    where
        B: Due<Data = Bytes> + Unpin,
        B::Error: fmt::Display,
    {
        let Reply { response, spelling } = reply;
        self.pace.still.set(0);
        self.pace.silent.set(false);
        let (mut parts, body) = Response::into_parts(response);
        let (mut coding, mut keep_alive) = (super::outbox::Coding::Done, false);
        self.conn.write(|out| {
            (coding, keep_alive) =
                encode::response(&mut parts, spelling.as_deref(), to, &body.size_hint(), out);
        });
        if head::has_no_body(&to.method, parts.status) {
            // Ended before it is written, as a body is: it may be the last that was waited for.
            drop(body);
            poll_fn(|cx| self.conn.poll_flush(cx)).await?;
            return Ok(keep_alive);
        }
        let mut sending = Sending::new(body, coding);
        let sent = poll_fn(|cx| {
            if self.pace.silent.get() {
                sending.body_mut().map(Due::give_up);
                let silent = io::Error::new(io::ErrorKind::TimedOut, self.pace.settings.silence(false));
                return Poll::Ready(Err(Unsent::Io(silent)));
            }
            let sent = sending.poll_send(&self.conn, cx);
            if sent.is_pending() {
                let _ = self.poll_meanwhile(cx).map_err(Unsent::Io)?;
                if let Some(Poll::Ready(_)) = sending.body_mut().map(|body| body.poll_due(cx)) {
                    let late = io::Error::new(io::ErrorKind::TimedOut, BodyError::Timeout);
                    return Poll::Ready(Err(Unsent::Io(late)));
                }
            }
            sent
        });
        let failed = match sent.await {
            Ok(()) => return Ok(keep_alive),
            Err(Unsent::Io(error)) => return Err(error),
            Err(Unsent::Body(error)) => io::Error::other(format!("the response broke off: {error}")),
            Err(Unsent::Length(wrong)) => io::Error::other(wrong),
        };
        // What there was of it is passed on, so that it is seen to be cut off.
        poll_fn(|cx| self.conn.poll_flush(cx)).await?;
        Err(failed)
    }

    fn hand_over(&self, upgrade: oneshot::Sender<Tunnel>) {
        if let Some((before, io)) = self.conn.take() {
            // If nobody waits for it any more, it is closed.
            let _ = upgrade.send(Tunnel::new(before, io));
        }
    }

    /// Ends the connection so that its caller gets to read what was said last.
    async fn linger(&self) {
        let last = async {
            poll_fn(|cx| self.conn.poll_shutdown(cx)).await.ok();
            poll_fn(|cx| self.conn.poll_discard(cx)).await;
        };
        let _ = tokio::time::timeout(LINGER, last).await;
    }
}

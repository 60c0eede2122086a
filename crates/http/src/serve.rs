//! Serving one connection of HTTP, whichever version it speaks, until it ends or is drained.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use crate::body::{BodyError, Due};
use crate::error::{Error, Reason};
use crate::h1::{self, Limits};
use crate::h2;
use crate::memory::Account;
use crate::message::Handler;

/// How often a [`Drain`]'s clock ticks.
pub const TICK: Duration = Duration::from_secs(1);
/// How long a connection that nobody has asked anything of still may once it is to end: a request may be on its way.
pub(crate) const LAST_WORD: Duration = Duration::from_secs(1);
/// How many requests a caller may have under way on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// Of a caller that asks for nobody but itself.
const MAX_UNSEEN_RESETS: usize = 20;
/// Of another sidecar, which has proven who it is and asks for all the callers that it has: what some of them break off
/// must not end the connection of the others.
pub const UNSEEN_RESETS_OF_A_SIDECAR: usize = 1024;

/// The version of HTTP that a connection speaks, as detection or ALPN found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// HTTP/2 from another sidecar, for an application of HTTP/1.1: how headers were spelled comes along.
    Carried,
}

/// What a listener allows its callers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How much header a request, or the response to it, may have.
    pub limits: Limits,
    /// How many requests a caller may have under way on one connection of HTTP/2.
    pub streams: u32,
    /// How many streams of HTTP/2 a caller may open and reset before they are even looked at (CVE-2023-44487): one more,
    /// and its connection ends.
    pub unseen_resets: usize,
    /// Whether the caller is another sidecar, which has proven who it is: its connection of HTTP/2 is that of many callers,
    /// and is not ended because one of them sends small frames that are read slowly.
    pub many_callers: bool,
    /// How long a caller may take for a request's header; `None`: as long as it likes.
    pub header_timeout: Option<Duration>,
    /// How long a connection is kept on which nothing is asked; `None`: as long as its caller likes.
    pub idle_timeout: Option<Duration>,
    /// How fast a request's body has to come while it is waited for.
    pub body_rate: Option<BodyRate>,
    /// For how long nothing may move on a request, its response, or the connection that they were upgraded to; `None`: as
    /// long as both sides like.
    pub stream_timeout: Option<Duration>,
    /// After how long a connection is told to end in order; `None`: never.
    pub max_age: Option<Duration>,
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
            unseen_resets: MAX_UNSEEN_RESETS,
            many_callers: false,
            header_timeout: Some(Duration::from_mins(1)),
            idle_timeout: Some(Duration::from_mins(5)),
            body_rate: None,
            stream_timeout: Some(Duration::from_hours(1)),
            max_age: None,
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

    pub(crate) fn stream_ticks(&self) -> u32 {
        self.stream_timeout.map_or(u32::MAX, ticks)
    }

    pub(crate) fn age_ticks(&self) -> u32 {
        self.max_age.map_or(u32::MAX, ticks)
    }

    /// Why a request fails on which nothing has moved for too long. `awaited`: a part of its body is waited for.
    pub(crate) fn silence(&self, awaited: bool) -> Error {
        let time = self.stream_timeout.unwrap_or_default();
        if awaited {
            let details = format!("nothing of the request's body came within the stream timeout of {time:?}");
            return Error::sent(Reason::HttpRequestTimeout, details);
        }
        let details = format!("nothing was sent either way within the stream timeout of {time:?}");
        Error::sent(Reason::ConnectionReadTimeout, details)
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

/// Which of its times a caller's connection was ended by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimedOut {
    /// For the head of a request, and for the first one to begin.
    Header,
    /// Between two requests.
    Idle,
    /// For the connection as a whole.
    Age,
    /// For an answer to a PING.
    Silence,
}

/// A caller, for the eyes of its [`Drain`].
pub(crate) trait Caller {
    /// Another tick has passed.
    fn tick(&self);
    /// The connection is to end.
    fn wind_down(&self);
    /// The connection is to end if nothing is under way on it, for memory is scarce.
    fn make_room(&self) {}
    /// The proxy is leaving, and goes on serving whoever stays.
    fn leave(&self) {}
}

/// Tells the connections of one worker, or of one listener, to end when what is under way is done; and what time it is.
#[derive(Default)]
pub struct Drain {
    on: Cell<bool>,
    leaving: Cell<bool>,
    notify: Notify,
    now: Cell<u32>,
    callers: RefCell<Vec<Weak<dyn Caller>>>,
    /// What its connections hold is counted there.
    memory: Rc<Account>,
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("on", &self.on).field("now", &self.now).finish_non_exhaustive()
    }
}

impl Drain {
    /// For connections whose memory is counted in this account.
    pub fn counting(memory: Rc<Account>) -> Self {
        Self { memory, ..Self::default() }
    }

    /// Where what its connections hold is counted.
    pub(crate) const fn memory(&self) -> &Rc<Account> {
        &self.memory
    }

    /// Has those connections end on which nothing is under way, in order: memory is scarce.
    pub fn make_room(&self) {
        self.each(|caller| caller.make_room());
    }

    /// Tells them.
    pub fn begin(&self) {
        self.on.set(true);
        self.notify.notify_waiters();
        self.each(|caller| caller.wind_down());
    }

    /// Tells the callers of HTTP/2 that this end is leaving: GOAWAY, in both phases, so that their next request goes
    /// elsewhere. New connections are served, and told the same after their first request.
    pub fn leave(&self) {
        self.leaving.set(true);
        self.each(|caller| caller.leave());
    }

    /// Whether that was told.
    pub(crate) const fn is_leaving(&self) -> bool {
        self.leaving.get()
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

    /// Whether no caller is there that time matters to.
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

/// Serves one connection until it ends. When `drain` begins, HTTP/1.1 callers are told `Connection: close` with the
/// response under way, and HTTP/2 callers GOAWAY, in both phases; what is under way is finished. Answers which of
/// its times ended it, if one did.
///
/// # Errors
/// What ended the connection, if it was not either side's orderly end.
pub async fn connection<IO, H, B>(
    io: IO,
    version: Version,
    handler: H,
    settings: Arc<Settings>,
    drain: Rc<Drain>,
) -> io::Result<Option<TimedOut>>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler<Body = B> + 'static,
    B: Due<Data = Bytes> + Unpin + 'static,
    B::Error: Into<BodyError> + fmt::Display,
{
    match version {
        Version::Http1 => h1::serve(io, handler, settings, drain).await,
        Version::Http2 | Version::Carried => {
            let carried = version == Version::Carried;
            // Boxed, for every connection of HTTP/1 would have the room for it.
            Box::pin(h2::server::serve(io, handler, settings, drain, carried)).await.map_err(io::Error::other)
        }
    }
}

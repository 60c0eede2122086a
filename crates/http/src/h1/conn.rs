//! One connection of HTTP/1, whichever end of it this is: what comes in, cut into heads and bodies, and what goes out.
//! It is shared, on one thread, by whoever drives it and by the body that is being read from it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::decode::{Decoder, Taken};
use super::head::{Framing, Limits, Scanner, Wrong};
use super::outbox::{Coding, Outbox, WrongLength};
use crate::body::BodyError;
use crate::error::Error;
use crate::sleeper::Sleeper;

/// How much is read at once, into the stack: a connection that waits holds no buffer.
const PORTION: usize = 16 * 1024;

/// One connection.
#[derive(Debug)]
pub(super) struct Conn<IO> {
    state: RefCell<State<IO>>,
    /// Whether somebody holds the body that is being read.
    held: Cell<bool>,
    /// Whether the driver waits until nobody does.
    waits: Cell<bool>,
    /// Whoever waits for a part of that body.
    reader: Sleeper,
    /// Whoever drives the connection.
    driver: Sleeper,
}

#[derive(Debug)]
struct State<IO> {
    /// `None` once it was closed, or given to another use.
    io: Option<IO>,
    inbox: BytesMut,
    scanner: Scanner,
    decoder: Decoder,
    limits: Limits,
    /// Whether the other side has said its last.
    read_closed: bool,
    /// Whether any byte was read since this was last looked at.
    moved: bool,
    out: Outbox,
}

/// What comes next.
pub(super) enum Next<T> {
    /// A whole head.
    Head(T),
    /// The end of the connection, within a head if `true`.
    End(bool),
    /// What cannot be understood.
    Wrong(Wrong),
}

impl<IO> Conn<IO> {
    pub(super) fn new(io: IO, limits: Limits) -> Self {
        let state = State {
            io: Some(io),
            inbox: BytesMut::new(),
            scanner: Scanner::default(),
            decoder: Decoder::new(Framing::Length(0)),
            limits,
            read_closed: false,
            moved: false,
            out: Outbox::default(),
        };
        Self {
            state: RefCell::new(state),
            held: Cell::new(false),
            waits: Cell::new(false),
            reader: Sleeper::default(),
            driver: Sleeper::default(),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.state.borrow().limits
    }

    pub(super) fn set_limits(&self, limits: Limits) {
        self.state.borrow_mut().limits = limits;
    }

    /// What `look` sees of the connection; `None` once it was closed, or given to another use.
    pub(super) fn look<T>(&self, look: impl FnOnce(&IO) -> T) -> Option<T> {
        self.state.borrow().io.as_ref().map(look)
    }

    /// Closes it, whoever waits for it.
    pub(super) fn close(&self) {
        self.state.borrow_mut().io = None;
        self.wake();
    }

    /// Takes the connection away, with what was read of it and not used.
    pub(super) fn take(&self) -> Option<(Bytes, IO)> {
        let mut state = self.state.borrow_mut();
        let io = state.io.take()?;
        Some((std::mem::take(&mut state.inbox).freeze(), io))
    }

    /// Wakes whoever drives it, and whoever waits for a part of a body.
    pub(super) fn wake(&self) {
        self.driver.wake();
        self.reader.wake();
    }

    /// Whether any byte has moved since this was last asked.
    pub(super) fn has_moved(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        std::mem::take(&mut state.moved) | std::mem::take(&mut state.out.moved)
    }

    /// Remembers who drives it.
    pub(super) fn driven(&self, cx: &Context<'_>) {
        self.driver.wait(cx);
    }

    /// Begins a body that comes in.
    pub(super) fn begin(&self, framing: Framing) {
        self.state.borrow_mut().decoder = Decoder::new(framing);
    }

    /// Whether the body that comes in has ended.
    pub(super) fn is_read(&self) -> bool {
        self.state.borrow().decoder.is_done()
    }

    /// Whether somebody holds the body that comes in.
    pub(super) const fn is_held(&self) -> bool {
        self.held.get()
    }

    /// Notes that somebody does.
    pub(super) fn hold(&self) {
        self.held.set(true);
    }

    /// Notes that nobody does any more.
    pub(super) fn let_go(&self) {
        self.held.set(false);
        if self.waits.replace(false) {
            self.wake();
        }
    }

    /// Ready once nobody holds the body that comes in.
    pub(super) fn poll_let_go(&self, cx: &Context<'_>) -> Poll<()> {
        self.driven(cx);
        self.waits.set(self.held.get());
        if self.held.get() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Whether the other side has said its last.
    pub(super) fn is_read_closed(&self) -> bool {
        self.state.borrow().read_closed
    }

    /// Whether any part of the next message is there.
    pub(super) fn has_more(&self) -> bool {
        !self.state.borrow().inbox.is_empty()
    }

    /// Begins a message that goes out.
    pub(super) fn begin_message(&self) {
        self.state.borrow_mut().out.begun = false;
    }

    /// Whether any byte of it was written.
    pub(super) fn has_begun_message(&self) -> bool {
        self.state.borrow().out.begun
    }

    /// Puts something in to be written.
    pub(super) fn write(&self, put: impl FnOnce(&mut BytesMut)) {
        put(self.state.borrow_mut().out.flat());
    }

    /// How many bytes wait to be written before whatever is written next.
    pub(super) fn waiting(&self) -> usize {
        self.state.borrow_mut().out.flat().len()
    }

    /// Gives back the room of what is not needed while nothing is under way.
    pub(super) fn shrink(&self) {
        self.state.borrow_mut().out.shrink();
    }

    /// Drops what is there of a body that nobody wants; whether that was all of it.
    pub(super) fn discard_buffered(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        loop {
            match state.decoder.take(&mut state.inbox, &state.limits) {
                Ok(Taken::Data(_)) => {}
                Ok(Taken::End | Taken::Trailers(_)) => return true,
                Ok(Taken::More) | Err(_) => return false,
            }
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Conn<IO> {
    /// Waits for the next head.
    pub(super) fn poll_head<T>(
        &self,
        cx: &mut Context<'_>,
        read: impl FnOnce(Bytes, &Limits) -> Result<T, Wrong>,
    ) -> Poll<io::Result<Next<T>>> {
        let state = &mut *self.state.borrow_mut();
        loop {
            if !state.inbox.is_empty() {
                match state.scanner.end(&state.inbox, &state.limits) {
                    Ok(None) => {}
                    // An empty line before a head is none of it (RFC 9112, section 2.2).
                    Ok(Some(2)) => {
                        state.inbox.advance(2);
                        continue;
                    }
                    Ok(Some(end)) => {
                        let whole = end == state.inbox.len();
                        let raw =
                            if whole { std::mem::take(&mut state.inbox) } else { state.inbox.split_to(end) };
                        let head = read(raw.freeze(), &state.limits);
                        return Poll::Ready(Ok(head.map_or_else(Next::Wrong, Next::Head)));
                    }
                    Err(wrong) => return Poll::Ready(Ok(Next::Wrong(wrong))),
                }
            }
            if state.read_closed || ready!(state.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(Next::End(!state.inbox.is_empty())));
            }
        }
    }

    /// Reads more into the inbox; 0 at the end.
    pub(super) fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.state.borrow_mut().poll_fill(cx)
    }

    /// Writes what there is to write.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &mut *self.state.borrow_mut();
        let io = state.io.as_mut().ok_or_else(gone)?;
        state.out.poll_flush(io, cx)
    }

    /// Says that nothing more will be written.
    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        let mut state = self.state.borrow_mut();
        let io = state.io.as_mut().ok_or_else(gone)?;
        Pin::new(io).poll_shutdown(cx)
    }

    /// Reads and drops whatever comes until the end.
    pub(super) fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        loop {
            state.inbox.clear();
            if !matches!(ready!(state.poll_fill(cx)), Ok(1..)) {
                return Poll::Ready(());
            }
        }
    }

    /// The next part of the body that comes in; `refuse` says what is wrong with it.
    pub(super) fn poll_body(
        &self,
        cx: &mut Context<'_>,
        refuse: impl FnOnce(Wrong, &Limits) -> Error,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let state = &mut *self.state.borrow_mut();
        loop {
            match state.decoder.take(&mut state.inbox, &state.limits) {
                Ok(Taken::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Taken::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Taken::End) => return Poll::Ready(None),
                Ok(Taken::More) => {}
                Err(wrong) => {
                    let error = refuse(wrong, &state.limits);
                    return Poll::Ready(Some(Err(BodyError::Refused(error))));
                }
            }
            let filled = if state.read_closed {
                Ok(0)
            } else {
                match state.poll_fill(cx) {
                    Poll::Ready(filled) => filled,
                    Poll::Pending => {
                        self.reader.wait(cx);
                        return Poll::Pending;
                    }
                }
            };
            match filled {
                Ok(0) if state.decoder.ends_with_connection() => {
                    state.decoder = Decoder::new(Framing::Length(0));
                    return Poll::Ready(None);
                }
                Ok(0) => {
                    return Poll::Ready(Some(Err(BodyError::Broken(
                        "the connection ended within the body".into(),
                    ))));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(BodyError::Broken(error.into())))),
            }
        }
    }
}

impl<IO: AsyncRead + Unpin> State<IO> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Err(gone())) };
        let mut room = [const { MaybeUninit::uninit() }; PORTION];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(io).poll_read(cx, &mut room))?;
        let filled = room.filled();
        self.inbox.extend_from_slice(filled);
        self.moved = true;
        self.read_closed |= filled.is_empty();
        Poll::Ready(Ok(filled.len()))
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the connection was closed here")
}

/// Why a body could not be sent on.
#[derive(Debug)]
pub(super) enum Unsent<E> {
    /// By what it comes from.
    Body(E),
    /// By the connection that it goes to.
    Io(io::Error),
    /// It contradicts its header.
    Length(WrongLength),
}

/// A body on its way out.
#[derive(Debug)]
pub(super) struct Sending<B> {
    from: From<B>,
    coding: Coding,
    /// What goes out as soon as there is room.
    ahead: Option<Frame<Bytes>>,
    /// Whether any of it was taken from where it comes from.
    pub(super) begun: bool,
}

/// Where a body comes from.
#[derive(Debug)]
enum From<B> {
    Body(B),
    /// It has ended, and its end is to be written.
    Ended,
    /// Its end was put out.
    Done,
}

impl<B> Sending<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    pub(super) const fn new(body: B, coding: Coding) -> Self {
        Self { from: From::Body(body), coding, ahead: None, begun: false }
    }

    /// The body, unless it has ended.
    pub(super) const fn body_mut(&mut self) -> Option<&mut B> {
        match &mut self.from {
            From::Body(body) => Some(body),
            From::Ended | From::Done => None,
        }
    }

    /// The body, unless it has ended.
    pub(super) fn into_body(self) -> Option<B> {
        match self.from {
            From::Body(body) => Some(body),
            From::Ended | From::Done => None,
        }
    }

    /// Sends it, and all that was put in before.
    pub(super) fn poll_send<IO>(
        &mut self,
        conn: &Conn<IO>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Unsent<B::Error>>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            while self.poll_put(conn, cx)? {}
            ready!(conn.poll_flush(cx)).map_err(Unsent::Io)?;
            match &self.from {
                From::Done => return Poll::Ready(Ok(())),
                From::Body(_) if self.ahead.is_none() => return Poll::Pending,
                // There is room again.
                From::Body(_) | From::Ended => {}
            }
        }
    }

    /// Puts out one part of the body; `false` where nothing can be put out before something is written, or comes.
    fn poll_put<IO>(&mut self, conn: &Conn<IO>, cx: &mut Context<'_>) -> Result<bool, Unsent<B::Error>> {
        if let Some(frame) = self.ahead.take() {
            let out = &mut conn.state.borrow_mut().out;
            if out.is_full() {
                self.ahead = Some(frame);
                return Ok(false);
            }
            out.push(frame, &mut self.coding).map_err(Unsent::Length)?;
        }
        match &mut self.from {
            From::Body(body) if body.is_end_stream() => self.from = From::Ended,
            From::Body(body) => {
                self.begun = true;
                match Pin::new(body).poll_frame(cx) {
                    Poll::Pending => return Ok(false),
                    Poll::Ready(None) => self.from = From::Ended,
                    Poll::Ready(Some(frame)) => self.ahead = Some(frame.map_err(Unsent::Body)?),
                }
            }
            From::Ended => {
                let out = &mut conn.state.borrow_mut().out;
                if !out.has_room_for_end() {
                    return Ok(false);
                }
                out.finish(&mut self.coding).map_err(Unsent::Length)?;
                self.from = From::Done;
            }
            From::Done => return Ok(false),
        }
        Ok(true)
    }
}

/// A body as it comes in on a connection of HTTP/1.
pub(crate) struct Body {
    source: Rc<dyn Source>,
    /// How many bytes there still are, if that is known.
    left: Option<u64>,
    ended: bool,
}

/// The connection that a body comes in on.
pub(super) trait Source {
    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>;
    /// Nobody wants the body any more, or it has ended.
    fn let_go(&self);
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("left", &self.left).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Body {
    pub(super) fn new(source: Rc<dyn Source>, framing: Framing) -> Self {
        let left = match framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::Close => None,
        };
        Self { source, left, ended: left == Some(0) }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(self.source.poll_frame(cx));
        if let (Some(left), Some(Ok(frame))) = (&mut self.left, &frame) {
            *left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len) as u64);
        }
        let last = frame.as_ref().is_none_or(|frame| frame.as_ref().map_or(true, Frame::is_trailers));
        self.ended = last || self.left == Some(0);
        Poll::Ready(frame)
    }

    pub(crate) const fn is_end_stream(&self) -> bool {
        self.ended
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.source.let_go();
    }
}

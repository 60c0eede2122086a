//! A body on its way out.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;

use super::passed_on;
use super::server::Respond;
use crate::body::{BodyError, Due};
use crate::h1::SPELLING;
use crate::memory::Stall;

/// Sends a body on a stream as fast as the peer takes it. Ends when it is sent, or cannot be.
pub(super) struct Sending<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// What was read and waits for room, and whether it is the last.
    next: Option<(Bytes, bool)>,
    /// Whether the peer is another sidecar, which is told how trailers were spelled.
    carried: bool,
    /// Counts what is held while the peer gives it no room.
    stall: Option<Stall>,
    /// Of a response: the stream that it goes out on.
    response: Option<Rc<Respond>>,
}

impl<B> Sending<B> {
    pub(super) const fn new(body: B, stream: SendStream<Bytes>, carried: bool) -> Self {
        Self { body, stream, next: None, carried, stall: None, response: None }
    }

    /// Counts what is held while the peer gives it no room.
    pub(super) fn counted(mut self, stall: Stall) -> Self {
        self.stall = Some(stall);
        self
    }

    /// It is a response.
    pub(super) fn of(mut self, response: Rc<Respond>) -> Self {
        self.response = Some(response);
        self
    }
}

impl<B> Sending<B> {
    fn end_with(&mut self, mut trailers: HeaderMap) {
        self.stream.reserve_capacity(0);
        if !self.carried {
            trailers.remove(SPELLING);
        }
        // Refused if the stream is gone.
        let _ = self.stream.send_trailers(trailers);
    }
}

impl<B: Due> Sending<B> {
    /// Nothing has moved for too long.
    fn give_up(&mut self) {
        match self.body.give_up() {
            Some(trailers) => self.end_with(trailers),
            None => self.stream.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}

impl<B: Due<Data = Bytes, Error: Into<BodyError>> + Unpin> Future for Sending<B> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.response.as_ref().is_some_and(|response| response.motion.is_silent(cx)) {
            this.give_up();
            return Poll::Ready(());
        }
        // Wakes this task when the peer resets the stream, whatever it waits for. That is heard of between two polls.
        if this.stream.poll_reset(cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            if let Some((data, last)) = &mut this.next {
                while !data.is_empty() && this.stream.capacity() == 0 {
                    match this.stream.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(_))) => {}
                        // An error, or the end, is the stream's.
                        Poll::Ready(_) => return Poll::Ready(()),
                        Poll::Pending => {
                            this.stall.iter_mut().for_each(|stall| stall.set(true));
                            match ready!(this.body.poll_due(cx)) {
                                Some(trailers) => this.end_with(trailers),
                                None => this.stream.send_reset(Reason::INTERNAL_ERROR),
                            }
                            return Poll::Ready(());
                        }
                    }
                }
                this.stall.iter_mut().for_each(|stall| stall.set(false));
                let (data, last) = (std::mem::take(data), *last);
                this.next = None;
                if let Some(response) = &this.response {
                    response.motion.note();
                }
                if this.stream.send_data(data, last).is_err() || last {
                    return Poll::Ready(());
                }
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    // Nothing, and more to come: it would only wear the connection down (see `Sieve`).
                    Ok(data) if data.is_empty() && !this.body.is_end_stream() => {}
                    Ok(data) => {
                        // The least of claims: what is reserved of a connection's window is withheld from its other
                        // streams, and `send_data` claims the rest.
                        if !data.is_empty() {
                            this.stream.reserve_capacity(1);
                        }
                        this.next = Some((data, this.body.is_end_stream()));
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            this.end_with(trailers);
                        }
                        return Poll::Ready(());
                    }
                },
                Some(Err(error)) => {
                    this.stream.send_reset(error.into().reset().map_or(Reason::INTERNAL_ERROR, passed_on));
                    return Poll::Ready(());
                }
                None => {
                    let _ = this.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(());
                }
            }
        }
    }
}

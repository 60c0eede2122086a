//! Whether the peer of a connection is still there.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use super::heard::Heard;

/// When a peer is asked whether it is there, and when it is given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// After how long a silence it is asked.
    pub(crate) silence: Duration,
    /// How long it then has to say anything.
    pub(crate) patience: Duration,
    /// How long it is not asked again if it has answered, but sent nothing of a message since.
    pub(crate) sparing: Duration,
}

/// Asks a peer that is silent whether it is still there (RFC 9113, section 6.7).
pub(super) struct KeepAlive {
    pings: PingPong,
    terms: Terms,
    heard: Rc<Heard>,
    timer: Pin<Box<Sleep>>,
    asked: bool,
    /// When it was asked last.
    last: Option<Instant>,
    /// Whether it was of interest all through the silence.
    wanted: bool,
}

impl KeepAlive {
    /// Watches over the connection on an [`Ear`] that notes in `heard` what comes.
    pub(super) fn new(pings: PingPong, terms: Terms, heard: Rc<Heard>) -> Self {
        let timer = Box::pin(sleep(terms.silence));
        Self { pings, terms, heard, timer, asked: false, last: None, wanted: true }
    }

    /// Ready once the peer has not answered. Asks only while it is `wanted`, and was for all of the silence.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, wanted: bool) -> Poll<()> {
        loop {
            if self.asked && matches!(self.pings.poll_pong(cx), Poll::Ready(Ok(_))) {
                self.asked = false;
                self.wait(self.terms.silence);
            }
            std::task::ready!(self.timer.as_mut().poll(cx));
            let heard = self.heard.any.replace(false);
            if self.asked && !heard {
                return Poll::Ready(());
            }
            let wanted_before = std::mem::replace(&mut self.wanted, wanted);
            let silent = !heard && wanted && wanted_before;
            // A ping that is still on its way back is not sent again.
            self.asked |= silent && self.may_ask() && self.ask();
            self.wait(if self.asked { self.terms.patience } else { self.terms.silence });
        }
    }

    /// Whether the peer does not mind being asked: it has sent something of a message since it was asked last, or that is
    /// long ago.
    fn may_ask(&self) -> bool {
        self.heard.message.get() || self.last.is_none_or(|last| last.elapsed() >= self.terms.sparing)
    }

    fn ask(&mut self) -> bool {
        self.heard.message.set(false);
        self.last = Some(Instant::now());
        self.pings.send_ping(Ping::opaque()).is_ok()
    }

    fn wait(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }
}

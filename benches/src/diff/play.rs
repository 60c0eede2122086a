//! Playing one end's script: what was received so far, and the steps one after the other.

use std::{future::Future, time::Duration};

use tokio::{sync::watch, time::timeout};

use super::{
    exchange::{Step, Until},
    message::{End, Event, Message},
    parser::Parser,
};

/// After this, what a script waits for is taken not to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What one end has received.
#[derive(Debug)]
pub(crate) struct Inbox {
    parser: Parser,
    pub(crate) messages: Vec<Message>,
    /// How the other end stopped sending.
    pub(crate) ended: Option<End>,
}

impl Inbox {
    pub(crate) fn new(parser: Parser) -> watch::Sender<Self> {
        watch::Sender::new(Self { parser, messages: Vec::new(), ended: None })
    }

    /// Takes bytes of HTTP/1.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let events = self.parser.feed(bytes);
        self.take(events);
    }

    /// The next response answers this method.
    pub(crate) fn asked(&mut self, method: &[u8]) {
        self.parser.asked(method);
    }

    /// Whether a change of protocol was granted.
    pub(crate) fn decide(&mut self, switched: bool) {
        let events = self.parser.decide(switched);
        self.take(events);
    }

    /// Takes what was understood.
    pub(crate) fn take(&mut self, events: Vec<Event>) {
        for event in events {
            if let Event::Head(head) = event {
                self.messages.push(Message::new(head));
                continue;
            }
            let Some(message) = self.messages.last_mut() else { continue };
            match event {
                Event::Head(_) => {}
                Event::Data(data) => message.body.extend(data),
                Event::Trailers(fields) => message.trailers.extend(fields),
                Event::Tunnel(data) => {
                    message.switched = true;
                    message.tunnel.extend(data);
                }
                Event::End => message.end = End::Complete,
            }
        }
        let broken = self.parser.broken().map(ToOwned::to_owned);
        if let (Some(why), Some(message)) = (broken, self.messages.last_mut())
            && message.end == End::Unread
        {
            message.end = End::Broken(why);
        }
    }

    /// The other end sends nothing more.
    pub(crate) fn end(&mut self, how: End) {
        if how == End::Closed {
            let events = self.parser.close();
            self.take(events);
        }
        if let Some(message) = self.messages.last_mut().filter(|message| message.end == End::Unread) {
            message.end = how.clone();
        }
        self.ended = Some(how);
    }

    /// What was received and is part of no message.
    pub(crate) fn rest(&self) -> &[u8] {
        self.parser.pending()
    }

    /// Whether nothing more will be understood.
    fn is_over(&self) -> bool {
        self.ended.is_some() || self.parser.broken().is_some()
    }

    /// The message that an end is concerned with.
    fn current(&self, at: At) -> Option<&Message> {
        match at {
            At::Request(index) => self.messages.get(index),
            At::Response(0) => None,
            At::Response(count) => self.messages.iter().filter(|m| !m.head.is_interim()).nth(count - 1),
        }
    }

    fn meets(&self, until: Until, at: At) -> bool {
        let current = self.current(at);
        match until {
            Until::Interim(count) => {
                current.is_some() || self.messages.iter().filter(|m| m.head.is_interim()).count() >= count
            }
            Until::Head => current.is_some(),
            Until::Body(count) => current.is_some_and(|m| {
                // Once it has ended, waiting on is in vain; a change of protocol only begins then.
                m.body.len() + m.tunnel.len() >= count
                    || (m.is_complete() && !m.switched && !m.head.may_switch())
            }),
            Until::Complete => current.is_some_and(Message::is_complete),
            Until::Closed => self.ended.is_some(),
        }
    }
}

/// Where in what it receives an end is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At {
    /// The application, at the request with this index on its connection.
    Request(usize),
    /// The caller, after this many requests.
    Response(usize),
}

/// What can be done to the other end, whatever is spoken.
pub(crate) trait Link {
    /// What was received.
    fn inbox(&self) -> &watch::Sender<Inbox>;
    /// Sends bytes; with `head`, they begin a message. What cannot be sent because the other end has gone is lost.
    fn send(&mut self, bytes: &[u8], head: bool) -> impl Future<Output = Result<(), String>> + Send;
    /// Closes its own direction.
    fn finish(&mut self) -> impl Future<Output = ()> + Send;
    /// Closes.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
    /// Breaks it.
    fn reset(&mut self);
    /// Returns once the other end wants nothing more, where what is received does not tell.
    fn unwanted(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// The marks that were set, for the two ends of an exchange to wait for.
pub(crate) type Marks = watch::Sender<Vec<&'static str>>;

/// Plays a script to its end.
///
/// # Errors
///
/// With the step at which it went no further.
pub(crate) async fn play<L: Link>(
    steps: &[Step],
    link: &mut L,
    mut at: At,
    marks: &Marks,
) -> Result<(), String> {
    for (number, step) in steps.iter().enumerate() {
        let stuck = |what: &str| format!("step {} of {}: {what}", number + 1, steps.len());
        match step {
            Step::Head(bytes) => {
                if let At::Response(count) = &mut at {
                    *count += 1;
                }
                timely(link.send(bytes, true)).await.map_err(|why| stuck(&why))?;
            }
            Step::Bytes(bytes) => timely(link.send(bytes, false)).await.map_err(|why| stuck(&why))?,
            Step::Await(until) => {
                let met = timeout(PATIENCE, received(*until, link, at)).await;
                met.map_err(|_| stuck(&format!("waited in vain for {until:?}")))?;
            }
            Step::Mark(mark) => marks.send_modify(|marks| marks.push(mark)),
            Step::Wait(mark) => {
                let mut marks = marks.subscribe();
                let met = marks.wait_for(|marks| marks.contains(mark));
                timeout(PATIENCE, met)
                    .await
                    .map_err(|_| stuck(&format!("waited in vain for `{mark}`")))?
                    .ok();
            }
            Step::Finish => link.finish().await,
            Step::Close => link.close().await,
            Step::Reset => link.reset(),
        }
    }
    Ok(())
}

async fn received<L: Link>(until: Until, link: &mut L, at: At) {
    let mut inbox = link.inbox().subscribe();
    let met = inbox.wait_for(|inbox| inbox.meets(until, at) || inbox.is_over());
    if until != Until::Closed {
        let _ = met.await.is_ok();
        return;
    }
    tokio::select! {
        _ = met => {}
        () = link.unwanted() => link.inbox().send_modify(|inbox| inbox.end(End::Reset)),
    }
}

async fn timely(sent: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    timeout(PATIENCE, sent).await.unwrap_or_else(|_| Err("could not send".into()))
}

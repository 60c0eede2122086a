//! The caller: plays its side of an exchange, and gathers what both ends saw.

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpStream;

use super::{
    application::{Application, Received, Session},
    exchange::{Exchange, Expect, Speaks, Step},
    http1::Http1,
    http2,
    message::{End, Message},
    play::{At, Link, play},
};

/// What both ends of an exchange saw.
#[derive(Debug, Clone)]
pub(crate) struct Transcript {
    /// The responses, interim ones too.
    pub(crate) caller: Vec<Message>,
    /// Whether the caller saw its connection, or stream, end.
    pub(crate) ended: bool,
    /// The requests.
    pub(crate) application: Vec<Message>,
    /// Where a script went no further.
    pub(crate) stuck: Vec<String>,
}

/// Plays an exchange. What the application saw is for `Transcript::gather`.
pub(crate) async fn exchange(
    exchange: &Arc<Exchange>,
    speaks: Speaks,
    to: SocketAddr,
    application: &Application,
) -> (Transcript, Arc<Session>) {
    let session = Session::new(exchange);
    application.expect(&session);
    let transcript = match connect(exchange, speaks, to).await {
        Ok(Caller::Http1(mut link)) => run(&session, &mut *link).await,
        Ok(Caller::Http2(mut link)) => run(&session, &mut *link).await,
        Err(why) => Transcript {
            caller: Vec::new(),
            ended: true,
            application: Vec::new(),
            stuck: vec![format!("the caller cannot connect: {why}")],
        },
    };
    (transcript, session)
}

impl Transcript {
    /// Adds what the application saw: all of it, what came late too.
    pub(crate) async fn gather(&mut self, session: &Session) {
        session.settled(0).await;
        let received = session.received.borrow().clone();
        for (number, Received { message, stuck }) in received.into_iter().enumerate() {
            let number = number + 1;
            self.stuck.extend(stuck.map(|why| format!("the application, request {number}, {why}")));
            match message {
                Some(message) => self.application.push(message),
                None => self.stuck.push(format!("the application did not finish with request {number}")),
            }
        }
    }
}

enum Caller {
    Http1(Box<Http1>),
    Http2(Box<http2::Caller>),
}

async fn connect(exchange: &Exchange, speaks: Speaks, to: SocketAddr) -> Result<Caller, String> {
    let stream = TcpStream::connect(to).await.map_err(|error| error.to_string())?;
    Ok(match speaks {
        Speaks::Http1 => Caller::Http1(Box::new(Http1::caller(stream, &exchange.name))),
        Speaks::Http2 => {
            Caller::Http2(Box::new(http2::Caller::new(stream, &exchange.name, exchange.raw).await?))
        }
    })
}

async fn run<L: Link>(session: &Session, link: &mut L) -> Transcript {
    let exchange = &session.exchange;
    let played = play(&exchange.caller, link, At::Response(0), &session.marks).await;
    let mut stuck: Vec<_> = played.err().map(|why| format!("the caller, {why}")).into_iter().collect();
    if must_close(exchange) {
        let mut inbox = link.inbox().subscribe();
        let _ =
            tokio::time::timeout(super::play::PATIENCE, inbox.wait_for(|inbox| inbox.ended.is_some())).await;
    }
    // Where the caller got nowhere, the application need not be waited for.
    let expected = if stuck.is_empty() { expected(exchange) } else { 0 };
    if !session.settled(expected).await && stuck.is_empty() {
        let came = session.received.borrow().len();
        stuck.push(format!("{came} of {expected} requests came to the application"));
    }
    let inbox = link.inbox().borrow();
    let mut messages = inbox.messages.clone();
    if goes_away(exchange) {
        // What it would have seen of a message that it did not wait for is by chance.
        messages
            .iter_mut()
            .filter(|message| !message.is_complete())
            .for_each(|message| message.end = End::Unread);
    }
    Transcript { caller: messages, ended: inbox.ended.is_some(), application: Vec::new(), stuck }
}

/// Whether the caller must see its connection end, though its script may not wait for that.
fn must_close(exchange: &Exchange) -> bool {
    !goes_away(exchange)
        && matches!(exchange.expect, Expect::Refused { closes: true, .. } | Expect::Broken { .. })
}

/// Whether the caller closes, or breaks off.
fn goes_away(exchange: &Exchange) -> bool {
    exchange.caller.iter().any(|step| matches!(step, Step::Close | Step::Reset))
}

/// How many requests must come to the application.
fn expected(exchange: &Exchange) -> usize {
    match exchange.expect {
        Expect::Same | Expect::Unusable { .. } | Expect::CutOff => exchange.application.len(),
        Expect::Refused { forwarded, .. } => forwarded,
        Expect::Broken { .. } => 0,
    }
}

//! The application: it plays, for each request that reaches it, the script of the exchange that the request names.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

use super::{
    exchange::{Exchange, ID, Speaks, Step, Until},
    http1::Http1,
    http2,
    message::{End, Head, Message, readable},
    play::{At, Link, Marks, PATIENCE, play},
    raw,
};

/// What the application got of one request.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// `None` while its script runs.
    pub(crate) message: Option<Message>,
    /// Where its script went no further.
    pub(crate) stuck: Option<String>,
}

/// An exchange under way.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) marks: Marks,
    pub(crate) received: watch::Sender<Vec<Received>>,
}

impl Session {
    pub(crate) fn new(exchange: &Arc<Exchange>) -> Arc<Self> {
        Arc::new(Self {
            exchange: exchange.clone(),
            marks: watch::Sender::default(),
            received: watch::Sender::default(),
        })
    }

    /// The script for the request that has just begun, and its place.
    fn begin(&self) -> (usize, Vec<Step>) {
        let mut place = 0;
        self.received.send_modify(|received| {
            place = received.len();
            received.push(Received { message: None, stuck: None });
        });
        let scripts = &self.exchange.application;
        // A request that was sent again is answered as it was.
        let again = if self.exchange.may_be_resent() { scripts.last() } else { None };
        let script = scripts.get(place).or(again).cloned();
        (place, script.unwrap_or_else(|| vec![Step::Head(NOBODY.into())]))
    }

    fn end(&self, place: usize, message: Message, stuck: Option<String>) {
        self.received.send_modify(|received| {
            if let Some(entry) = received.get_mut(place) {
                *entry = Received { message: Some(message), stuck };
            }
        });
    }

    /// Waits until so many requests came, or more, and all of their scripts have ended. Whether they did.
    pub(crate) async fn settled(&self, requests: usize) -> bool {
        let mut received = self.received.subscribe();
        let settled = received.wait_for(|received| {
            received.len() >= requests && received.iter().all(|received| received.message.is_some())
        });
        timeout(PATIENCE * 2, settled).await.is_ok()
    }
}

/// The answer to a request that belongs to no exchange.
const NOBODY: &str = "HTTP/1.1 599 Unexpected\r\nContent-Length: 0\r\n\r\n";

#[derive(Debug, Default)]
struct State {
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    /// What came and belongs to no exchange.
    strays: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An application that listens; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Application {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

impl Application {
    /// Starts one.
    pub(crate) async fn start(speaks: Speaks, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = Arc::<State>::default();
        let held = state.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                match speaks {
                    Speaks::Http1 => drop(tokio::spawn(http1_connection(stream, held.clone()))),
                    Speaks::Http2 => drop(tokio::spawn(http2_connection(stream, held.clone()))),
                }
            }
        });
        Ok(Self { address, state, accepting })
    }

    /// Expects the requests of an exchange from now on.
    pub(crate) fn expect(&self, session: &Arc<Session>) {
        lock(&self.state.sessions).insert(session.exchange.name.clone(), session.clone());
    }

    /// What came so far and belongs to no exchange.
    pub(crate) fn strays(&self) -> Vec<String> {
        lock(&self.state.strays).clone()
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    fn session(&self, head: &Head) -> Option<Arc<Session>> {
        let id = String::from_utf8_lossy(head.first(ID)?).into_owned();
        lock(&self.sessions).get(&id).cloned()
    }

    fn stray(&self, bytes: &[u8]) {
        lock(&self.strays).push(readable(bytes));
    }
}

async fn http1_connection(stream: TcpStream, state: Arc<State>) {
    let mut link = Http1::application(stream);
    for index in 0.. {
        let mut inbox = link.inbox().subscribe();
        let begun = inbox.wait_for(|inbox| inbox.messages.len() > index || inbox.ended.is_some()).await;
        let Ok(begun) = begun.map(|inbox| inbox.messages.get(index).map(|message| message.head.clone()))
        else {
            return;
        };
        let Some(head) = begun else {
            let rest = link.inbox().borrow().rest().to_vec();
            if !rest.is_empty() {
                state.stray(&rest);
            }
            return;
        };
        head.method().clone_into(&mut link.answering);
        let Some(session) = state.session(&head) else {
            state.stray(&[head.method(), b" without the name of an exchange"].concat());
            let _ = link.send(NOBODY.as_bytes(), true).await;
            return link.close().await;
        };
        serve(&session, &mut link, index).await;
        let goes_on = link.inbox().borrow().messages.get(index).is_some_and(Message::is_complete);
        if link.is_closed() || !goes_on {
            return link.close().await;
        }
    }
}

async fn http2_connection(stream: TcpStream, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(4 << 20).initial_connection_window_size(8 << 20).enable_connect_protocol();
    // Exchanges that break off early come one beside the other: that is no attack (CVE-2023-44487).
    builder.max_pending_accept_reset_streams(1024);
    let (stream, blocks) = raw::edited(stream, false);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let mut link = http2::Application::new(request, respond, blocks.clone());
        let state = state.clone();
        tokio::spawn(async move {
            let head = link.inbox().borrow().messages.first().map(|message| message.head.clone());
            match head.as_ref().and_then(|head| state.session(head)) {
                Some(session) => {
                    link.raw = session.exchange.answers_raw;
                    serve(&session, &mut link, 0).await;
                }
                None => state.stray(b"a stream without the name of an exchange"),
            }
        });
    }
}

/// Plays the script for one request, and keeps what was received of it as far as the script had to wait for it.
async fn serve<L: Link>(session: &Session, link: &mut L, index: usize) {
    let (place, script) = session.begin();
    let played = play(&script, link, At::Request(index), &session.marks).await;
    let message = link.inbox().borrow().messages.get(index).cloned();
    if let Some(mut message) = message {
        forget_what_was_not_awaited(&mut message, &script);
        session.end(place, message, played.err());
    }
}

/// What came beyond what the script waited for, came by chance.
fn forget_what_was_not_awaited(message: &mut Message, script: &[Step]) {
    let awaited = script.iter().filter_map(|step| match step {
        Step::Await(until) => Some(*until),
        _ => None,
    });
    let awaited = awaited.max().unwrap_or(Until::Head);
    if awaited >= Until::Complete {
        return;
    }
    let bytes = if let Until::Body(bytes) = awaited { bytes } else { 0 };
    if message.switched {
        message.tunnel.truncate(bytes);
    } else {
        message.body.truncate(bytes);
        message.trailers.clear();
        message.end = End::Unread;
    }
}

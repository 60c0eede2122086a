//! An application that keeps a ledger of what reached it, to the byte: which requests it saw the beginning of, and which
//! it received whole.
//!
//! It speaks HTTP/1.1 by hand, so that a part of a request counts too. Requests are `METHOD /ID …`, where the ID is a number
//! below the ledger's size; each is answered with 200 and an empty body once its body (`content-length`) has come.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::server::{Phases, Server};

/// What reached one or more applications.
#[derive(Debug)]
pub struct Ledger {
    begun: Box<[AtomicU8]>,
    whole: Box<[AtomicU8]>,
}

impl Ledger {
    /// A ledger for the requests 0 to `size`.
    pub fn new(size: usize) -> Arc<Self> {
        let column = || std::iter::repeat_with(AtomicU8::default).take(size).collect();
        Arc::new(Self { begun: column(), whole: column() })
    }

    /// How many requests began to arrive more than once, be it with their first line alone.
    pub fn begun_again(&self) -> usize {
        self.begun.iter().filter(|times| times.load(Ordering::Relaxed) > 1).count()
    }

    /// How many requests arrived whole more than once.
    pub fn duplicates(&self) -> usize {
        self.whole.iter().filter(|times| times.load(Ordering::Relaxed) > 1).count()
    }

    /// How many requests arrived whole.
    pub fn arrived(&self) -> usize {
        self.whole.iter().filter(|times| times.load(Ordering::Relaxed) > 0).count()
    }

    /// How often a request arrived whole.
    pub fn times(&self, id: usize) -> u8 {
        self.whole.get(id).map_or(0, |times| times.load(Ordering::Relaxed))
    }

    fn count(column: &[AtomicU8], id: usize) {
        if let Some(times) = column.get(id) {
            times.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// How an application behaves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manners {
    /// After how long it closes a connection that nobody uses, without a word before, as most servers do; absent: never.
    pub idle: Option<Duration>,
    /// How long it takes to answer.
    pub work: Duration,
}

/// The application, on a thread of its own. Dropping it kills it.
#[derive(Debug)]
pub struct Bookkeeper {
    server: Server,
    connections: Arc<AtomicU64>,
}

impl Bookkeeper {
    /// Starts it on a port of 127.0.0.1 that the system chooses.
    ///
    /// # Errors
    /// If no port can be bound, or no thread be made.
    pub fn start(ledger: &Arc<Ledger>, manners: Manners) -> io::Result<Self> {
        let connections = Arc::<AtomicU64>::default();
        let (ledger, count) = (ledger.clone(), connections.clone());
        let serve = move |stream, _peer, _phases: Phases| {
            count.fetch_add(1, Ordering::Relaxed);
            let ledger = ledger.clone();
            async move {
                // An error is a peer that left.
                let _ = keep(stream, &ledger, manners).await;
            }
        };
        let server = Server::start((Ipv4Addr::LOCALHOST, 0).into(), true, serve)?;
        Ok(Self { server, connections })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How many connections it has accepted so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Serves one connection.
async fn keep(mut stream: TcpStream, ledger: &Ledger, manners: Manners) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    let mut begun = false;
    loop {
        while let Some(request) = Request::of(&buffer) {
            if !std::mem::replace(&mut begun, true) {
                Ledger::count(&ledger.begun, request.id);
            }
            let Some(length) = request.length.filter(|length| buffer.len() >= *length) else { break };
            Ledger::count(&ledger.whole, request.id);
            buffer.drain(..length);
            begun = false;
            if !manners.work.is_zero() {
                tokio::time::sleep(manners.work).await;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
        }
        let limit = manners.idle.filter(|_| buffer.is_empty());
        let read = stream.read_buf(&mut buffer);
        let read = match limit {
            Some(idle) => tokio::time::timeout(idle, read).await.unwrap_or(Ok(0))?,
            None => read.await?,
        };
        if read == 0 {
            return Ok(());
        }
    }
}

/// What is known of a request so far.
struct Request {
    id: usize,
    /// How many bytes it has in all, once its header is there.
    length: Option<usize>,
}

impl Request {
    /// `None` until its number is there.
    fn of(bytes: &[u8]) -> Option<Self> {
        let start = bytes.iter().position(|byte| *byte == b'/')? + 1;
        let digits = bytes[start..].iter().position(|byte| !byte.is_ascii_digit())?;
        let id = std::str::from_utf8(&bytes[start..start + digits]).ok()?.parse().ok()?;
        let length = head_length(bytes).map(|head| head + content_length(&bytes[..head]));
        Some(Self { id, length })
    }
}

/// How long the head is, its empty line included, once all of it is there.
pub(crate) fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// What a head says of its body's length; 0 where it does not.
pub(crate) fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    let mut fields = head.split("\r\n").filter_map(|line| line.split_once(':'));
    let found = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    found.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

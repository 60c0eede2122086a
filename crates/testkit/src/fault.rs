//! What breaks connections on purpose: a relay of TCP that stands in the way, and cuts what passes it at a chosen byte.
//!
//! ```no_run
//! # async fn story(application: std::net::SocketAddr) -> std::io::Result<()> {
//! use outrigger_testkit::fault::{Fault, How, Relay, Side};
//!
//! // The first connection is reset after 17 bytes of the response, and no other.
//! let cut = Fault { side: Side::Response, after: 17, how: How::Reset };
//! let relay = Relay::start(application, move |nth| (nth == 0).then_some(cut))?;
//! let address = relay.address();
//! # Ok(()) }
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::app::server::{Phases, Server};

/// How much is read at once, in bytes.
const CHUNK: usize = 16 * 1024;

/// Whose bytes are counted: of those who connect, or of what answers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Toward the application.
    Request,
    /// From the application.
    Response,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Both its ends get a TCP reset.
    Reset,
    /// Both its ends are closed in order.
    Close,
    /// It stays open, and nothing passes any more: as when a machine vanishes, or a network is cut.
    Silence,
}

/// One connection's fate: exactly so many bytes of one side pass, and then it is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Which bytes are counted.
    pub side: Side,
    /// How many of them pass.
    pub after: u64,
    /// What follows.
    pub how: How,
}

/// A relay of TCP to one address, on a thread of its own, whose connections end as they are told. Dropping it ends them.
#[derive(Debug)]
pub struct Relay {
    server: Server,
    broken: Arc<AtomicU64>,
}

impl Relay {
    /// Relays to `to` from a port of 127.0.0.1 that the system chooses. `fate` says what becomes of each connection, by
    /// how many came before it; `None` leaves it whole.
    ///
    /// # Errors
    /// If no port can be bound, or no thread be made.
    pub fn start(
        to: SocketAddr,
        mut fate: impl FnMut(u64) -> Option<Fault> + Send + 'static,
    ) -> io::Result<Self> {
        let broken = Arc::<AtomicU64>::default();
        let (count, mut nths) = (broken.clone(), 0..);
        let serve = move |stream, _peer, _phases: Phases| {
            relay(stream, to, nths.next().and_then(&mut fate), count.clone())
        };
        let server = Server::start((Ipv4Addr::LOCALHOST, 0).into(), true, serve)?;
        Ok(Self { server, broken })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How many connections it has broken so far.
    pub fn broken(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }
}

/// Carries one connection to its end. What breaks by itself is handed on as an end of the other half.
async fn relay(near: TcpStream, to: SocketAddr, fault: Option<Fault>, broken: Arc<AtomicU64>) {
    let Ok(far) = TcpStream::connect(to).await else {
        // Who connected learns of it as if there had been nobody.
        let _ = near.set_zero_linger();
        return;
    };
    // Without it bytes still arrive, only later.
    let _ = far.set_nodelay(true);
    let limit = |side| fault.filter(|fault| fault.side == side).map(|fault| fault.after);
    let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
    let mut there = Way { from: from_near, to: to_far, left: limit(Side::Request) };
    let mut back = Way { from: from_far, to: to_near, left: limit(Side::Response) };
    let cut = {
        let (mut there, mut back) = (std::pin::pin!(there.carry()), std::pin::pin!(back.carry()));
        let (mut there_ended, mut back_ended) = (false, false);
        loop {
            let ended = tokio::select! {
                ended = &mut there, if !there_ended => { there_ended = true; ended }
                ended = &mut back, if !back_ended => { back_ended = true; ended }
                else => break false,
            };
            match ended {
                Ended::Whole => {}
                Ended::Cut => break true,
                Ended::Broke => break false,
            }
        }
    };
    let how = match (cut, fault) {
        (true, Some(fault)) => {
            broken.fetch_add(1, Ordering::Relaxed);
            fault.how
        }
        _ => How::Close,
    };
    match how {
        How::Reset => {
            let _ = there.from.as_ref().set_zero_linger();
            let _ = back.from.as_ref().set_zero_linger();
        }
        How::Close => {}
        How::Silence => std::future::pending().await,
    }
}

/// One direction of a connection.
struct Way {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    /// How many bytes may still pass, if not all.
    left: Option<u64>,
}

enum Ended {
    /// Its sender has closed it, and that was handed on.
    Whole,
    /// As many bytes passed as may.
    Cut,
    /// One of its ends is gone.
    Broke,
}

impl Way {
    async fn carry(&mut self) -> Ended {
        let mut buffer = vec![0; CHUNK];
        loop {
            if self.left == Some(0) {
                return Ended::Cut;
            }
            let most = self.left.map_or(CHUNK, |left| CHUNK.min(usize::try_from(left).unwrap_or(CHUNK)));
            let read = match self.from.read(&mut buffer[..most]).await {
                Ok(0) => {
                    // Fails only where the other end has gone as well.
                    let _ = self.to.shutdown().await;
                    return Ended::Whole;
                }
                Ok(read) => read,
                Err(_) => return Ended::Broke,
            };
            if self.to.write_all(&buffer[..read]).await.is_err() {
                return Ended::Broke;
            }
            self.left = self.left.map(|left| left - read as u64);
        }
    }
}

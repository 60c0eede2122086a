//! The way from the application beside this proxy to itself: what it sends to its own service does not leave the
//! process, and is not encrypted, but passes its own inbound listener like everybody else's.

use std::net::{SocketAddr, UdpSocket};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use outrigger_config::listener::Direction;
use outrigger_http::connect::{OwnDoor, Wire};
use outrigger_http::serve::Version;
use tokio::io::DuplexStream;

use crate::connection::Connection;
use crate::director::CAPTURED_INBOUND;
use crate::state::{Live, LiveListener};
use crate::tcp;
use crate::worker::{Side, Worker};

/// How many bytes are on the way before the writer waits.
const BUFFER: usize = 64 * 1024;

/// Opens connections to this proxy's own inbound listeners.
#[derive(Debug)]
pub(crate) struct Own {
    worker: Weak<Worker>,
}

impl Own {
    pub(crate) fn new(worker: &Rc<Worker>) -> Self {
        Self { worker: Rc::downgrade(worker) }
    }
}

impl OwnDoor for Own {
    fn open(&self, address: SocketAddr, wire: Wire) -> Option<DuplexStream> {
        let worker = self.worker.upgrade()?;
        let local = worker.local()?;
        let (listener, original) = before(&local.live, address)?;
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let mut connection = Connection::new(&worker, listener, address, worker.open(Side::Own), &worker.own);
        connection.original = original;
        connection.caller = local.live.node.identity.as_ref().map(|identity| identity.id().clone());
        let version = match wire {
            Wire::Http1 => Version::Http1,
            Wire::Http2 => Version::Http2,
            Wire::Carried => Version::Carried,
            Wire::Tcp => {
                tokio::task::spawn_local(tcp::relay(connection, theirs));
                return Some(ours);
            }
        };
        connection.application = Some(if wire == Wire::Http2 { Version::Http2 } else { Version::Http1 });
        tokio::task::spawn_local(connection.serve_http(theirs, version));
        Some(ours)
    }

    fn is_beside(&self, address: SocketAddr) -> bool {
        let live = self.worker.upgrade().and_then(|worker| worker.local()).map(|local| local.live.clone());
        // Only an address of this very host can be bound to.
        live.is_some_and(|live| live.node.captured && UdpSocket::bind((address.ip(), 0)).is_ok())
    }
}

/// The inbound listener that stands before `address`, and where it is to go from there: the listener at that very
/// address, otherwise the one for what is captured.
fn before(live: &Live, address: SocketAddr) -> Option<(&LiveListener, Option<SocketAddr>)> {
    let inbound = || live.listeners.iter().filter(|listener| listener.direction == Direction::Inbound);
    let at = |listener: &&Arc<LiveListener>| listener.sockets.as_ref().is_some_and(|s| s.local == address);
    if let Some(listener) = inbound().find(at) {
        return Some((listener, None));
    }
    let captured =
        inbound().find(|listener| live.node.captured && listener.name.as_str() == CAPTURED_INBOUND)?;
    Some((captured, Some(address)))
}

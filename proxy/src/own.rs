//! The way from the application beside this proxy to itself: what it sends to its own service does not leave the
//! process, and is not encrypted, but passes its own inbound listener like everybody else's.

use std::net::SocketAddr;
use std::rc::{Rc, Weak};

use outrigger_config::listener::Direction;
use outrigger_http::connect::{OwnDoor, Wire};
use outrigger_http::serve::Version;
use tokio::io::DuplexStream;

use crate::connection::Connection;
use crate::tcp;
use crate::worker::Worker;

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
        let listener = local.live.listeners.iter().find(|listener| {
            let here = listener.sockets.as_ref().is_some_and(|sockets| sockets.local == address);
            here && listener.direction == Direction::Inbound
        })?;
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let mut connection =
            Connection::new(&worker, &listener.name, Direction::Inbound, address, &worker.own);
        connection.caller = local.live.node.identity.as_ref().map(|identity| identity.id().clone());
        let version = match wire {
            Wire::Http1 => Version::Http1,
            Wire::Http2 | Wire::Carried => Version::Http2,
            Wire::Tcp => {
                tokio::task::spawn_local(tcp::relay(connection, theirs));
                return Some(ours);
            }
        };
        connection.application = Some(if wire == Wire::Http2 { Version::Http2 } else { Version::Http1 });
        tokio::task::spawn_local(connection.serve_http(theirs, version));
        Some(ours)
    }
}

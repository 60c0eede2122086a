//! Applications that are not HTTP.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::server::{Phases, Server};

/// A TCP application on a port of 127.0.0.1 that the system chooses: it says its greeting, if it has one, then sends
/// back what it receives, and closes its half once the peer has closed its own. Dropping it kills it.
#[derive(Debug)]
pub struct TcpApp {
    server: Server,
    connections: Arc<AtomicU64>,
}

impl TcpApp {
    /// Starts one that waits for its peer to speak.
    ///
    /// # Errors
    ///
    /// If no port can be bound.
    pub async fn echo() -> io::Result<Self> {
        Self::start((Ipv4Addr::LOCALHOST, 0).into(), b"").await
    }

    /// Starts one that speaks first, as databases and mail servers do.
    ///
    /// # Errors
    ///
    /// If no port can be bound.
    pub async fn greeting(greeting: &'static [u8]) -> io::Result<Self> {
        Self::start((Ipv4Addr::LOCALHOST, 0).into(), greeting).await
    }

    /// Starts one on `address`, with a greeting unless that is empty.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    #[allow(clippy::unused_async, reason = "it needs the caller's runtime, which an async fn shows")]
    pub async fn start(address: SocketAddr, greeting: &'static [u8]) -> io::Result<Self> {
        let connections = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&connections);
        let server = Server::start(address, false, move |stream, _peer, _phases: Phases| {
            count.fetch_add(1, Ordering::Relaxed);
            async move {
                // An error is a peer that left.
                let _ = echo(stream, greeting).await;
            }
        })?;
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

    /// Stops accepting and returns once its peers have closed their connections.
    pub async fn stop(&self) {
        self.server.stop().await;
    }

    /// Closes the listener and all connections at once.
    pub async fn kill(&self) {
        self.server.kill().await;
    }
}

async fn echo(mut stream: TcpStream, greeting: &[u8]) -> io::Result<()> {
    stream.write_all(greeting).await?;
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await?;
    write.shutdown().await
}

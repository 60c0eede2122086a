//! Applications that answer, for tests, demos and benches: one that speaks HTTP and two that speak TCP.
//!
//! They are what a proxy has in front of it and behind it, and misbehave on request. They know nothing of Outrigger.

mod answer;
pub(crate) mod server;
mod tcp;

pub use tcp::TcpApp;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpStream;

use self::{
    answer::Answers,
    server::{Phases, Server},
};

/// An HTTP application that speaks HTTP/1.1, and HTTP/2 by prior knowledge, on one address.
///
/// Every response carries `x-app: NAME`. What it answers depends on the path:
///
/// | path | answer |
/// | --- | --- |
/// | `/echo` | the request's body, streamed back, with its trailers |
/// | `/grpc/METHOD` | the messages of a call of gRPC, as they come, and then its status 0 |
/// | `/status/NNN` | that status, with an empty body |
/// | `/delay/MS` | as `/`, after MS milliseconds |
/// | `/bytes/N` | N bytes of `x`, with `content-length` |
/// | `/drip/N/MS` | N chunks of 8 bytes (`drip 00\n`), MS milliseconds before each but the first |
/// | `/trailers` | `hello`, then the trailer `x-trailer: yes` (HTTP/1.1: to callers that send `te: trailers`) |
/// | `/hang` | nothing, ever |
/// | `/reset` | the head and 5 of 1000 bytes, then a TCP reset (HTTP/2: of the stream only) |
/// | `/break` | no head, but a TCP reset (HTTP/2: the stream's) |
/// | `/upgrade` | 101 for `upgrade: websocket` or `echo`, then every byte comes back as it is |
/// | `/fail-first/N?key=K` | 503 to the first N requests of the key K, then as `/` |
/// | any other, `/` | 200 and JSON about the request as it arrived |
///
/// The JSON has `app`, `method`, `path` (with the query), `version`, `peer`, `headers` (pairs in the order of
/// arrival), `body` (`length` in bytes, `sha256` in hex, `text` if it is UTF-8 of at most 64 KiB), and `trailers`.
///
/// Dropping it kills it.
#[derive(Debug)]
pub struct App {
    name: Arc<str>,
    server: Server,
    answers: Arc<Answers>,
}

impl App {
    /// Describes an application: named `app`, on a port of 127.0.0.1 that the system chooses.
    pub fn builder() -> Builder {
        Builder { name: "app".into(), address: (Ipv4Addr::LOCALHOST, 0).into(), own_thread: false }
    }

    /// What it answers in `x-app`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How many requests have arrived so far, answered or not.
    pub fn requests(&self) -> u64 {
        self.answers.requests()
    }

    /// Stops accepting, tells peers, and returns once everything in flight has been answered and its connections
    /// are closed; upgraded connections are cut. [`App::kill`] ends a stop that waits for a request that hangs.
    pub async fn stop(&self) {
        self.server.stop().await;
    }

    /// Closes the listener and all connections at once, as the kernel does for a process that died.
    pub async fn kill(&self) {
        self.server.kill().await;
    }
}

/// How an [`App`] is to be started.
#[derive(Debug, Clone)]
pub struct Builder {
    name: Arc<str>,
    address: SocketAddr,
    own_thread: bool,
}

impl Builder {
    /// What it answers in `x-app`.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Where to listen, for example where an application was before it was killed.
    pub fn address(mut self, address: impl Into<SocketAddr>) -> Self {
        self.address = address.into();
        self
    }

    /// Runs on a thread and a current-thread runtime of its own, so that it keeps answering whatever the caller's
    /// runtime does. Without it, it runs in the caller's runtime and so in its (possibly paused) time.
    pub fn own_thread(mut self) -> Self {
        self.own_thread = true;
        self
    }

    /// Starts it: on return it accepts.
    ///
    /// # Panics
    ///
    /// If the address cannot be bound, saying which and why; [`Builder::try_start`] returns that instead.
    pub async fn start(self) -> App {
        let address = self.address;
        match self.try_start().await {
            Ok(app) => app,
            Err(error) => panic!("the application cannot listen on {address}: {error}"),
        }
    }

    /// Starts it: on return it accepts.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    #[allow(clippy::unused_async, reason = "it needs the caller's runtime, which an async fn shows")]
    pub async fn try_start(self) -> io::Result<App> {
        let answers = Arc::new(Answers::new(&self.name));
        let serve = {
            let answers = Arc::clone(&answers);
            move |stream, peer, phases| connection(stream, peer, phases, Arc::clone(&answers))
        };
        let server = Server::start(self.address, self.own_thread, serve)?;
        Ok(App { name: self.name, server, answers })
    }
}

/// Serves one connection until its peer closes it, or until the application is stopped and it has nothing left.
async fn connection(stream: TcpStream, peer: SocketAddr, mut phases: Phases, answers: Arc<Answers>) {
    let reset = Arc::new(AtomicBool::new(false));
    let io = server::Resettable::new(stream, Arc::clone(&reset));
    let service = service_fn({
        let phases = phases.clone();
        move |request| {
            let (answers, reset, phases) = (Arc::clone(&answers), Arc::clone(&reset), phases.clone());
            async move { answers.answer(request, peer, phases, || reset.store(true, Ordering::Relaxed)).await }
        }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut serving = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));
    // How a connection ends is its peer's business: an error here is a peer that left, or `/reset`.
    let ended = tokio::select! {
        _ = serving.as_mut() => true,
        () = phases.stopping() => false,
    };
    if !ended {
        serving.as_mut().graceful_shutdown();
        let _ = serving.await;
    }
}

#[cfg(test)]
mod tests;

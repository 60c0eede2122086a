//! The life of an application: it accepts, stops when what is in flight has ended, or dies at once.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    thread,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Stopping,
    Killed,
}

/// What a connection watches in order to end when its application does.
#[derive(Debug, Clone)]
pub(crate) struct Phases(watch::Receiver<Phase>);

impl Phases {
    /// Returns once no new work is to be taken.
    pub(crate) async fn stopping(&mut self) {
        self.reached(Phase::Stopping).await;
    }

    /// Returns once everything is to end, finished or not.
    pub(crate) async fn killed(&mut self) {
        self.reached(Phase::Killed).await;
    }

    async fn reached(&mut self, phase: Phase) {
        // An error is a dropped application, which is a killed one.
        let _ = self.0.wait_for(|now| *now >= phase).await;
    }
}

/// An accepting socket and its connections. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    phase: watch::Sender<Phase>,
    ended: watch::Receiver<()>,
}

impl Server {
    /// Accepts on `address`, in the caller's runtime or on a thread of its own, and hands each connection to `serve`.
    pub(crate) fn start<S, F>(address: SocketAddr, own_thread: bool, serve: S) -> io::Result<Self>
    where
        S: FnMut(TcpStream, SocketAddr, Phases) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (phase, phases) = watch::channel(Phase::Serving);
        let (alive, ended) = watch::channel(());
        let run = async move {
            if let Ok(listener) = TcpListener::from_std(listener) {
                accept(listener, Phases(phases), serve).await;
            }
            drop(alive);
        };
        if own_thread {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            thread::Builder::new()
                .name(format!("app-{}", address.port()))
                .spawn(move || runtime.block_on(run))?;
        } else {
            tokio::spawn(run);
        }
        Ok(Self { address, phase, ended })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn stop(&self) {
        self.end(Phase::Stopping).await;
    }

    pub(crate) async fn kill(&self) {
        self.end(Phase::Killed).await;
    }

    async fn end(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
        // Nothing is ever sent: the channel closes when the last connection is gone.
        let _ = self.ended.clone().changed().await;
    }
}

async fn accept<S, F>(listener: TcpListener, mut phases: Phases, mut serve: S)
where
    S: FnMut(TcpStream, SocketAddr, Phases) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut stopping = phases.clone();
    loop {
        tokio::select! {
            biased;
            () = stopping.stopping() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Small answers must not wait for the peer's acknowledgement; without it they still arrive.
                    let _ = stream.set_nodelay(true);
                    connections.spawn(serve(stream, peer, phases.clone()));
                }
                // Out of file descriptors, or the peer has gone again: neither is for good.
                Err(_) => tokio::task::yield_now().await,
            },
        }
    }
    drop(listener);
    tokio::select! {
        biased;
        () = phases.killed() => {}
        () = async { while connections.join_next().await.is_some() {} } => {}
    }
    connections.shutdown().await;
}

/// A TCP stream that closes with a reset, instead of in order, if it was told to.
pub(crate) struct Resettable {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Resettable {
    pub(crate) fn new(stream: TcpStream, reset: Arc<AtomicBool>) -> Self {
        Self { stream, reset }
    }
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.reset.load(Ordering::Relaxed) {
            // An orderly end of the stream must not overtake the reset.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

//! Taking on callers.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use outrigger_config::Name;
use outrigger_http::memory::Level;
use outrigger_http::serve::Drain;
use outrigger_net::listen;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::{Side, Worker};
use crate::connection;
use crate::seldom::Seldom;

/// How long a worker waits after an accept that failed, as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts on one socket until `gone` says that the listener is.
pub(super) async fn accept(
    worker: &Rc<Worker>,
    socket: Rc<TcpListener>,
    side: Side,
    listener: Name,
    drain: Rc<Drain>,
    mut gone: oneshot::Receiver<()>,
) {
    let mut complaint = Seldom::default();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut gone => {
                // What the kernel took on for this socket would be reset with it.
                for (stream, peer) in waiting(&socket, &listener) {
                    serve(worker, stream, peer, side, &listener, &drain);
                }
                return;
            }
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => serve(worker, stream, peer, side, &listener, &drain),
            Err(error) if is_of_the_connection(&error) => debug!(%listener, %error, "a caller left at once"),
            Err(error) => {
                if complaint.is_due() {
                    warn!(%listener, %error, "cannot accept; trying again every {ACCEPT_PAUSE:?}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connections that wait to be accepted. The kernel is asked: the runtime may not have heard of them yet, and lets a
/// task accept so many at a time.
fn waiting(socket: &TcpListener, listener: &Name) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    let next = || {
        let (stream, peer) = listen::accept(socket)?;
        Ok((TcpStream::from_std(stream)?, peer))
    };
    // No more can have waited; where another process accepts as well, who comes later is its.
    let all = std::iter::repeat_with(next).take(listen::BACKLOG as usize + 1);
    let all = all.take_while(move |next: &io::Result<_>| match next {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(error) if !is_of_the_connection(error) => {
            warn!(%listener, %error, "cannot accept those who still wait: they are reset");
            false
        }
        _ => true,
    });
    all.filter_map(Result::ok)
}

fn is_of_the_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused)
}

fn serve(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    side: Side,
    listener: &Name,
    drain: &Rc<Drain>,
) {
    if worker.memory.level() >= Level::Spent {
        // Even a refusal takes memory.
        return worker.memory.turned_away();
    }
    // Counted from now on, not from when its task first runs: a worker that ends might not see it before.
    let open = worker.open(side);
    let task = connection::serve(worker.clone(), stream, peer, open, listener.clone(), drain.clone());
    tokio::task::spawn_local(task);
}

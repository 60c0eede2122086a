//! The sockets behind listeners, bound before a configuration goes live and shared out to the workers.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_config::{Listener, Name};
use outrigger_net::listen::{self, BindError};

/// The sockets of one listener, one for each worker to take.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// The address asked for.
    asked: SocketAddr,
    /// The address bound, with its real port.
    pub(crate) local: SocketAddr,
    /// Locked when a worker takes its own, once.
    own: Mutex<Vec<Option<TcpListener>>>,
}

impl Sockets {
    /// Whether they listen on an address; port 0 stays the same, and so does the port that the system chose for it.
    fn are_on(&self, address: SocketAddr) -> bool {
        [self.asked, self.local].contains(&address)
    }

    /// The worker's own socket. Each can be taken once.
    pub(crate) fn take(&self, worker: usize) -> Option<TcpListener> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).get_mut(worker)?.take()
    }
}

/// Sees to it that every listener has its sockets: one that keeps its name and address keeps them, others are bound.
/// Answers with the listeners that could not be.
pub(crate) fn bind<'a>(
    bound: &mut BTreeMap<Name, Arc<Sockets>>,
    wanted: impl Iterator<Item = (&'a Name, &'a Listener)>,
    workers: usize,
) -> Vec<(Name, BindError)> {
    let before = std::mem::take(bound);
    let mut refused = Vec::new();
    for (name, spec) in wanted {
        let asked = spec.address;
        if let Some(kept) = before.get(name).filter(|sockets| sockets.are_on(asked)) {
            bound.insert(name.clone(), kept.clone());
            continue;
        }
        // A port of this proxy's own, as of a listener that was renamed: the workers accept on its old sockets until
        // they have taken over the new ones, so that no caller is refused meanwhile.
        let own = before.values().any(|sockets| sockets.local.port() == asked.port());
        let made = if own { listen::bind_beside(asked, workers) } else { listen::bind(asked, workers) };
        match made {
            Ok(made) => {
                let own = Mutex::new(made.sockets.into_iter().map(Some).collect());
                bound.insert(name.clone(), Arc::new(Sockets { asked, local: made.local, own }));
            }
            Err(error) => refused.push((name.clone(), error)),
        }
    }
    refused
}

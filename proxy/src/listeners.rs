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
    sockets: Mutex<Vec<Option<TcpListener>>>,
}

impl Sockets {
    /// The worker's own socket. Each can be taken once.
    pub(crate) fn take(&self, worker: usize) -> Option<TcpListener> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).get_mut(worker)?.take()
    }
}

/// Sees to it that every listener has its sockets: those of an address that stays are kept, others are bound. Answers
/// with the listeners that could not be.
pub(crate) fn bind<'a>(
    bound: &mut BTreeMap<Name, Arc<Sockets>>,
    wanted: impl Iterator<Item = (&'a Name, &'a Listener)>,
    workers: usize,
) -> Vec<(Name, BindError)> {
    let mut before = std::mem::take(bound);
    let wanted: Vec<_> = wanted.collect();
    // A listener that was renamed keeps its sockets: by name first, then by address.
    for (name, spec) in &wanted {
        // An address with port 0 that is now written out is the same address.
        let same = |sockets: &Arc<Sockets>| [sockets.asked, sockets.local].contains(&spec.address);
        if let Some(kept) = before.remove(*name).filter(same) {
            bound.insert((*name).clone(), kept);
        }
    }
    let mut refused = Vec::new();
    for (name, spec) in wanted {
        if bound.contains_key(name) {
            continue;
        }
        let asked = spec.address;
        let renamed = before.iter().find(|(_, sockets)| sockets.asked == asked && asked.port() != 0);
        if let Some(old) = renamed.map(|(old, _)| old.clone())
            && let Some(sockets) = before.remove(&old)
        {
            bound.insert(name.clone(), sockets);
            continue;
        }
        match listen::bind(asked, workers) {
            Ok(made) => {
                let sockets = Mutex::new(made.sockets.into_iter().map(Some).collect());
                bound.insert(name.clone(), Arc::new(Sockets { asked, local: made.local, sockets }));
            }
            Err(error) => refused.push((name.clone(), error)),
        }
    }
    refused
}

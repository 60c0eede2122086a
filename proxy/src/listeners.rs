//! The sockets behind listeners, bound before a configuration goes live and shared out to the workers.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_config::{Listener, Name};
use outrigger_net::listen::{self, BindError, Bound};

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

/// Sees to it that every listener has its sockets: those of an address that stays are kept, others are bound. Answers
/// with the listeners that could not be.
pub(crate) fn bind<'a>(
    bound: &mut BTreeMap<Name, Arc<Sockets>>,
    wanted: impl Iterator<Item = (&'a Name, &'a Listener)>,
    workers: usize,
) -> Vec<(Name, BindError)> {
    let mut before = std::mem::take(bound);
    let wanted: Vec<_> = wanted.collect();
    for (name, spec) in &wanted {
        if before.get(*name).is_some_and(|sockets| sockets.are_on(spec.address))
            && let Some(kept) = before.remove(*name)
        {
            bound.insert((*name).clone(), kept);
        }
    }
    let mut refused = Vec::new();
    for (name, spec) in wanted {
        if bound.contains_key(name) {
            continue;
        }
        let asked = spec.address;
        // A listener by another name that is about to leave the address does not stand in the way.
        let leaving = before.values().any(|sockets| asked.port() != 0 && sockets.are_on(asked));
        let made = if leaving { again(asked, workers) } else { listen::bind(asked, workers) };
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

/// More sockets on an address that this process listens on.
fn again(local: SocketAddr, workers: usize) -> Result<Bound, BindError> {
    let sockets = (0..workers).map(|_| listen::add(local)).collect::<Result<_, _>>()?;
    Ok(Bound { local, sockets })
}

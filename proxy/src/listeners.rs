//! The sockets behind listeners, bound before a configuration goes live and shared out to the workers. Some may have
//! been open before this process was: those of the proxy that it replaces, or of the system's service manager.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use outrigger_config::{Listener, Name};
use outrigger_net::activation::Activated;
use outrigger_net::listen::{self, BindError};

/// The sockets of one listener, for each worker to take its own.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// The address asked for.
    pub(crate) asked: SocketAddr,
    /// The address bound, with its real port.
    pub(crate) local: SocketAddr,
    /// Locked when a worker takes its own, once.
    own: Mutex<Vec<Vec<TcpListener>>>,
}

impl Sockets {
    fn new(asked: SocketAddr, local: SocketAddr, own: Vec<Vec<TcpListener>>) -> Arc<Self> {
        Arc::new(Self { asked, local, own: Mutex::new(own) })
    }

    /// Whether they listen on an address; port 0 stays the same, and so does the port that the system chose for it.
    pub(crate) fn are_on(&self, address: SocketAddr) -> bool {
        [self.asked, self.local].contains(&address)
    }

    /// The worker's own sockets. They can be taken once.
    pub(crate) fn take(&self, worker: usize) -> Vec<TcpListener> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.get_mut(worker).map(std::mem::take).unwrap_or_default()
    }

    /// Has those take connections that were only reserved.
    pub(crate) fn listen(&self) -> io::Result<()> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.iter().flatten().try_for_each(listen::listen)
    }
}

/// Sockets that were open before this process.
#[derive(Debug)]
pub(crate) struct Given {
    /// What they are called by whoever opened them.
    pub(crate) name: String,
    /// The address that whoever opened them was asked for; `None` where the name alone says what they are for.
    pub(crate) asked: Option<SocketAddr>,
    /// Where they listen.
    pub(crate) local: SocketAddr,
    /// The sockets: at least one, all on this address.
    pub(crate) sockets: Vec<TcpListener>,
}

impl From<Activated> for Given {
    fn from(from: Activated) -> Self {
        let Activated { name, local, socket } = from;
        Self { name, asked: None, local, sockets: vec![socket] }
    }
}

impl Given {
    /// Whether they are what is wanted under a name, at an address.
    fn are(&self, name: &str, address: SocketAddr) -> bool {
        self.local == address || (self.name == name && self.asked.is_none_or(|asked| asked == address))
    }

    /// Takes those that are wanted under a name, at an address, out of what was given.
    pub(crate) fn take(all: &mut Vec<Self>, name: &str, address: SocketAddr) -> Option<Self> {
        // One that is called so goes before one that only happens to be there.
        let named = all.iter().position(|given| given.name == name && given.are(name, address));
        let at = named.or_else(|| all.iter().position(|given| given.are(name, address)))?;
        Some(all.swap_remove(at))
    }

    /// Shares them out. Where there are more workers than sockets, those that another process of the proxy has opened are
    /// joined by others on the same address, which listen later; of the service manager's, which outlive this process
    /// with what waits in them, workers share one. Where there are fewer, a worker has several, for callers wait in each.
    fn share(self, workers: usize) -> io::Result<Vec<Vec<TcpListener>>> {
        let Self { local, mut sockets, asked, .. } = self;
        let missing = workers.saturating_sub(sockets.len());
        if missing > 0 && asked.is_some() {
            // Where that cannot be, they share as well.
            sockets.extend(listen::reserve_beside(local, missing).into_iter().flat_map(|more| more.sockets));
        }
        let copies: Vec<_> =
            sockets.iter().cycle().take(workers).skip(sockets.len()).map(listen::copy).collect();
        let mut own: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        let all = sockets.into_iter().map(Ok).chain(copies);
        for (at, socket) in all.enumerate() {
            if let Some(own) = own.get_mut(at % workers.max(1)) {
                own.push(socket?);
            }
        }
        Ok(own)
    }
}

/// Sees to it that every listener has its sockets: one that keeps its name and address keeps them, others were given or
/// are bound. Answers with the listeners that could not be.
pub(crate) fn bind<'a>(
    bound: &mut BTreeMap<Name, Arc<Sockets>>,
    given: &mut Vec<Given>,
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
        if let Some(given) = Given::take(given, name.as_str(), asked) {
            let local = given.local;
            match given.share(workers) {
                Ok(own) => drop(bound.insert(name.clone(), Sockets::new(asked, local, own))),
                Err(source) => refused.push((name.clone(), BindError::System { address: local, source })),
            }
            continue;
        }
        // A port of this proxy's own, as of a listener that was renamed: the workers accept on its old sockets until
        // they have taken over the new ones, so that no caller is refused meanwhile.
        let own = before.values().any(|sockets| sockets.local.port() == asked.port())
            || given.iter().any(|given| given.local.port() == asked.port());
        let made = if own { listen::bind_beside(asked, workers) } else { listen::bind(asked, workers) };
        match made {
            Ok(made) => {
                let own = made.sockets.into_iter().map(|socket| vec![socket]).collect();
                bound.insert(name.clone(), Sockets::new(asked, made.local, own));
            }
            Err(error) => refused.push((name.clone(), error)),
        }
    }
    refused
}

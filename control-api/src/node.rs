//! The nodes as the control API sees them: who is connected, what each runs, and what it refused.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use outrigger_config::{Name, SpiffeId};
use outrigger_control::message::Refusal;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

/// How long a node is still shown after it has gone.
const REMEMBERED: Duration = Duration::from_hours(1);

/// One node, as `/v1/nodes` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub name: Name,
    /// The identity of its certificate.
    pub identity: SpiffeId,
    /// Whether its stream is open.
    pub connected: bool,
    /// Since when it is connected, or has been gone, in seconds since 1970.
    pub since: u64,
    /// Where its stream comes from.
    pub address: SocketAddr,
    /// The version of its binary.
    pub version: String,
    /// The revision that it last applied.
    pub revision: u64,
    /// The store's revision.
    pub store_revision: u64,
    /// How many revisions lie between the two.
    pub behind: u64,
    /// The objects that it could not take. The last good version of each stays live there.
    pub refused: Vec<Refusal>,
}

struct Node {
    identity: SpiffeId,
    address: SocketAddr,
    version: String,
    since: SystemTime,
    revision: u64,
    refused: Vec<Refusal>,
    stream: Stream,
}

/// Whether a node's stream is open.
enum Stream {
    /// It is. Dropped with the entry, the sender tells the stream that a younger one has taken its place.
    Open { number: u64, _replaced: oneshot::Sender<()> },
    /// It has gone.
    Gone(Instant),
}

impl Node {
    fn is_on(&self, stream: u64) -> bool {
        matches!(self.stream, Stream::Open { number, .. } if number == stream)
    }

    fn is_remembered(&self) -> bool {
        !matches!(self.stream, Stream::Gone(when) if when.elapsed() >= REMEMBERED)
    }
}

/// A node's place among the connected.
#[derive(Debug)]
pub struct Seat {
    /// The number of its stream.
    pub stream: u64,
    /// Resolves when a younger stream of the same node has taken this one's place.
    pub replaced: oneshot::Receiver<()>,
}

#[derive(Default)]
struct Registry {
    nodes: BTreeMap<Name, Node>,
    /// The number of the last stream.
    streams: u64,
}

/// Who is connected.
pub struct Nodes {
    registry: Mutex<Registry>,
    /// Counts what has changed, so that it can be waited for.
    changes: watch::Sender<u64>,
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nodes").field("changes", &self.changes.borrow()).finish_non_exhaustive()
    }
}

impl Default for Nodes {
    fn default() -> Self {
        Self { registry: Mutex::default(), changes: watch::channel(0).0 }
    }
}

impl Nodes {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        // What is behind the lock is whole after each statement, so a panic elsewhere does not spoil it.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// A node has opened a stream, and runs `revision`. A stream that it had open before is replaced.
    pub fn join(
        &self,
        name: &Name,
        identity: SpiffeId,
        address: SocketAddr,
        version: String,
        revision: u64,
    ) -> Seat {
        let (sender, replaced) = oneshot::channel();
        let mut registry = self.lock();
        registry.streams += 1;
        let stream = registry.streams;
        registry.nodes.retain(|_, node| node.is_remembered());
        let node = Node {
            identity,
            address,
            version,
            since: SystemTime::now(),
            revision,
            refused: Vec::new(),
            stream: Stream::Open { number: stream, _replaced: sender },
        };
        registry.nodes.insert(name.clone(), node);
        drop(registry);
        self.changed();
        Seat { stream, replaced }
    }

    /// A node runs a revision now. Answers what it has refused since the last time.
    pub fn applied(&self, name: &Name, stream: u64, revision: u64, refused: Vec<Refusal>) -> Vec<Refusal> {
        let mut new = Vec::new();
        if let Some(node) = self.lock().nodes.get_mut(name)
            && node.is_on(stream)
        {
            new.extend(refused.iter().filter(|refusal| !node.refused.contains(refusal)).cloned());
            (node.revision, node.refused) = (revision, refused);
        }
        self.changed();
        new
    }

    /// A stream has ended. A younger one of the same node is not touched.
    pub fn leave(&self, name: &Name, stream: u64) {
        if let Some(node) = self.lock().nodes.get_mut(name)
            && node.is_on(stream)
        {
            (node.stream, node.since) = (Stream::Gone(Instant::now()), SystemTime::now());
        }
        self.changed();
    }

    /// Every node that is connected, or was within the last hour.
    pub fn list(&self, store_revision: u64) -> Vec<NodeStatus> {
        let registry = self.lock();
        let shown = registry.nodes.iter().filter(|(_, node)| node.is_remembered());
        shown
            .map(|(name, node)| NodeStatus {
                name: name.clone(),
                identity: node.identity.clone(),
                connected: matches!(node.stream, Stream::Open { .. }),
                since: node.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
                address: node.address,
                version: node.version.clone(),
                revision: node.revision,
                store_revision,
                behind: store_revision.saturating_sub(node.revision),
                refused: node.refused.clone(),
            })
            .collect()
    }

    /// News of each change: a node came, went, or applied something.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

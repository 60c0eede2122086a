//! What the control API knows, as one immutable value: every accepted object with its revision, and which nodes it
//! concerns. The store makes a new one at each commit; everyone else only reads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use outrigger_config::{Key, Kind, Name, Resource, SpiffeId};
use outrigger_control::lines::{LineError, encode};
use outrigger_control::message::FromControl;

mod audience;
#[cfg(test)]
mod tests;

pub use audience::Audience;

/// How many commits a world remembers, for nodes that are a little behind. Further back, everything is compared.
const RECENT: usize = 256;

/// One accepted object.
#[derive(Debug)]
pub struct Object {
    /// The store's revision that put it there.
    pub revision: u64,
    /// What it is.
    pub resource: Arc<Resource>,
    /// What it says, as JSON.
    pub spec: serde_json::Value,
    /// The line that carries it to a node, made once for all of them.
    pub line: Bytes,
}

impl Object {
    /// An object with the line that carries it.
    ///
    /// # Errors
    /// If the line would be longer than the stream allows.
    pub fn new(revision: u64, resource: Arc<Resource>) -> Result<Self, LineError> {
        let spec = resource.spec_json();
        let (kind, name) = (resource.kind().to_string(), resource.name.clone());
        let line = encode(&FromControl::Put { revision, kind, name, spec: spec.clone() })?;
        Ok(Self { revision, resource, spec, line })
    }
}

/// Everything, at one revision.
#[derive(Debug, Clone)]
pub struct World {
    /// The store's id: revisions of different stores cannot be compared.
    pub store: Arc<str>,
    /// The revision of the last change.
    pub revision: u64,
    objects: BTreeMap<Key, Arc<Object>>,
    audiences: BTreeMap<Key, Audience>,
    /// The identities that were signed for nodes.
    bindings: Arc<BTreeSet<(Name, SpiffeId)>>,
    /// The last commits, oldest first.
    recent: VecDeque<Commit>,
}

/// What one commit changed.
#[derive(Debug, Clone)]
struct Commit {
    /// The revision before it.
    after: u64,
    /// The objects that changed, or whose audience did.
    keys: Arc<[Key]>,
}

impl World {
    /// The world as a store has it when it is opened.
    pub fn new(
        store: Arc<str>,
        revision: u64,
        objects: BTreeMap<Key, Arc<Object>>,
        bindings: BTreeSet<(Name, SpiffeId)>,
    ) -> Self {
        let audiences = audience::all(&objects);
        Self { store, revision, objects, audiences, bindings: Arc::new(bindings), recent: VecDeque::new() }
    }

    /// The world after a commit at `revision` that changed the objects of `changed`.
    pub fn next(&self, revision: u64, objects: BTreeMap<Key, Arc<Object>>, changed: BTreeSet<Key>) -> Self {
        let audiences = audience::all(&objects);
        let mut touched = changed;
        for (key, audience) in &audiences {
            if self.audiences.get(key) != Some(audience) {
                touched.insert(key.clone());
            }
        }
        let mut recent = self.recent.clone();
        recent.push_back(Commit { after: self.revision, keys: touched.into_iter().collect() });
        if recent.len() > RECENT {
            recent.pop_front();
        }
        let (store, bindings) = (self.store.clone(), self.bindings.clone());
        Self { store, revision, objects, audiences, bindings, recent }
    }

    /// The same world with other bindings.
    pub fn with_bindings(&self, bindings: BTreeSet<(Name, SpiffeId)>) -> Self {
        Self { bindings: Arc::new(bindings), ..self.clone() }
    }

    /// Every object, by kind and name.
    pub const fn objects(&self) -> &BTreeMap<Key, Arc<Object>> {
        &self.objects
    }

    /// The objects of one kind, by name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.iter().filter(move |(key, _)| key.kind == kind).map(|(_, object)| object)
    }

    /// The identities that were signed for nodes.
    pub fn bindings(&self) -> &BTreeSet<(Name, SpiffeId)> {
        &self.bindings
    }

    /// Whether a certificate for `id` was signed for `node`.
    pub fn is_bound(&self, node: &Name, id: &SpiffeId) -> bool {
        self.bindings.contains(&(node.clone(), id.clone()))
    }

    /// The object under `key`, if it concerns `node`: listeners that the node opens, the routes attached to them, the
    /// backends and certificates that those refer to, and every backend of the mesh, since captured traffic can be
    /// sent to any address.
    pub fn concerns(&self, node: &Name, key: &Key) -> Option<&Arc<Object>> {
        self.audiences.get(key).filter(|audience| audience.includes(node)).and_then(|_| self.objects.get(key))
    }

    /// What `node` must be sent so that it has this world, given what it has (`held`, with revisions) and the
    /// revision at which that was compared with everything that concerns it, if it ever was. Brings `held` up to date.
    pub fn catch_up(&self, node: &Name, held: &mut BTreeMap<Key, u64>, since: Option<u64>) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(keys) = since.and_then(|since| self.changed_since(since)) {
            for key in keys {
                steps.extend(self.step(node, key, held));
            }
        } else {
            let gone: Vec<Key> =
                held.keys().filter(|key| self.concerns(node, key).is_none()).cloned().collect();
            for key in self.audiences.keys().chain(&gone) {
                steps.extend(self.step(node, key, held));
            }
        }
        steps
    }

    /// Whose object or audience changed after `since`; `None` if that is further back than is remembered.
    fn changed_since(&self, since: u64) -> Option<BTreeSet<&Key>> {
        if since == self.revision {
            return Some(BTreeSet::new());
        }
        if since > self.revision || self.recent.front()?.after > since {
            return None;
        }
        let newer = self.recent.iter().filter(|commit| commit.after >= since);
        Some(newer.flat_map(|commit| commit.keys.iter()).collect())
    }

    fn step(&self, node: &Name, key: &Key, held: &mut BTreeMap<Key, u64>) -> Option<Step> {
        if let Some(object) = self.concerns(node, key) {
            let before = held.insert(key.clone(), object.revision);
            (before != Some(object.revision)).then(|| Step::Put(object.clone()))
        } else {
            held.remove(key).map(|_| Step::Delete(key.clone()))
        }
    }
}

/// One line of a change on its way to a node.
#[derive(Debug, Clone)]
pub enum Step {
    /// The node gets this object.
    Put(Arc<Object>),
    /// The node loses the object under this key.
    Delete(Key),
}

//! What the node holds: the last good version of every object, and what it refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use outrigger_config::{Kind, Name, Resource};

use crate::message::{FromControl, Refusal};

/// An object in its last good version.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) revision: u64,
    pub(super) resource: Arc<Resource>,
}

/// Everything the node holds, as of a commit.
#[derive(Debug, Default)]
pub(super) struct Held {
    store: Option<String>,
    revision: u64,
    objects: BTreeMap<String, Object>,
    refused: BTreeMap<String, Refusal>,
}

/// What one stream has brought and not yet committed. It is lost with the stream, for the next one begins with what
/// is held.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    store: Option<String>,
    changes: Vec<FromControl>,
}

impl Incoming {
    /// The stream's first line.
    pub(super) fn welcome(&mut self, store: String) {
        self.store = Some(store);
    }

    /// A put or a delete.
    pub(super) fn change(&mut self, change: FromControl) {
        self.changes.push(change);
    }
}

impl Held {
    pub(super) fn new(store: Option<String>, revision: u64, objects: Vec<Object>) -> Self {
        let objects = objects.into_iter().map(|object| (object.resource.key().to_string(), object)).collect();
        Self { store, revision, objects, refused: BTreeMap::new() }
    }

    /// The store that it is from, once there has been a commit.
    pub(super) fn store(&self) -> Option<&str> {
        self.store.as_deref()
    }

    /// The revision of the last commit.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The revision of each object. One whose newest version was refused stands with its last good version, or not at
    /// all, so that it is sent again: a newer binary may take it.
    pub(super) fn have(&self) -> BTreeMap<String, u64> {
        self.objects.iter().map(|(key, object)| (key.clone(), object.revision)).collect()
    }

    /// The last good versions.
    pub(super) fn objects(&self) -> Vec<Object> {
        self.objects.values().cloned().collect()
    }

    /// The last good versions, without their revisions.
    pub(super) fn resources(&self) -> Vec<Arc<Resource>> {
        self.objects.values().map(|object| object.resource.clone()).collect()
    }

    /// The objects that are refused.
    pub(super) fn refused(&self) -> impl ExactSizeIterator<Item = &Refusal> {
        self.refused.values()
    }

    /// Takes in what a stream has brought. Answers whether anything changed.
    pub(super) fn commit(&mut self, revision: u64, incoming: &mut Incoming) -> bool {
        let mut changed = false;
        if let Some(store) = incoming.store.take() {
            // A new stream says again whatever was refused, unless it is no more.
            changed |= !self.refused.is_empty();
            self.refused.clear();
            self.store = Some(store);
        }
        changed |= !incoming.changes.is_empty();
        for change in incoming.changes.drain(..) {
            match change {
                FromControl::Put { revision, kind, name, spec } => self.put(revision, &kind, name, spec),
                FromControl::Delete { kind, name, .. } => {
                    let key = key(&kind, &name);
                    self.objects.remove(&key);
                    self.refused.remove(&key);
                }
                FromControl::Welcome { .. } | FromControl::Commit { .. } | FromControl::Heartbeat {} => {}
            }
        }
        self.revision = revision;
        changed
    }

    fn put(&mut self, revision: u64, kind: &str, name: Name, spec: serde_json::Value) {
        let key = key(kind, &name);
        let refusal = match Kind::find(kind) {
            None => ("kind".to_owned(), format!("this version does not know the kind {kind}")),
            Some(kind) => match Resource::parse(kind, name.as_str(), spec) {
                Ok(resource) => {
                    self.refused.remove(&key);
                    self.objects.insert(key, Object { revision, resource: Arc::new(resource) });
                    return;
                }
                Err(invalid) => (invalid.field.into_owned(), invalid.reason),
            },
        };
        let (field, reason) = refusal;
        tracing::warn!("{key} refused: {field}: {reason}");
        self.refused.insert(key, Refusal { kind: kind.to_owned(), name, field, reason });
    }
}

fn key(kind: &str, name: &Name) -> String {
    match Kind::find(kind) {
        Some(kind) => format!("{kind}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

//! What has been accepted so far: the last good version of every resource.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::file::File;
use crate::resource::{Key, Resource};
use crate::snapshot::Snapshot;

/// The last good version of every resource. It changes; the snapshots taken of it do not.
#[derive(Debug, Clone, Default)]
pub struct Accepted(BTreeMap<Key, Arc<Resource>>);

impl Accepted {
    /// Takes a resource in, in place of the one with its kind and name. One that is equal to the one there is not
    /// replaced, so that what was shared of it stays shared.
    pub fn put(&mut self, resource: Resource) {
        let key = resource.key();
        if self.0.get(&key).is_none_or(|old| **old != resource) {
            self.0.insert(key, Arc::new(resource));
        }
    }

    /// Takes a resource out. Whether it was there.
    pub fn delete(&mut self, key: &Key) -> bool {
        self.0.remove(key).is_some()
    }

    /// Takes a whole file in: what is valid in it replaces what was there, what is rejected in it keeps its last good
    /// version if it has one, and what is gone from it is gone.
    pub fn replace(&mut self, file: File) {
        let rejected = file.rejected.iter().filter_map(|rejected| rejected.key.clone());
        let named: HashSet<Key> = file.resources.iter().map(Resource::key).chain(rejected).collect();
        self.0.retain(|key, _| named.contains(key));
        for resource in file.resources {
            self.put(resource);
        }
    }

    /// Whether there is a last good version of a resource.
    pub fn contains(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    /// Every resource, sorted by kind and name.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.0.values()
    }

    /// The configuration that they make.
    pub fn snapshot(&self, revision: u64) -> Snapshot {
        Snapshot::build(revision, self.0.values().cloned())
    }
}

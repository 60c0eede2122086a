//! A transaction in the making: the writes of one batch, applied one after the other in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use outrigger_config::{Key, Name, Resource, SpiffeId, Timestamp};

use super::{Bindings, Change, Condition, Done, Objects, Outcome, WriteError};
use crate::world::{Object, World};

/// What the store will be once the batch is on disk.
pub(super) struct Draft {
    /// The revision of the last write in it that changed something.
    pub(super) revision: u64,
    pub(super) objects: Objects,
    /// The objects that were put or deleted.
    pub(super) changed: BTreeSet<Key>,
    /// The bindings that are new.
    pub(super) bound: Bindings,
    /// When routes that are new in it were made.
    now: Timestamp,
}

/// A change that was found to be possible.
enum Planned {
    Put(Key, Arc<Object>, Done),
    Keep(Key, u64),
    Delete(Key),
}

impl Draft {
    pub(super) fn of(world: &World, now: Timestamp) -> Self {
        Self {
            revision: world.revision,
            objects: world.objects().clone(),
            changed: BTreeSet::new(),
            bound: Bindings::new(),
            now,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.bound.is_empty()
    }

    /// Makes all of `changes` under one revision, or none.
    pub(super) fn apply(&mut self, changes: &[Change]) -> Result<Vec<Outcome>, WriteError> {
        let revision = self.revision + 1;
        let planned: Vec<Planned> =
            changes.iter().map(|change| self.plan(change, revision)).collect::<Result<_, _>>()?;
        if planned.iter().any(|plan| !matches!(plan, Planned::Keep(..))) {
            self.revision = revision;
        }
        Ok(planned.into_iter().map(|plan| self.execute(plan)).collect())
    }

    pub(super) fn bind(&mut self, node: Name, id: SpiffeId) {
        self.bound.insert((node, id));
    }

    /// The world that follows `before`.
    pub(super) fn finish(self, before: &World) -> World {
        let mut after = if self.changed.is_empty() {
            before.clone()
        } else {
            before.next(self.revision, self.objects, self.changed)
        };
        if !self.bound.is_empty() {
            after = after.with_bindings(before.bindings().union(&self.bound).cloned().collect());
        }
        after
    }

    fn plan(&self, change: &Change, revision: u64) -> Result<Planned, WriteError> {
        let key = change.key();
        let current = self.objects.get(&key);
        let (Change::Put(_, condition) | Change::Delete(_, condition)) = change;
        let holds = match condition {
            Condition::Any => true,
            Condition::Present => current.is_some(),
            Condition::Absent => current.is_none(),
            Condition::Revision(expected) => current.is_some_and(|object| object.revision == *expected),
        };
        if !holds {
            return Err(WriteError::Stale { key, current: current.map(|object| object.revision) });
        }
        match (change, current) {
            (Change::Put(resource, _), current) => self.plan_put(resource, current, revision),
            (Change::Delete(..), Some(_)) => Ok(Planned::Delete(key)),
            (Change::Delete(..), None) => Err(WriteError::Missing(key)),
        }
    }

    fn plan_put(
        &self,
        resource: &Resource,
        current: Option<&Arc<Object>>,
        revision: u64,
    ) -> Result<Planned, WriteError> {
        let key = resource.key();
        // A route that does not say when it was made was made when it first came.
        let made = current.and_then(|object| object.resource.creation_timestamp()).unwrap_or(self.now);
        let resource = resource.clone().made_at(made);
        if let Some(object) = current
            && *object.resource == resource
        {
            return Ok(Planned::Keep(key, object.revision));
        }
        let done = if current.is_some() { Done::Changed } else { Done::Created };
        match Object::new(revision, Arc::new(resource)) {
            Ok(object) => Ok(Planned::Put(key, Arc::new(object), done)),
            Err(_) => Err(WriteError::TooLarge(key)),
        }
    }

    fn execute(&mut self, plan: Planned) -> Outcome {
        let (key, revision, done) = match plan {
            Planned::Keep(key, revision) => return Outcome { key, revision, done: Done::Unchanged },
            Planned::Put(key, object, done) => {
                self.objects.insert(key.clone(), object);
                (key, self.revision, done)
            }
            Planned::Delete(key) => {
                self.objects.remove(&key);
                (key, self.revision, Done::Deleted)
            }
        };
        self.changed.insert(key.clone());
        Outcome { key, revision, done }
    }
}

//! The embedded store: what was answered to a writer is on disk, and stays there through a crash.
//!
//! One thread owns the database (redb, whose API blocks) and commits whatever has come in meanwhile as one synced
//! transaction. Readers never wait for it: they hold a [`World`], swapped after each commit and announced.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_config::{Key, Name, Resource, SpiffeId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::world::{Object, World};

mod disk;
mod draft;
#[cfg(test)]
mod tests;

use disk::Disk;
use draft::Draft;

/// How many writes may wait for the disk before writers wait to be taken.
const QUEUE: usize = 256;

/// What must hold for a change to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Condition {
    /// Nothing.
    #[default]
    Any,
    /// The object is there.
    Present,
    /// The object is there, at this revision.
    Revision(u64),
    /// The object is not there.
    Absent,
}

/// A change of one object.
#[derive(Debug, Clone)]
pub enum Change {
    /// The object is as given, whether it was there or not.
    Put(Arc<Resource>, Condition),
    /// The object is gone.
    Delete(Key, Condition),
}

impl Change {
    fn key(&self) -> Key {
        match self {
            Self::Put(resource, _) => resource.key(),
            Self::Delete(key, _) => key.clone(),
        }
    }
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Of which object.
    pub key: Key,
    /// The object's revision now; of a deleted one, the store's.
    pub revision: u64,
    /// What was done.
    pub done: Done,
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Done {
    /// The object was not there before.
    Created,
    /// The object said something else before.
    Changed,
    /// The object said the same before, and keeps its revision.
    Unchanged,
    /// The object is gone.
    Deleted,
}

/// Why nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The condition did not hold.
    #[error("{key} {}; read it again and repeat the change", stale(*current))]
    Stale {
        /// Of this object.
        key: Key,
        /// Its revision, if it is there.
        current: Option<u64>,
    },
    /// There is nothing to delete.
    #[error("there is no {0}")]
    Missing(Key),
    /// The object would not fit into a line of the control stream.
    #[error("{0} is too large: it must take less than 4 MiB as JSON")]
    TooLarge(Key),
    /// The disk refused.
    #[error("the store cannot be written: {0}")]
    Disk(String),
    /// The control API is shutting down.
    #[error("the control API is shutting down")]
    Closed,
}

fn stale(current: Option<u64>) -> String {
    current.map_or_else(|| "is not there".into(), |revision| format!("is at revision {revision}"))
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{0} is in use by another process: stop it, or name another data directory")]
    InUse(PathBuf),
    /// It cannot be read or written, or is no store.
    #[error("{path} cannot be used as the store: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the disk or the database says.
        reason: String,
    },
}

enum Job {
    Write(Vec<Change>, oneshot::Sender<Result<Vec<Outcome>, WriteError>>),
    Bind(Name, SpiffeId, oneshot::Sender<Result<(), WriteError>>),
    Close(oneshot::Sender<()>),
}

/// The way to the store. Cheap to clone; all clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    world: watch::Receiver<Arc<World>>,
}

impl Store {
    /// Opens the store in the file `path`, which is made if it is not there. Blocks on the disk.
    ///
    /// # Errors
    /// If another process has it, or it cannot be read and written.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let (disk, world) = Disk::open(path)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (announce, world) = watch::channel(Arc::new(world));
        let writer = Writer { disk, announce };
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || writer.run(queue))
            .map_err(|reason| OpenError::Unusable { path: path.into(), reason: reason.to_string() })?;
        Ok(Self { jobs, world })
    }

    /// Everything, as of the last commit.
    pub fn world(&self) -> Arc<World> {
        self.world.borrow().clone()
    }

    /// Whether it takes writes.
    pub fn is_open(&self) -> bool {
        !self.jobs.is_closed()
    }

    /// Everything, and news of each commit.
    pub fn watch(&self) -> watch::Receiver<Arc<World>> {
        self.world.clone()
    }

    /// Makes `changes`, of different objects, as one: all or none. Answers once they are on disk and announced.
    ///
    /// # Errors
    /// If a condition does not hold, an object to delete is not there, or the disk refuses.
    pub async fn write(&self, changes: Vec<Change>) -> Result<Vec<Outcome>, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Write(changes, reply)).await.map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }

    /// Remembers that a certificate for `id` was signed for `node`.
    ///
    /// # Errors
    /// If the disk refuses.
    pub async fn bind(&self, node: Name, id: SpiffeId) -> Result<(), WriteError> {
        if self.world.borrow().is_bound(&node, &id) {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Bind(node, id, reply)).await.map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }

    /// Finishes what was taken, and gives the file free for another process.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job::Close(reply)).await.is_ok() {
            // An error means that it is closed already.
            let _ = answer.await;
        }
    }
}

/// What runs on the store's thread.
struct Writer {
    disk: Disk,
    announce: watch::Sender<Arc<World>>,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(QUEUE);
        while queue.blocking_recv_many(&mut batch, QUEUE) > 0 {
            if let Some(closing) = self.commit(batch.drain(..)) {
                drop(self);
                // The receiver may have gone: the file is free all the same.
                let _ = closing.send(());
                return;
            }
        }
    }

    /// Opens the file again if an error has closed it.
    fn recover(&mut self) {
        let Some(found) = self.disk.recover() else { return };
        let before = self.announce.borrow().clone();
        if found.revision != before.revision || found.bindings() != before.bindings() {
            self.announce.send_replace(Arc::new(found));
        }
    }

    /// One transaction for everything in `batch`. Answers who asked to close, if anyone did.
    fn commit(&mut self, batch: impl Iterator<Item = Job>) -> Option<oneshot::Sender<()>> {
        self.recover();
        let before = self.announce.borrow().clone();
        let mut draft = Draft::of(&before, SystemTime::now().into());
        let (mut writes, mut bindings, mut closing) = (Vec::new(), Vec::new(), None);
        for job in batch {
            match job {
                Job::Write(changes, reply) => writes.push((reply, draft.apply(&changes))),
                Job::Bind(node, id, reply) => {
                    draft.bind(node, id);
                    bindings.push(reply);
                }
                Job::Close(reply) => closing = Some(reply),
            }
        }
        let saved = if draft.is_empty() { Ok(()) } else { self.disk.save(&draft) };
        if saved.is_ok() && !draft.is_empty() {
            self.announce.send_replace(Arc::new(draft.finish(&before)));
        }
        // A writer that has gone does not hear the answer; its change stands.
        for (reply, outcome) in writes {
            let _ = reply.send(saved.clone().and(outcome));
        }
        for reply in bindings {
            let _ = reply.send(saved.clone());
        }
        closing
    }
}

type Objects = BTreeMap<Key, Arc<Object>>;
type Bindings = BTreeSet<(Name, SpiffeId)>;

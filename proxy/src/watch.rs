//! Files that are followed: says that one of them changed, never what is in it.
//!
//! The directories are watched, not the files, so that an editor's rename and a ConfigMap's swapped symbolic
//! link are seen like a plain write. What counts is the content: it is compared by hash, so that reading,
//! touching or writing the same again says nothing. A file caught half written is reported too; its reader
//! keeps what it had, and the rest of the write is the next change.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

#[cfg(test)]
mod tests;

/// Events come in flocks; a change is looked at when the first of them is this old.
const SETTLE: Duration = Duration::from_millis(10);
/// How often the contents are compared without any event: some file systems send none.
const POLL: Duration = Duration::from_secs(30);
/// The same where the system refuses to watch (no inotify, or its limits are reached).
const POLL_UNWATCHED: Duration = Duration::from_secs(1);
/// As many symbolic links are followed in one path as Linux does (path_resolution(7)).
const LINKS: usize = 40;

/// Follows a set of files, which can change.
#[derive(Debug)]
pub(crate) struct Follower {
    shared: Arc<Shared>,
}

/// A file's content; `None` while it cannot be read.
type Fingerprint = Option<u64>;

#[derive(Debug, Default)]
struct Shared {
    /// What each file had in it when it was last looked at.
    files: Mutex<BTreeMap<PathBuf, Fingerprint>>,
    /// Something may have happened: an event, or another set of files.
    stir: Notify,
}

impl Follower {
    /// Starts to follow, no file at first, on the current tokio runtime; ends when the receiver is dropped.
    ///
    /// The receiver gets one `()` for one change or several of about the same time: read all files again.
    pub(crate) fn start() -> (Self, mpsc::Receiver<()>) {
        let shared = Arc::new(Shared::default());
        let (changes, receiver) = mpsc::channel(1);
        let stirred = Arc::clone(&shared);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !is_reading(event.kind)) {
                stirred.stir.notify_one();
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!("cannot watch files: {error}; comparing them each second"))
            .ok();
        tokio::spawn(follow(Arc::clone(&shared), watcher, changes));
        (Self { shared }, receiver)
    }

    /// Follows exactly these files from now on; they need not exist yet.
    ///
    /// Call it before reading them: a change after the call is reported, one before it is not.
    pub(crate) fn set(&self, paths: BTreeSet<PathBuf>) {
        let mut files = self.shared.files();
        let known = std::mem::take(&mut *files);
        files.extend(paths.into_iter().map(|path| {
            let fingerprint = known.get(&path).copied().unwrap_or_else(|| fingerprint(&path));
            (path, fingerprint)
        }));
        drop(files);
        self.shared.stir.notify_one();
    }
}

impl Shared {
    fn files(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Fingerprint>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at every file: did one change since the last time?
    fn compare(&self) -> bool {
        let mut changed = false;
        for (path, known) in &mut *self.files() {
            let now = fingerprint(path);
            changed |= *known != now;
            *known = now;
        }
        changed
    }
}

/// Reading a file is an event too, and this module reads: without this it would wake itself for ever.
fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

fn fingerprint(path: &Path) -> Fingerprint {
    let content = fs::read(path).ok()?;
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    Some(hasher.finish())
}

async fn follow(shared: Arc<Shared>, mut watcher: Option<RecommendedWatcher>, changes: mpsc::Sender<()>) {
    let mut watched = BTreeSet::new();
    loop {
        // First watched, then compared: what happens in between is seen by one or the other.
        let wanted = shared.files().keys().flat_map(|path| directories(path)).collect();
        let poll = if watch(watcher.as_mut(), &mut watched, wanted) { POLL } else { POLL_UNWATCHED };
        if shared.compare() {
            // A full channel holds a notice that was not taken yet, which stands for this one too.
            changes.try_send(()).ok();
        }
        tokio::select! {
            stirred = timeout(poll, shared.stir.notified()) => {
                if stirred.is_ok() {
                    tokio::time::sleep(SETTLE).await;
                }
            }
            () = changes.closed() => return,
        }
    }
}

/// Watches the wanted directories and no others; false if the system refused one.
fn watch(
    watcher: Option<&mut RecommendedWatcher>,
    watched: &mut BTreeSet<PathBuf>,
    wanted: BTreeSet<PathBuf>,
) -> bool {
    let Some(watcher) = watcher else { return false };
    for gone in watched.difference(&wanted) {
        watcher.unwatch(gone).ok(); // fails when the directory went away, and its watch with it
    }
    // Those already watched too: one that was deleted and made again is another directory of the same name.
    let complete = wanted.iter().fold(true, |complete, directory| {
        let outcome = watcher.watch(directory, RecursiveMode::NonRecursive);
        if let Err(error) = &outcome
            && watched.insert(directory.clone())
        {
            tracing::warn!("cannot watch {}: {error}; comparing its files each second", directory.display());
        }
        complete & outcome.is_ok()
    });
    *watched = wanted;
    complete
}

/// The directories in which a change can change what `path` leads to: the one that holds the file, the one
/// that holds each symbolic link on the way, and where the way ends early, the last one that is there.
fn directories(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut ahead = reversed(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    let mut here = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&name);
        match fs::read_link(&next) {
            Ok(target) if links < LINKS => {
                links += 1;
                found.insert(here.clone());
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                ahead.extend(reversed(&target));
            }
            // Not a link: a directory on the way, or the file at its end.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput && !ahead.is_empty() => here = next,
            _ => {
                found.insert(here);
                break;
            }
        }
    }
    found
}

/// The names of a path, the last one first.
fn reversed(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

//! The sealed state: what a node starts from when the control API is away.
//!
//! One file, `state.sealed`, mode 0600, AES-256-GCM under a random key of its own in `seal.key` beside it, mode 0600.
//! Its plain text is JSON: identity, store, revision, objects. It is replaced whole: written beside, synced, renamed. One
//! that cannot be opened is reported and put aside as `state.sealed.broken`, and the node starts afresh.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use outrigger_certs::{Error as CertificateError, Identity};
use outrigger_config::{Kind, Name, Resource};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;
use zeroize::{Zeroize, Zeroizing};

use super::Error;
use super::held::Object;

/// How the file begins; authenticated with the rest.
const MAGIC: &[u8] = b"outrigger state 1\n";
const FILE: &str = "state.sealed";
const KEY_FILE: &str = "seal.key";
const KEY_BYTES: usize = 32;
/// How long until a write that failed, as on a full disk, is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// What is kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Saved {
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) store: Option<String>,
    pub(super) revision: u64,
    pub(super) objects: Vec<Object>,
}

/// The same, as JSON.
#[derive(Serialize, Deserialize)]
struct Plain {
    node: Name,
    identity: Option<PlainIdentity>,
    store: Option<String>,
    revision: u64,
    objects: Vec<PlainObject>,
}

#[derive(Serialize, Deserialize)]
struct PlainIdentity {
    chain: String,
    key: String,
    bundle: String,
}

impl Drop for PlainIdentity {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

#[derive(Serialize, Deserialize)]
struct PlainObject {
    revision: u64,
    kind: String,
    name: Name,
    spec: serde_json::Value,
}

/// Where it is kept.
pub(super) struct State {
    dir: PathBuf,
    node: Name,
    key: RandomizedNonceKey,
    /// The number of what was written last. Locked while it is written.
    written: Mutex<u64>,
}

/// Hands what comes to a thread that writes it. Dropped, it writes itself what has not been written yet: a node that
/// ends in order starts from what it applied last.
struct Keeper {
    state: Arc<State>,
    saves: watch::Receiver<Option<Arc<Saved>>>,
    /// Counts what was handed on.
    number: u64,
    /// What is known to be written.
    last: Option<Arc<Saved>>,
}

impl Keeper {
    async fn write_newest(&mut self) {
        let Some(saved) = self.saves.borrow_and_update().clone() else { return };
        self.number += 1;
        let (state, number, handed) = (self.state.clone(), self.number, saved.clone());
        let written = tokio::task::spawn_blocking(move || state.save(number, &handed)).await;
        let written = written.map_err(io::Error::other).flatten();
        self.last = written.is_ok().then_some(saved);
        self.state.warn(written);
    }

    /// What has come and is not known to be written.
    fn owed(&self) -> Option<Arc<Saved>> {
        let newest = self.saves.borrow().clone();
        newest.filter(|saved| !self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, saved)))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(saved) = self.owed() {
            self.state.warn(self.state.save(self.number + 1, &saved));
        }
    }
}

impl State {
    /// Opens the folder, and what is kept there.
    pub(super) fn open(dir: &Path, node: &Name) -> Result<(Self, Saved), Error> {
        let failed = |path: &Path, source| Error::StateDir { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| failed(dir, error))?;
        let key_path = dir.join(KEY_FILE);
        let key = seal_key(dir).map_err(|error| failed(&key_path, error))?;
        let state = Self { dir: dir.to_owned(), node: node.clone(), key, written: Mutex::default() };
        let path = dir.join(FILE);
        let saved = match fs::read(&path) {
            Ok(sealed) => state.unseal(sealed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Saved::default()),
            Err(error) => return Err(failed(&path, error)),
        };
        let saved = match saved {
            Ok(saved) => saved,
            Err(reason) => {
                let aside = dir.join(format!("{FILE}.broken"));
                fs::rename(&path, &aside).map_err(|error| failed(&path, error))?;
                warn!("{}: {reason}; put aside as {}, starting afresh", path.display(), aside.display());
                Saved::default()
            }
        };
        Ok((state, saved))
    }

    /// Writes the newest of what comes, one after the other, and when it is dropped what is left.
    pub(super) async fn keep(self, saves: watch::Receiver<Option<Arc<Saved>>>) -> Infallible {
        let mut keeper = Keeper { state: Arc::new(self), saves, number: 0, last: None };
        loop {
            let again = keeper.owed().is_some();
            tokio::select! {
                changed = keeper.saves.changed() => if changed.is_err() { break },
                () = sleep(AGAIN), if again => {}
            }
            keeper.write_newest().await;
        }
        // What sends them is gone, and this future goes with it.
        std::future::pending().await
    }

    fn warn(&self, written: io::Result<()>) {
        if let Err(error) = written {
            warn!("{}: cannot be written: {error}", self.dir.join(FILE).display());
        }
    }

    /// Writes what is kept, unless something newer, of a higher number, was written before.
    fn save(&self, number: u64, saved: &Saved) -> io::Result<()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written > number {
            return Ok(());
        }
        *written = number;
        let identity = saved.identity.as_ref().map(|identity| PlainIdentity {
            chain: identity.chain_pem(),
            key: identity.key_pem().expose().to_owned(),
            bundle: identity.bundle_pem(),
        });
        let object = |object: &Object| PlainObject {
            revision: object.revision,
            kind: object.resource.kind().to_string(),
            name: object.resource.name.clone(),
            spec: object.resource.spec_json(),
        };
        let plain = Plain {
            node: self.node.clone(),
            identity,
            store: saved.store.clone(),
            revision: saved.revision,
            objects: saved.objects.iter().map(object).collect(),
        };
        let mut sealed = Zeroizing::new(serde_json::to_vec(&plain)?);
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(MAGIC), &mut *sealed)
            .map_err(|_| io::Error::other("cannot be sealed"))?;
        replace(&self.dir, FILE, &[MAGIC, nonce.as_ref(), &sealed])
    }

    fn unseal(&self, mut sealed: Vec<u8>) -> Result<Saved, String> {
        let rest = sealed.strip_prefix(MAGIC).ok_or("is not a node's state")?;
        let (nonce, _) = rest.split_first_chunk::<NONCE_LEN>().ok_or("has been cut short")?;
        let nonce = Nonce::from(nonce);
        let body = sealed.get_mut(MAGIC.len() + NONCE_LEN..).unwrap_or_default();
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(MAGIC), body)
            .map_err(|_| "has been changed, or was sealed by another key")?;
        let plain: Plain = serde_json::from_slice(opened).map_err(|error| error.to_string())?;
        if plain.node != self.node {
            return Err(format!("belongs to the node {}", plain.node));
        }
        let identity = plain.identity.and_then(|kept| {
            let at = |now| {
                let (chain, bundle) = (kept.chain.as_bytes(), kept.bundle.as_bytes());
                Identity::from_pem_at(chain, kept.key.as_bytes(), bundle, now)
            };
            // It was valid when it was kept: a clock that is behind is set soon after the start, and a token may be over.
            at(SystemTime::now())
                .or_else(|error| match error {
                    CertificateError::NotYetValid { until, .. } => at(until),
                    error => Err(error),
                })
                .map_err(|error| warn!("the identity that was kept cannot be used: {error}"))
                .ok()
        });
        let objects = plain.objects.into_iter().filter_map(read_object).collect();
        Ok(Saved { identity: identity.map(Arc::new), store: plain.store, revision: plain.revision, objects })
    }
}

/// An object that was kept. One that this version does not take is asked for again, and then refused by name.
fn read_object(kept: PlainObject) -> Option<Object> {
    let kind = Kind::find(&kept.kind)?;
    let resource = Resource::parse(kind, kept.name.as_str(), kept.spec)
        .map_err(|invalid| warn!("{kind}/{} was kept and cannot be used: {invalid}", kept.name))
        .ok()?;
    Some(Object { revision: kept.revision, resource: Arc::new(resource) })
}

/// The key that seals: read, or made where there is none that can be used.
fn seal_key(dir: &Path) -> io::Result<RandomizedNonceKey> {
    let mut bytes = match fs::read(dir.join(KEY_FILE)) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Zeroizing::default(),
        Err(error) => return Err(error),
    };
    if bytes.len() != KEY_BYTES {
        bytes.resize(KEY_BYTES, 0);
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| io::Error::other("the system gives no random bytes"))?;
        replace(dir, KEY_FILE, &[&bytes])?;
    }
    RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| io::Error::other("the key cannot be used"))
}

/// Replaces a file by another content, whole: a crash leaves the old one or the new one.
fn replace(dir: &Path, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let beside = dir.join(format!("{name}.tmp"));
    // One that a crash left over may have another mode.
    if let Err(error) = fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    fs::rename(&beside, dir.join(name))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use outrigger_certs::{Authority, signing_request};

    use super::*;

    fn identity(now: SystemTime) -> Identity {
        let authority = Authority::create("outrigger.test").unwrap();
        let (key, csr) = signing_request().unwrap();
        let id = "spiffe://outrigger.test/node/a".parse().unwrap();
        let hour = Duration::from_hours(1);
        let issued = authority.sign(csr.as_bytes(), &id, &[], hour, now).unwrap();
        let (chain, bundle) = (issued.chain_pem.as_bytes(), authority.cert_pem());
        Identity::from_pem_at(chain, key.expose().as_bytes(), bundle.as_bytes(), now).unwrap()
    }

    fn open(dir: &Path) -> (State, Saved) {
        State::open(dir, &"a".parse().unwrap()).unwrap()
    }

    /// The hours that `identity` was made ahead, as a clock would be behind.
    fn kept(ahead: i64) -> Option<Arc<Identity>> {
        let dir = tempfile::tempdir().unwrap();
        let hours = Duration::from_hours(ahead.unsigned_abs());
        let now = SystemTime::now();
        let identity = Some(Arc::new(identity(if ahead < 0 { now - hours } else { now + hours })));
        open(dir.path()).0.save(1, &Saved { identity, ..Saved::default() }).unwrap();
        open(dir.path()).1.identity
    }

    #[test]
    fn an_identity_outlives_a_clock_that_is_behind_and_not_its_own_end() {
        assert!(kept(0).is_some());
        assert!(kept(5).is_some());
        assert!(kept(-5).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_written_is_written_later() {
        let dir = tempfile::tempdir().unwrap();
        let (state, _) = open(dir.path());
        let in_the_way = dir.path().join("state.sealed.tmp");
        fs::create_dir(&in_the_way).unwrap();
        let (save, saves) = watch::channel(None);
        save.send_replace(Some(Arc::new(Saved { revision: 7, ..Saved::default() })));
        tokio::select! {
            never = state.keep(saves) => match never {},
            () = sleep(AGAIN * 2) => panic!("it was not tried again"),
            () = async {
                sleep(AGAIN / 2).await;
                assert!(!dir.path().join(FILE).exists());
                fs::remove_dir(&in_the_way).unwrap();
                while !dir.path().join(FILE).exists() {
                    sleep(Duration::from_secs(1)).await;
                }
            } => {}
        }
        assert_eq!(open(dir.path()).1.revision, 7);
    }
}

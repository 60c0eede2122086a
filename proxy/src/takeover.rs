//! A new process takes over the listening sockets of the one that runs (`--upgrade PATH`), over a Unix socket at that
//! path. Both are the same sockets of the kernel, so callers that wait to be accepted wait on.
//!
//! One line of JSON at a time, each answered before the next ([`Word`]):
//!
//! ```text
//! running: {"offer":{"version":1,"pid":7,"sockets":[{"use":"listener","name":"web","asked":…,"local":…,"count":2}]}}
//! new:     {"take":{"version":1,"pid":8}}            it wants them
//! running: the sockets, in that order                (SCM_RIGHTS)
//! new:     "ready"                                   all that its configuration says is there
//! running: "yours"
//! new:     "accepting"                               its workers do
//! ```
//!
//! The running process goes on as if nothing had happened unless it hears the last word, for which it waits as long as
//! the new one is there: given up on, that might yet accept, and both would go on. The new one accepts nothing before it
//! hears `yours`, or the running one is gone.

mod word;

use std::cell::Cell;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use outrigger_net::{listen, pass};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use self::word::{Offered, Use, VERSION, Word, hear, is_gone, say, stranger};
use crate::director::{Published, Tell, current};
use crate::faces::Face;
use crate::listeners::Given;
use crate::seldom::Seldom;
use crate::worker::{Order, ask};

/// How long the other may take for a word that needs no work.
const PROMPT: Duration = Duration::from_secs(10);
/// How long the new process may take to set itself up.
const SETUP: Duration = Duration::from_mins(1);

/// Why a proxy could not be replaced.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The path cannot be used.
    #[error("--upgrade {}: {source}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else's process is there.
    #[error("--upgrade {}: the process there belongs to user {theirs}, and this one to {ours}; start it as the same user, or choose another path", path.display())]
    Stranger {
        /// The path.
        path: PathBuf,
        /// Its user.
        theirs: u32,
        /// This process's.
        ours: u32,
    },
    /// The running proxy did not play its part.
    #[error("--upgrade: the running proxy {0}; it goes on")]
    Refused(String),
    /// It ended, or another took its place, before it was this one's turn.
    #[error(
        "--upgrade: the running proxy ended, or was replaced, before it handed over its sockets; start again"
    )]
    Gone,
    /// The configuration is not whole, so that something that runs would be lost.
    #[error(
        "--upgrade: nothing was taken over, and the running proxy goes on, because of this configuration:\n{0}"
    )]
    Lacking(String),
}

/// What the new process has of the one that runs.
pub(crate) struct Claim {
    stream: UnixStream,
    /// The process that it replaces.
    pub(crate) pid: u32,
    /// The sockets of its listeners.
    pub(crate) listeners: Vec<Given>,
    /// Its own.
    pub(crate) own: Vec<Given>,
}

impl Claim {
    /// Asks the process at a path for its sockets; `None` if there is none.
    pub(crate) async fn make(path: &Path) -> Result<Option<Self>, UpgradeError> {
        let wrong = |source| UpgradeError::Path { path: path.to_owned(), source };
        let stream = match UnixStream::connect(path).await {
            Ok(stream) => stream,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(wrong(error)),
        };
        if let Some((theirs, ours)) = stranger(&stream).map_err(wrong)? {
            return Err(UpgradeError::Stranger { path: path.to_owned(), theirs, ours });
        }
        Self::over(stream).await.map(Some)
    }

    async fn over(stream: UnixStream) -> Result<Self, UpgradeError> {
        let failed =
            |error: io::Error| UpgradeError::Refused(format!("did not hand over its sockets: {error}"));
        // It may be busy with another that wants the same.
        let heard = hear(&stream, SETUP).await.map_err(|error| match error {
            error if is_gone(&error) => UpgradeError::Gone,
            error => failed(error),
        });
        let (pid, offered) = match heard? {
            Word::Offer { version: VERSION, pid, sockets } => (pid, sockets),
            Word::Offer { version, .. } => {
                let why = format!(
                    "speaks version {version} of the upgrade, and this one {VERSION}: restart it instead"
                );
                return Err(UpgradeError::Refused(why));
            }
            Word::No(why) => return Err(UpgradeError::Refused(why)),
            other => return Err(UpgradeError::Refused(format!("says {other:?} where an offer is due"))),
        };
        let take = Word::Take { version: VERSION, pid: std::process::id() };
        say(&stream, &take).await.map_err(failed)?;
        let count = offered.iter().fold(0, |all: usize, offered| all.saturating_add(offered.count));
        let received = pass::receive(&stream, count);
        let received =
            tokio::time::timeout(PROMPT, received).await.map_err(|_| failed(io::ErrorKind::TimedOut.into()));
        let mut received = received?.map_err(failed)?.into_iter().map(TcpListener::from);
        let mut claim = Self { stream, pid, listeners: Vec::new(), own: Vec::new() };
        for Offered { r#use, name, asked, local, count } in offered {
            let sockets: Vec<_> = received.by_ref().take(count).collect();
            for socket in &sockets {
                if listen::adopt(socket).map_err(failed)? != local {
                    return Err(UpgradeError::Refused(format!("handed over another socket than {name}'s")));
                }
            }
            let to = if r#use == Use::Listener { &mut claim.listeners } else { &mut claim.own };
            if !sockets.is_empty() {
                to.push(Given { name, asked: Some(asked), local, sockets });
            }
        }
        Ok(claim)
    }

    /// Says that all is set up. From then on the sockets are this process's.
    pub(crate) async fn ready(&self) -> Result<(), UpgradeError> {
        // It may have said why it goes on, and closed its end, before it could hear this.
        let said = say(&self.stream, &Word::Ready).await;
        let answer = match hear(&self.stream, PROMPT).await {
            Ok(word) => Ok(word),
            Err(error) => said.and(Err(error)),
        };
        match answer {
            Ok(Word::Yours) => Ok(()),
            Ok(Word::No(why)) => Err(UpgradeError::Refused(why)),
            Ok(other) => Err(UpgradeError::Refused(format!("says {other:?} where `yours` is due"))),
            // It has ended, and nobody but this process accepts.
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(UpgradeError::Refused(format!("did not answer: {error}"))),
        }
    }

    /// Says that the workers accept.
    pub(crate) async fn accepting(self) {
        // If it has ended there is nobody to tell.
        let _ = say(&self.stream, &Word::Accepting).await;
    }
}

/// Where the next process finds this one.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    path: PathBuf,
    /// Where it is until it is put in its place.
    beside: PathBuf,
    /// Tells its file from one that another process has put there since.
    file: (u64, u64),
    /// Whether the place is another's by now, or soon is: a file there is no more to be removed.
    left: Cell<bool>,
}

impl Door {
    /// Makes it, not in its place yet.
    pub(crate) fn make(path: &Path) -> Result<Self, UpgradeError> {
        let wrong = |source| UpgradeError::Path { path: path.to_owned(), source };
        let there = std::fs::symlink_metadata(path).map(|there| there.file_type());
        if let Some(kind) = there.ok().filter(|kind| !kind.is_socket()) {
            let why = if kind.is_dir() {
                "there is a folder; name a socket in it"
            } else {
                "there is a file that is not a socket; choose another path"
            };
            return Err(wrong(io::Error::new(io::ErrorKind::AlreadyExists, why)));
        }
        if let Some(folder) = path.parent().filter(|it| !it.as_os_str().is_empty() && !it.is_dir()) {
            let why = format!("there is no folder {}; make it", folder.display());
            return Err(wrong(io::Error::new(io::ErrorKind::NotFound, why)));
        }
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        // Left behind by a process of the same number.
        let _ = std::fs::remove_file(&beside);
        let listener = UnixListener::bind(&beside).map_err(wrong)?;
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).map_err(wrong)?;
        let there = std::fs::metadata(&beside).map_err(wrong)?;
        let file = (there.dev(), there.ino());
        Ok(Self { listener, path: path.to_owned(), beside, file, left: Cell::new(false) })
    }

    /// Puts it in its place, and that of the one before.
    pub(crate) fn put(&self) -> Result<(), UpgradeError> {
        let wrong = |source| UpgradeError::Path { path: self.path.clone(), source };
        std::fs::rename(&self.beside, &self.path).map_err(wrong)
    }

    /// Hands the sockets to whoever comes; returns once another process has taken them over.
    pub(crate) async fn replaced(&self, shop: &Shop) -> u32 {
        let mut complaint = Seldom::default();
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if complaint.is_due() {
                        tracing::warn!("--upgrade cannot accept a connection: {error}; trying again");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            match stranger(&stream) {
                Ok(None) => {}
                Ok(Some((theirs, _))) => {
                    (shop.complain)(&format!("--upgrade: refused a process of user {theirs}"));
                    continue;
                }
                Err(_) => continue,
            }
            match shop.hand_over(&stream).await {
                Ok(pid) => {
                    self.left.set(true);
                    return pid;
                }
                Err(error) => {
                    let why = if is_gone(&error) { "it ended".to_owned() } else { error.to_string() };
                    // It may hear it, if it is still there.
                    let _ = say(&stream, &Word::No(format!("does not give way: {why}"))).await;
                    (shop.complain)(&format!(
                        "--upgrade: the new process did not take over: {why}; going on"
                    ));
                }
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.beside);
        let there = || std::fs::metadata(&self.path);
        if !self.left.get() && there().is_ok_and(|there| (there.dev(), there.ino()) == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// All that can be handed over.
pub(crate) struct Shop {
    pub(crate) orders: Vec<mpsc::Sender<Order>>,
    pub(crate) published: Published,
    pub(crate) faces: Vec<Face>,
    pub(crate) complain: Tell,
}

impl Shop {
    async fn hand_over(&self, stream: &UnixStream) -> io::Result<u32> {
        let unexpected = |word: Word| {
            io::Error::new(io::ErrorKind::InvalidData, format!("it says {word:?}, which is not its turn"))
        };
        let mut sockets = Vec::new();
        let mut offered = Vec::new();
        self.listeners(&mut offered, &mut sockets).await?;
        for face in &self.faces {
            let (name, asked, local) = (face.what.to_owned(), face.asked, face.local);
            offered.push(Offered { r#use: Use::Own, name, asked, local, count: 1 });
            sockets.push(listen::copy(&face.socket)?);
        }
        let offer = Word::Offer { version: VERSION, pid: std::process::id(), sockets: offered };
        say(stream, &offer).await?;
        let pid = match hear(stream, PROMPT).await? {
            Word::Take { version: VERSION, pid } => pid,
            other => return Err(unexpected(other)),
        };
        let handles: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        tokio::time::timeout(PROMPT, pass::send(stream, &handles))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??;
        drop(sockets);
        match hear(stream, SETUP).await? {
            Word::Ready => {}
            other => return Err(unexpected(other)),
        }
        say(stream, &Word::Yours).await?;
        match hear(stream, Duration::MAX).await? {
            Word::Accepting => Ok(pid),
            other => Err(unexpected(other)),
        }
    }

    /// Copies of what the workers accept on: all of it, for callers wait in each.
    async fn listeners(&self, offered: &mut Vec<Offered>, sockets: &mut Vec<TcpListener>) -> io::Result<()> {
        let mut lent = Vec::new();
        for own in ask(&self.orders, Order::Lend).await {
            lent.extend(own?);
        }
        let live = current(&self.published);
        for listener in live.iter().flat_map(|live| &live.listeners) {
            let Some(bound) = &listener.sockets else { continue };
            let (own, others): (Vec<_>, _) = lent.into_iter().partition(|(name, _)| *name == listener.name);
            lent = others;
            let count = own.len();
            sockets.extend(own.into_iter().map(|(_, socket)| socket));
            let (name, asked, local) = (listener.name.to_string(), bound.asked, bound.local);
            offered.push(Offered { r#use: Use::Listener, name, asked, local, count });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! Where a configuration comes from: a file that is followed, or the control API.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_certs::Identity;
use outrigger_config::file::{self, File, IdentityFiles};
use outrigger_config::{Accepted, Resource};
use outrigger_control::Sink;
use outrigger_control::message::Refusal;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::proxy::StartError;

/// What a source says.
#[derive(Debug)]
pub(crate) enum Event {
    /// A whole configuration, to be made live.
    Resources {
        revision: u64,
        resources: Vec<Arc<Resource>>,
        /// How many objects the source itself refused.
        rejected: usize,
        /// Told what could not be made live, once the rest is.
        done: oneshot::Sender<Vec<Refusal>>,
    },
    /// Who this node is from now on.
    Identity(Arc<Identity>),
    /// Whether the control API is connected.
    Connected(bool),
    /// The source can never say anything.
    Failed(String),
}

/// A configuration file: what was good in it last.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    /// `None` where it is a text that does not change.
    path: Option<PathBuf>,
    accepted: Accepted,
    /// Counts the versions read.
    pub(crate) revision: u64,
    pub(crate) rejected: usize,
    pub(crate) identity: Option<IdentityFiles>,
    pub(crate) admin: Option<std::net::SocketAddr>,
}

impl ConfigFile {
    /// Reads it for the first time. Says on `tell` what is wrong with single objects.
    pub(crate) fn open(path: PathBuf, tell: &dyn Fn(&str)) -> Result<Self, StartError> {
        let file = read(&path)?;
        Ok(Self::new(Some(path), file, tell))
    }

    /// Takes what would be in a file.
    pub(crate) fn of_text(text: &str, tell: &dyn Fn(&str)) -> Result<Self, StartError> {
        Ok(Self::new(None, parse(text, Path::new(UNNAMED))?, tell))
    }

    fn new(path: Option<PathBuf>, file: File, tell: &dyn Fn(&str)) -> Self {
        let mut this = Self {
            path,
            accepted: Accepted::default(),
            revision: 0,
            rejected: 0,
            identity: None,
            admin: file.admin,
        };
        this.take(file, tell);
        this
    }

    /// Reads it again. A file that is no configuration at all changes nothing.
    pub(crate) fn reload(&mut self, tell: &dyn Fn(&str)) {
        let Some(path) = &self.path else { return };
        match read(path) {
            Ok(file) => self.take(file, tell),
            Err(error) => {
                self.rejected = 1;
                tell(&format!("{error}; the configuration before stays live"));
            }
        }
    }

    fn take(&mut self, file: File, tell: &dyn Fn(&str)) {
        let path = self.path.as_deref().unwrap_or(Path::new(UNNAMED)).to_owned();
        let path = path.display();
        for rejected in &file.rejected {
            let fate = if rejected.key.as_ref().is_some_and(|key| self.accepted.contains(key)) {
                "its last good version stays live"
            } else {
                "it is left out"
            };
            tell(&format!("{path}:{rejected} ({}: {fate})", rejected.object));
        }
        for warning in &file.warnings {
            tell(&format!("{path}:{warning} (warning)"));
        }
        self.rejected = file.rejected.len();
        self.identity.clone_from(&file.identity);
        self.accepted.replace(file);
        self.revision += 1;
    }

    pub(crate) fn resources(&self) -> Vec<Arc<Resource>> {
        self.accepted.resources().cloned().collect()
    }

    /// The file; `None` where it is a text that does not change.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

/// What a configuration is called that is in no file.
const UNNAMED: &str = "configuration";

fn read(path: &Path) -> Result<File, StartError> {
    let text =
        fs::read_to_string(path).map_err(|source| StartError::Read { path: path.to_owned(), source })?;
    parse(&text, path)
}

fn parse(text: &str, path: &Path) -> Result<File, StartError> {
    file::parse(text).map_err(|error| StartError::Unreadable {
        path: path.to_owned(),
        line: error.line,
        column: error.column,
        reason: error.reason,
    })
}

/// Follows the control API, on the current runtime, until the receiver of events is gone.
pub(crate) async fn follow_control(
    options: outrigger_control::Options,
    events: mpsc::UnboundedSender<Event>,
    doubts: Arc<Notify>,
) {
    let sink = ToDirector { events: events.clone(), doubts };
    let error = match outrigger_control::run(options, sink).await {
        Ok(never) => match never {},
        Err(error) => error,
    };
    let _ = events.send(Event::Failed(error.to_string()));
}

/// Keeps the order of what is said: an identity comes before the configuration that needs it. Not bounded by itself:
/// a configuration waits for the one before it to be live, and the rest is rare.
struct ToDirector {
    events: mpsc::UnboundedSender<Event>,
    doubts: Arc<Notify>,
}

impl Sink for ToDirector {
    fn identity(&mut self, identity: Arc<Identity>) {
        let _ = self.events.send(Event::Identity(identity));
    }

    async fn apply(&mut self, revision: u64, resources: Vec<Arc<Resource>>, rejected: usize) -> Vec<Refusal> {
        let (done, refused) = oneshot::channel();
        let event = Event::Resources { revision, resources, rejected, done };
        if self.events.send(event).is_err() {
            return Vec::new();
        }
        refused.await.unwrap_or_default()
    }

    fn doubts(&self) -> Arc<Notify> {
        self.doubts.clone()
    }

    fn connected(&mut self, up: bool) {
        let _ = self.events.send(Event::Connected(up));
    }
}

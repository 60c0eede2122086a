//! A mesh in one process: a control API, applications, and a sidecar for each, as they run on many machines.
//!
//! ```no_run
//! # async fn story() -> Result<(), outrigger_testkit::mesh::Error> {
//! use outrigger_config::Kind;
//! use outrigger_testkit::mesh::Mesh;
//! use serde_json::json;
//!
//! let mesh = Mesh::start().await?;
//! let api = mesh.app("api").start().await?;
//! let web = mesh.sidecar("web").start().await?;
//! mesh.put(Kind::Backend, "api", json!({ "endpoints": [api.sidecar.endpoint()] })).await?;
//! let route = json!({ "listeners": [web.outbound_name()], "rules": [{ "backendRefs": [{ "name": "api" }] }] });
//! let revision = mesh.put(Kind::HttpRoute, "api", route).await?;
//! mesh.settled(revision).await?;
//! assert_eq!(web.caller().get("api", "/").await?.app(), "api");
//! # Ok(()) }
//! ```
//!
//! Nothing needs root. Each mesh has a network of its own within 127.0.0.0/8, and each node an address in it, as a pod
//! has one; every port is the system's choice, and what is started again is where it was.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outrigger_config::scalar::Refused;
use outrigger_config::{Invalid, Key, Kind, Name, Resource, SpiffeId};
use outrigger_control_api::store::WriteError;
use outrigger_control_api::{ControlApi, Options, token::TokenError};
use serde_json::Value;
use tempfile::TempDir;

mod caller;
mod enrolled;
mod member;

pub use caller::{Answer, Caller};
pub use enrolled::Enrolled;
pub use member::{AppBuilder, Builder, Leaving, Member, Sidecar};

/// How long anything may take that is waited for, before it is an error.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a token is good for.
const TOKEN_TTL: Duration = Duration::from_hours(1);

/// What went wrong in a mesh.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control API did not start.
    #[error("the control API: {0}")]
    Control(#[from] outrigger_control_api::StartError),
    /// The control API was killed.
    #[error("the control API is away")]
    Away,
    /// A sidecar did not start.
    #[error("the sidecar: {0}")]
    Sidecar(#[from] outrigger_proxy::StartError),
    /// A resource could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A resource is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A name is not valid.
    #[error(transparent)]
    Name(#[from] Refused),
    /// A token could not be made.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The system said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A connection broke, or what came on it was not HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// A request could not be made.
    #[error(transparent)]
    Request(#[from] http::Error),
    /// What was waited for has not come.
    #[error("not within {PATIENCE:?}: {0}")]
    Late(String),
}

/// A control API, and what its nodes need to find it.
#[derive(Debug)]
pub struct Mesh {
    control: Option<ControlApi>,
    options: Options,
    url: String,
    /// The first three parts of every address.
    network: [u8; 3],
    /// The last part of the youngest node's address.
    youngest: AtomicU8,
    running: Running,
    folder: TempDir,
}

/// The nodes that run.
#[derive(Debug, Clone, Default)]
struct Running(Arc<Mutex<BTreeSet<Name>>>);

impl Running {
    fn names(&self) -> MutexGuard<'_, BTreeSet<Name>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mesh {
    /// Starts a control API.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn start() -> Result<Self, Error> {
        Self::with_certificates_for(Duration::from_hours(24)).await
    }

    /// Starts a control API that signs certificates for so long.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn with_certificates_for(lifetime: Duration) -> Result<Self, Error> {
        let folder = tempfile::tempdir()?;
        // Not 127.0.0.1, where the rest of the machine is: no other program gets a port that is free for a moment.
        let network = [127, fastrand::u8(1..=254), fastrand::u8(..)];
        let [a, b, c] = network;
        let address = Ipv4Addr::new(a, b, c, 1);
        let mut options = Options {
            listen: (address, 0).into(),
            stream: (address, 0).into(),
            leaf_lifetime: lifetime,
            names: vec![address.to_string()],
            ..Options::new(folder.path().join("control"))
        };
        let control = outrigger_control_api::start(options.clone()).await?;
        (options.listen, options.stream) = (control.rest(), control.stream());
        let url = format!("https://{}", control.stream());
        let (youngest, running) = (AtomicU8::new(1), Running::default());
        Ok(Self { control: Some(control), options, url, network, youngest, running, folder })
    }

    /// The control API.
    ///
    /// # Errors
    /// If it was killed.
    pub fn control(&self) -> Result<&ControlApi, Error> {
        self.control.as_ref().ok_or(Error::Away)
    }

    /// An application with a sidecar before it, both still to be started. The node has this name.
    pub fn app<'a>(&'a self, name: &'a str) -> AppBuilder<'a> {
        AppBuilder::new(self, name)
    }

    /// A sidecar, still to be started: without an application it only calls others.
    pub fn sidecar<'a>(&'a self, name: &'a str) -> Builder<'a> {
        Builder::new(self, name)
    }

    /// Puts one object, as REST does. Answers the revision.
    ///
    /// # Errors
    /// If it is not valid, or the control API is away.
    pub async fn put(&self, kind: Kind, name: &str, spec: Value) -> Result<u64, Error> {
        self.put_all([Resource::parse(kind, name, spec)?]).await
    }

    /// Puts several objects as one change. Answers the revision.
    ///
    /// # Errors
    /// If the control API is away.
    pub async fn put_all(&self, resources: impl IntoIterator<Item = Resource>) -> Result<u64, Error> {
        Ok(self.control()?.put(resources).await?)
    }

    /// Deletes one object. Answers the revision.
    ///
    /// # Errors
    /// If it is not there, or the control API is away.
    pub async fn delete(&self, kind: Kind, name: &str) -> Result<u64, Error> {
        Ok(self.control()?.delete(Key { kind, name: name.parse()? }).await?)
    }

    /// Waits until every node that runs has the revision live.
    ///
    /// # Errors
    /// If one has not after half a minute, or the control API is away.
    pub async fn settled(&self, revision: u64) -> Result<(), Error> {
        let control = self.control()?;
        let names = self.running.names().clone();
        let waited = control.wait_for_nodes(|nodes| {
            names.iter().all(|name| nodes.iter().any(|node| is_at(node, name, revision)))
        });
        within(waited, || format!("revision {revision} at {names:?}; the nodes are {:?}", control.nodes()))
            .await
    }

    /// Ends the control API, as a crash of its machine would for its nodes. Its data stays.
    pub async fn kill_control(&mut self) {
        if let Some(control) = self.control.take() {
            control.shutdown().await;
        }
    }

    /// Starts the control API again, on its data, where it was.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn restart_control(&mut self) -> Result<(), Error> {
        self.kill_control().await;
        self.control = Some(outrigger_control_api::start(self.options.clone()).await?);
        Ok(())
    }

    /// The folder with the data of the control API and of each node.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// An address that nothing else in the mesh has.
    fn address(&self) -> IpAddr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, self.youngest.fetch_add(1, Ordering::Relaxed) + 1).into()
    }

    /// Makes a token for a node, in a file. Answers the file, and the identity that the node gets.
    fn token(&self, node: &Name, folder: &Path) -> Result<(PathBuf, SpiffeId), Error> {
        let text = format!("spiffe://{}/node/{node}", self.options.trust_domain);
        let identity: SpiffeId = text.parse()?;
        let token = self.control()?.token(node, Some(&identity), TOKEN_TTL)?;
        std::fs::create_dir_all(folder)?;
        let file = folder.join("token");
        std::fs::write(&file, token)?;
        Ok((file, identity))
    }
}

/// Whether a node is the one of this name, and has the revision live.
fn is_at(node: &outrigger_control_api::node::NodeStatus, name: &Name, revision: u64) -> bool {
    node.name == *name && node.connected && node.revision >= revision
}

/// Waits for something that must come soon.
async fn within<T>(what: impl Future<Output = T>, describe: impl FnOnce() -> String) -> Result<T, Error> {
    tokio::time::timeout(PATIENCE, what).await.map_err(|_| Error::Late(describe()))
}

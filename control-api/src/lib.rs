//! The control API: it keeps the resources of a mesh, signs its nodes' identities, and sends each node what concerns it.
//!
//! A resource comes in over REST ([`rest`]), is checked by the `config` crate, goes to disk ([`store`]) and into an
//! immutable [`world`], from where each node's stream sends it on (`stream`). Nothing here is global: several control
//! APIs can run in one process. It never carries traffic, and nodes go on without it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_certs::Authority;
use outrigger_config::{Key, Name, Resource, SpiffeId};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

pub mod cli;
mod data;
pub mod node;
pub mod rest;
mod root;
pub mod store;
mod stream;
pub mod token;
pub mod world;

pub use data::FileError;
use node::{NodeStatus, Nodes};
use root::Server;
use store::{Change, Condition, Outcome, Store, WriteError};
use token::{Mesh, TokenError, Tokens};

/// How long requests in flight may take to end at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// How to run a control API.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory of the store and the keys; made, for its owner alone, if it is not there.
    pub data: PathBuf,
    /// Where REST listens. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where the stream and signing listen. Port 0 lets the system choose.
    pub stream: SocketAddr,
    /// The trust domain of the mesh's identities.
    pub trust_domain: String,
    /// How long a node's certificate lives.
    pub leaf_lifetime: Duration,
    /// The root's certificate and key, PEM files; `None`: made at the first start and kept in `data`.
    pub root: Option<(PathBuf, PathBuf)>,
    /// DNS names and addresses under which nodes call it, beside `localhost`, the loopback addresses, the host's name
    /// and the names of the service `outrigger-control` in the namespace `outrigger-system`.
    pub names: Vec<String>,
}

impl Options {
    /// The usual addresses and times, with `data` as data directory.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            listen: ([127, 0, 0, 1], 15010).into(),
            stream: ([0, 0, 0, 0], 15012).into(),
            trust_domain: "outrigger.local".into(),
            leaf_lifetime: Duration::from_hours(24),
            root: None,
            names: Vec::new(),
        }
    }
}

/// Why a control API did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A file or folder cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::OpenError),
    /// The root cannot be used.
    #[error("the root in {path} cannot be used: {reason}")]
    Root {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        reason: outrigger_certs::Error,
    },
    /// There is a root certificate, but no key, or the other way round.
    #[error("{missing} is missing, but there is {found}: put it back, or move both away to begin a new mesh")]
    HalfARoot {
        /// The file that is there.
        found: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// The trust domain cannot stand in a SPIFFE ID.
    #[error("`{0}` is not a trust domain: use lower-case letters, digits, `.`, `-` and `_`")]
    TrustDomain(String),
    /// The nodes' certificates would be over before they could be used.
    #[error("a node's certificate must live for at least a second: say --leaf-lifetime 24h")]
    LeafLifetime,
    /// The data directory is of another trust domain: identities of both would not trust each other.
    #[error(
        "{} is of the trust domain {known}, not {given}: say --trust-domain {known}, or name another data directory",
        path.display()
    )]
    OtherTrustDomain {
        /// The data directory.
        path: PathBuf,
        /// Its trust domain.
        known: String,
        /// The one asked for.
        given: String,
    },
    /// The server's own certificate cannot be made.
    #[error("the server's own certificate cannot be made: {0}")]
    ServerCertificate(outrigger_certs::Error),
    /// An address is taken, or not ours.
    #[error("{what} cannot listen on {address}: {reason}; {flag} ADDRESS names another")]
    Listen {
        /// What was to listen.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What says where.
        flag: &'static str,
        /// What the system says.
        reason: std::io::Error,
    },
}

/// What every part of one control API works on.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) nodes: Nodes,
    pub(crate) tokens: Tokens,
    pub(crate) authority: Authority,
    pub(crate) leaf_lifetime: Duration,
    /// What this server is called.
    pub(crate) names: Vec<String>,
}

/// A running control API. Dropped, it stops listening and closes its streams, without waiting for anything.
#[derive(Debug)]
pub struct ControlApi {
    shared: Arc<Shared>,
    rest: SocketAddr,
    stream: SocketAddr,
    /// Dropped to end everything.
    stop: watch::Sender<bool>,
    /// Closed once everything has ended.
    ended: mpsc::Receiver<()>,
}

/// What a task holds while it runs: it hears when to stop, and is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    stop: watch::Receiver<bool>,
    _waited_for: mpsc::Sender<()>,
}

impl Running {
    /// Resolves when the control API stops.
    pub(crate) async fn stopped(&mut self) {
        // An error means that the control API was dropped.
        let _ = self.stop.wait_for(|stop| *stop).await;
    }
}

/// Starts a control API on the current tokio runtime; both addresses listen when this returns.
///
/// # Errors
/// If the data directory is in use or unusable, the root is wrong, or an address cannot be listened on.
pub async fn start(options: Options) -> Result<ControlApi, StartError> {
    let names = root::server_names(&options.names);
    let (store, authority) = open(&options)?;
    let mesh = Mesh::new(&options.trust_domain, authority.fingerprint());
    let tokens = Tokens::open(&options.data, mesh)?;
    let server = Server::new(&authority, &names).map_err(StartError::ServerCertificate)?;

    let rest_listener = listen("REST", options.listen, "--listen").await?;
    let stream_listener = listen("the stream", options.stream, "--stream").await?;
    let address = |listener: &TcpListener, wanted| listener.local_addr().unwrap_or(wanted);
    let rest = address(&rest_listener, options.listen);
    let stream = address(&stream_listener, options.stream);
    if !rest.ip().is_loopback() {
        tracing::warn!("REST on {rest} asks nobody who they are: whoever reaches it controls the mesh");
    }

    let nodes = Nodes::default();
    let leaf_lifetime = options.leaf_lifetime;
    let shared = Arc::new(Shared { store, nodes, tokens, authority, leaf_lifetime, names });
    let (stop, stopping) = watch::channel(false);
    let (waited_for, ended) = mpsc::channel(1);
    let running = Running { stop: stopping, _waited_for: waited_for };
    let (mut until, alive) = (running.clone(), running.clone());
    let serve = axum::serve(rest_listener, rest::router(shared.clone()))
        .with_graceful_shutdown(async move { until.stopped().await });
    tokio::spawn(async move {
        if let Err(error) = serve.await {
            tracing::error!(%error, "REST has ended");
        }
        drop(alive);
    });
    tokio::spawn(stream::serve(stream_listener, shared.clone(), server, running));
    Ok(ControlApi { shared, rest, stream, stop, ended })
}

/// Takes the data directory for this process, then reads what is in it.
fn open(options: &Options) -> Result<(Store, Authority), StartError> {
    if format!("spiffe://{}/node", options.trust_domain).parse::<SpiffeId>().is_err() {
        return Err(StartError::TrustDomain(options.trust_domain.clone()));
    }
    if options.leaf_lifetime < Duration::from_secs(1) {
        return Err(StartError::LeafLifetime);
    }
    data::prepare(&options.data)?;
    let store = Store::open(&options.data.join(data::STORE))?;
    // One that cannot be read is from a start that was cut off: nobody has a token of it yet.
    if let Ok(known) = Mesh::of(&options.data)
        && known.trust_domain != options.trust_domain
    {
        return Err(StartError::OtherTrustDomain {
            path: options.data.clone(),
            known: known.trust_domain,
            given: options.trust_domain.clone(),
        });
    }
    let authority = root::authority(&options.data, options.root.as_ref(), &options.trust_domain)?;
    Ok((store, authority))
}

async fn listen(
    what: &'static str,
    address: SocketAddr,
    flag: &'static str,
) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|reason| StartError::Listen { what, address, flag, reason })
}

impl ControlApi {
    /// Where REST listens.
    pub const fn rest(&self) -> SocketAddr {
        self.rest
    }

    /// Where the stream and signing listen.
    pub const fn stream(&self) -> SocketAddr {
        self.stream
    }

    /// A token for `node`, good for `ttl` from now, that gives it the identity `id`, or
    /// `spiffe://TRUST-DOMAIN/node/NAME`.
    ///
    /// # Errors
    /// If the identity is of another trust domain, or the time makes no sense.
    pub fn token(&self, node: &Name, id: Option<&SpiffeId>, ttl: Duration) -> Result<String, TokenError> {
        self.shared.tokens.issue(node, id, ttl, SystemTime::now()).map(|(token, _)| token)
    }

    /// Puts `resources`, which are all different objects, as one change. Answers the store's revision with them in it.
    ///
    /// # Errors
    /// If the disk refuses.
    pub async fn put(&self, resources: impl IntoIterator<Item = Resource>) -> Result<u64, WriteError> {
        let puts = resources.into_iter().map(|resource| Change::Put(Arc::new(resource), Condition::Any));
        let outcomes = self.shared.store.write(puts.collect()).await?;
        Ok(outcomes.iter().map(|outcome| outcome.revision).max().unwrap_or_else(|| self.revision()))
    }

    /// Deletes an object. Answers the store's revision without it.
    ///
    /// # Errors
    /// If it is not there, or the disk refuses.
    pub async fn delete(&self, key: Key) -> Result<u64, WriteError> {
        let outcomes: Vec<Outcome> =
            self.shared.store.write(vec![Change::Delete(key, Condition::Any)]).await?;
        Ok(outcomes.first().map_or_else(|| self.revision(), |outcome| outcome.revision))
    }

    /// The store's revision.
    pub fn revision(&self) -> u64 {
        self.shared.store.world().revision
    }

    /// The nodes that are connected, or were within the last hour.
    pub fn nodes(&self) -> Vec<NodeStatus> {
        self.shared.nodes.list(self.revision())
    }

    /// Waits until `what` holds for the nodes.
    pub async fn wait_for_nodes(&self, mut what: impl FnMut(&[NodeStatus]) -> bool) {
        let mut news = self.shared.nodes.watch();
        while !what(&self.nodes()) {
            if news.changed().await.is_err() {
                return;
            }
        }
    }

    /// The root certificate, PEM: what the mesh trusts.
    pub fn bundle_pem(&self) -> String {
        self.shared.authority.cert_pem()
    }

    /// Stops listening, ends the streams, lets requests in flight end, and gives the data directory free.
    pub async fn shutdown(mut self) {
        // Nobody may be listening any more.
        let _ = self.stop.send(true);
        // Nothing is ever sent: this resolves when the last task has dropped its end.
        if tokio::time::timeout(SHUTDOWN_GRACE, self.ended.recv()).await.is_err() {
            tracing::warn!("requests in flight were cut off");
        }
        self.shared.store.close().await;
    }
}

//! The one task that makes every change live: of the configuration, of certificates, of this node's identity, of the
//! addresses behind names. Each makes one new table, and the workers go over to it before the change is acknowledged.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use outrigger_certs::{Identity, mesh};
use outrigger_config::listener::Direction;
use outrigger_config::{Kind, Listener, Name, Resource, Spec};
use outrigger_control::message::Refusal;
use outrigger_telemetry::Metrics;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, info};

use crate::admin::Readiness;
use crate::drain::Opens;
use crate::files;
use crate::listeners::{self, Given, Sockets};
use crate::resolve::Addresses;
use crate::secrets::{self, Secrets};
use crate::source::{ConfigFile, Event};
use crate::state::{Doubt, Ingredients, Live, Node, hosts};
use crate::watch::Follower;
use crate::worker::{self, Order};
use outrigger_config::snapshot::Snapshot;

/// How long the first table waits for the names in it.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a change waits for names that it is the first to use, so that everything else in it is live within 100 ms.
/// A backend whose name takes longer answers 503 until it is found.
const CHANGE_PATIENCE: Duration = Duration::from_millis(50);
/// How often an address is tried again that could not be listened on.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// After how long it is looked at first, and at most, whether somebody still has a table of before.
const LOOK_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];

/// The listeners for captured traffic that a sidecar has by itself.
pub(crate) const CAPTURED_INBOUND: &str = "inbound";
pub(crate) const CAPTURED_OUTBOUND: &str = "outbound";

/// Says a line to whoever runs the proxy.
pub(crate) type Tell = Arc<dyn Fn(&str) + Send + Sync>;

/// The table that is live, for whoever asks from outside.
pub(crate) type Published = Arc<Mutex<Option<Arc<Live>>>>;

/// The table that is live now; `None` before the first.
pub(crate) fn current(published: &Published) -> Option<Arc<Live>> {
    published.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What the director works with.
pub(crate) struct Means {
    /// The zone that this node is said to be in.
    pub(crate) zone: Option<Name>,
    pub(crate) metrics: Metrics,
    pub(crate) orders: Vec<mpsc::Sender<Order>>,
    pub(crate) published: Published,
    /// Told when another table is.
    pub(crate) adopted: Arc<Notify>,
    pub(crate) ready: watch::Sender<Readiness>,
    pub(crate) addresses: watch::Receiver<Addresses>,
    pub(crate) wanted: watch::Sender<BTreeSet<Arc<str>>>,
    /// Takes what cannot be connected to.
    pub(crate) doubt: Doubt,
    pub(crate) follower: Follower,
    /// Where it listens.
    pub(crate) announce: Tell,
    /// What is wrong.
    pub(crate) complain: Tell,
}

/// Makes changes live.
pub(crate) struct Director {
    means: Means,
    /// The folder that relative paths are taken from.
    folder: PathBuf,
    file: Option<ConfigFile>,
    /// The addresses on which captured traffic arrives.
    captured: Option<Captured>,
    revision: u64,
    /// Whether the source has said what the configuration is.
    configured: bool,
    resources: Vec<Arc<Resource>>,
    /// How many objects the source refused.
    rejected: usize,
    node: Node,
    secrets: Secrets,
    sockets: BTreeMap<Name, Arc<Sockets>>,
    /// Sockets that were open before this process, for listeners that may come to want them.
    pub(crate) given: Vec<Given>,
    /// For whom listeners are opened that are not open yet.
    pub(crate) opens: Rc<Cell<Opens>>,
    announced: BTreeSet<(Name, SocketAddr)>,
    /// Tables of before, kept until nobody else has them: a worker that had one last would stand still while it takes it
    /// apart.
    replaced: Vec<Arc<Live>>,
    /// After how long it is looked which of them nobody has.
    look_after: Duration,
    /// What could not be made live last time, so that it is said once.
    problems: Vec<Refusal>,
}

/// A table that has been made, and not handed out.
pub(crate) struct Made {
    live: Arc<Live>,
    /// What could not be made of the configuration.
    problems: Vec<Refusal>,
}

/// The addresses on which captured traffic arrives.
#[derive(Debug, Clone, Copy)]
pub struct Captured {
    /// What the application sends.
    pub outbound: SocketAddr,
    /// What it receives.
    pub inbound: SocketAddr,
}

impl Director {
    pub(crate) fn new(
        means: Means,
        node: Option<Name>,
        file: Option<ConfigFile>,
        captured: Option<Captured>,
    ) -> Self {
        let folder = file.as_ref().and_then(|file| file.path()?.parent()).unwrap_or(Path::new("")).to_owned();
        let zone = means.zone.clone();
        Self {
            means,
            folder,
            file,
            captured,
            revision: 0,
            configured: false,
            resources: Vec::new(),
            rejected: 0,
            node: Node { name: node, zone, captured: captured.is_some(), ..Node::default() },
            secrets: Secrets::default(),
            sockets: BTreeMap::new(),
            given: Vec::new(),
            opens: Rc::default(),
            announced: BTreeSet::new(),
            replaced: Vec::new(),
            look_after: LOOK_AFTER[0],
            problems: Vec::new(),
        }
    }

    /// Follows every source, until it turns out that nothing will ever come of it.
    pub(crate) async fn run(
        &mut self,
        mut events: mpsc::UnboundedReceiver<Event>,
        mut files: mpsc::Receiver<()>,
    ) {
        let mut bind = tokio::time::Instant::now() + BIND_AGAIN;
        loop {
            let again = self.problems.iter().any(|problem| problem.kind == Kind::Listener.as_str());
            tokio::select! {
                Some(event) = events.recv() => {
                    if self.hear(event).await.is_break() {
                        return;
                    }
                }
                Some(()) = files.recv() => {
                    self.reread();
                    self.go_live().await;
                }
                Ok(()) = self.means.addresses.changed() => self.go_live().await,
                () = tokio::time::sleep_until(bind), if again => self.go_live().await,
                () = tokio::time::sleep(self.look_after), if !self.replaced.is_empty() => {
                    self.take_apart();
                    self.look_after = (self.look_after * 2).min(LOOK_AFTER[1]);
                    continue;
                }
            }
            bind = tokio::time::Instant::now() + BIND_AGAIN;
        }
    }

    async fn hear(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Resources { revision, resources, rejected, done } => {
                self.revision = revision;
                self.configured = true;
                self.resources = resources;
                self.rejected = rejected;
                self.go_live().await;
                let _ = done.send(self.problems.clone());
            }
            Event::Identity(identity) => {
                self.take_identity(identity);
                // Alone it is no configuration: a node with nothing else is not ready.
                if self.configured {
                    self.go_live().await;
                }
            }
            Event::Connected(up) => self.means.metrics.control_connected.set(i64::from(up)),
            Event::Failed(why) => {
                (self.means.complain)(&why);
                self.means.ready.send_replace(Readiness::NotReady(why.into()));
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Takes up what the file says now.
    pub(crate) fn reread(&mut self) {
        let Some(file) = &mut self.file else { return };
        if self.revision > 0 {
            let began = Instant::now();
            file.reload(&*self.means.complain);
            debug!(took = ?began.elapsed(), "the file is read");
        }
        self.revision = file.revision;
        self.configured = true;
        self.resources = file.resources();
        self.rejected = file.rejected;
        if let Some(files) = file.identity.clone() {
            match self.secrets.identity(&self.folder, &files) {
                Ok(Some(identity)) => self.take_identity(identity),
                Ok(None) => {}
                Err(why) => {
                    self.rejected += 1;
                    (self.means.complain)(&why);
                }
            }
        }
    }

    fn take_identity(&mut self, identity: Arc<Identity>) {
        self.means
            .metrics
            .certificate_expiry
            .with_label_values(&["identity"])
            .set(crate::secrets::unix_seconds(identity.not_after()));
        self.node.mesh = Some(mesh::server_config(&identity));
        self.node.identity = Some(identity);
    }

    /// Makes what is known now one table, and has every worker act on it.
    pub(crate) async fn go_live(&mut self) {
        let began = Instant::now();
        let made = self.make().await;
        debug!(took = ?began.elapsed(), "a table is made");
        self.hand_out(made).await;
        debug!(took = ?began.elapsed(), "and acted on");
    }

    /// Makes what is known now one table. Its listeners are bound; nothing is accepted on those that are new.
    pub(crate) async fn make(&mut self) -> Made {
        let mut resources = self.resources.clone();
        self.add_captured(&mut resources);
        let began = Instant::now();
        let snapshot = Snapshot::build(self.revision, resources);
        debug!(took = ?began.elapsed(), "a snapshot is laid out");
        self.means.follower.set(self.files(&snapshot));
        let mut problems = self.secrets.load(&self.folder, &snapshot, &self.means.metrics);
        self.resolve(&snapshot).await;
        problems.extend(files::refused(&snapshot, self.file.is_some().then_some(&self.folder)));
        problems.extend(self.bind(&snapshot));
        let before = self.published();
        let addresses = self.means.addresses.borrow_and_update().clone();
        let live = Arc::new(Live::build(
            snapshot,
            &Ingredients {
                before: before.as_deref(),
                node: self.node.clone(),
                addresses: &addresses,
                sockets: &self.sockets,
                tls: &self.secrets.listeners,
                origins: &self.secrets.origins,
                metrics: &self.means.metrics,
                doubt: &self.means.doubt,
                folder: self.file.is_some().then_some(&self.folder),
            },
        ));
        Made { live, problems }
    }

    /// Has every worker act on a table.
    pub(crate) async fn hand_out(&mut self, Made { live, problems }: Made) {
        worker::ask(&self.means.orders, |done| Order::Live(live.clone(), done)).await;
        let before = self.means.published.lock().unwrap_or_else(PoisonError::into_inner).replace(live);
        self.take_apart();
        self.replaced.extend(before);
        self.look_after = LOOK_AFTER[0];
        self.means.adopted.notify_one();
        self.report(problems);
    }

    /// Takes apart the tables of before that nobody else has.
    fn take_apart(&mut self) {
        self.replaced.retain(|live| Arc::strong_count(live) > 1);
    }

    /// What keeps a table from being all that the configuration says; empty if nothing does.
    pub(crate) fn lacks(&self, made: &Made) -> Vec<String> {
        let mut lacks: Vec<_> = made.problems.iter().map(line).collect();
        if self.rejected > 0 {
            lacks.push(format!("{} of its objects cannot be used, as said above", self.rejected));
        }
        lacks
    }

    /// Has the sockets take connections that were only reserved.
    pub(crate) fn listen(&self) {
        for (name, sockets) in &self.sockets {
            if let Err(error) = sockets.listen() {
                (self.means.complain)(&format!("Listener {name}: a worker cannot listen: {error}"));
            }
        }
    }

    /// The listeners for captured traffic, unless the configuration has its own by these names.
    fn add_captured(&self, resources: &mut Vec<Arc<Resource>>) {
        let Some(captured) = self.captured else { return };
        for (name, address, direction) in [
            (CAPTURED_OUTBOUND, captured.outbound, Direction::Outbound),
            (CAPTURED_INBOUND, captured.inbound, Direction::Inbound),
        ] {
            let taken = resources.iter().any(|r| r.kind() == Kind::Listener && r.name.as_str() == name);
            if !taken && let Ok(name) = name.parse() {
                let spec = Spec::Listener(Arc::new(Listener::captured(address, direction)));
                resources.push(Arc::new(Resource { name, spec }));
            }
        }
    }

    fn files(&self, snapshot: &Snapshot) -> BTreeSet<PathBuf> {
        let mut files = Secrets::files(&self.folder, snapshot);
        if let Some(file) = &self.file {
            files.extend(file.path().map(Path::to_owned));
            let identity = file.identity.iter().flat_map(|i| [&i.chain, &i.key, &i.trust]);
            files.extend(identity.map(|path| self.folder.join(path)));
        }
        files
    }

    /// Waits, for a while, for the names that have not been looked up yet.
    async fn resolve(&mut self, snapshot: &Snapshot) {
        let hosts: BTreeSet<Arc<str>> = hosts(snapshot).collect();
        self.means.wanted.send_if_modified(|wanted| {
            let changed = *wanted != hosts;
            wanted.clone_from(&hosts);
            changed
        });
        let known = |addresses: &Addresses| hosts.iter().all(|host| addresses.contains_key(host));
        let patience = if self.published().is_none() { RESOLVE_PATIENCE } else { CHANGE_PATIENCE };
        let _ = tokio::time::timeout(patience, self.means.addresses.wait_for(known)).await;
    }

    fn bind(&mut self, snapshot: &Snapshot) -> Vec<Refusal> {
        let able = |name: &Name, spec: &Listener| {
            secrets::terminated(spec).is_none() || self.secrets.listeners.contains_key(name)
        };
        let open = |name: &Name, spec: &Listener| match self.opens.get() {
            Opens::Everybody => true,
            Opens::Application if spec.direction == Direction::Outbound => true,
            Opens::Application | Opens::Nobody => {
                self.sockets.get(name).is_some_and(|sockets| sockets.are_on(spec.address))
            }
        };
        let wanted: Vec<_> = snapshot
            .listeners
            .iter()
            .filter(|l| able(&l.name, &l.spec) && open(&l.name, &l.spec))
            .map(|l| (&l.name, &*l.spec))
            .collect();
        let workers = self.means.orders.len();
        let refused = listeners::bind(&mut self.sockets, &mut self.given, wanted.into_iter(), workers);
        let refusal = |(name, error): (Name, outrigger_net::listen::BindError)| Refusal {
            kind: Kind::Listener.as_str().into(),
            name,
            field: "address".into(),
            reason: error.to_string(),
        };
        refused.into_iter().map(refusal).collect()
    }

    /// Says what has changed: where it listens, what could not be made live.
    fn report(&mut self, problems: Vec<Refusal>) {
        for problem in problems.iter().filter(|problem| !self.problems.contains(problem)) {
            (self.means.complain)(&line(problem));
        }
        let now: BTreeSet<_> = self.sockets.iter().map(|(name, s)| (name.clone(), s.local)).collect();
        for (name, address) in now.difference(&self.announced) {
            (self.means.announce)(&format!("listener {name} on {address}"));
        }
        for (name, address) in self.announced.difference(&now) {
            (self.means.announce)(&format!("listener {name} no longer on {address}"));
        }
        self.announced = now;
        let metrics = &self.means.metrics;
        metrics.config_rejected.set((self.rejected + problems.len()) as i64);
        metrics.config_revision.set(self.revision as i64);
        metrics.config_applied.set(crate::secrets::unix_seconds(std::time::SystemTime::now()));
        self.problems = problems;
        info!(revision = self.revision, "configuration is live");
        self.means.ready.send_if_modified(|ready| {
            let first = *ready == Readiness::NotReady(STARTING.into());
            if first {
                *ready = Readiness::Ready;
                metrics.ready.set(1);
            }
            first
        });
    }

    fn published(&self) -> Option<Arc<Live>> {
        current(&self.means.published)
    }

    /// Lets go of sockets of the process before that no listener wants, and says which of the service manager's none does:
    /// they stay open, for one that may come to want them.
    pub(crate) fn say_unwanted(&mut self) {
        self.given.retain(|given| given.asked.is_none());
        for Given { name, local, .. } in &self.given {
            (self.means.complain)(&format!(
                "no listener wants the socket {name:?} on {local} that was opened for this process; \
                 one with this address or name would"
            ));
        }
    }

    /// Whether there are listeners, and none of them could be opened.
    pub(crate) fn is_deaf(&self) -> bool {
        let any = self.problems.iter().any(|problem| problem.kind == Kind::Listener.as_str());
        any && self.sockets.is_empty()
    }

    /// Says what somebody has to look at.
    pub(crate) fn complain(&self, line: &str) {
        (self.means.complain)(line);
    }

    /// Whether a listener is open.
    pub(crate) fn listens(&self) -> bool {
        !self.sockets.is_empty()
    }

    /// What could not be made live.
    pub(crate) fn problems(&self) -> &[Refusal] {
        &self.problems
    }
}

/// A problem as it is said.
fn line(Refusal { kind, name, field, reason }: &Refusal) -> String {
    format!("{kind} {name}: {field}: {reason}")
}

/// Why a proxy that has just been started is not ready.
pub(crate) const STARTING: &str = "no configuration is live yet";

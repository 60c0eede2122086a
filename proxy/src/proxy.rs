//! A proxy as a value: started, asked where it listens, drained and stopped.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use outrigger_config::Name;
use outrigger_net::activation::Activated;
use outrigger_net::listen;
use outrigger_telemetry::{AccessLog, LogControl, Metrics};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::admin::Readiness;
use crate::director::{Captured, Director, Means, Published, STARTING, Tell};
use crate::drain::{End, Leaving, Terms};
use crate::faces::{self, Answering, Places, Shown, interface};
use crate::health::{self, Findings};
use crate::listeners::Given;
use crate::memory::{Memory, MemoryLimit};
use crate::resolve::Resolver;
use crate::source::{ConfigFile, Event, follow_control};
use crate::state::Doubt;
use crate::takeover::{Claim, Door, Shop, UpgradeError};
use crate::watch::Follower;
use crate::{limits, threads, worker};

/// Where a proxy gets its configuration from.
#[derive(Debug)]
pub enum Source {
    /// A file, followed as it changes.
    File(PathBuf),
    /// What would be in a file, and does not change. The files that it names are followed.
    Text(String),
    /// The control API.
    Control(outrigger_control::Options),
}

/// How a proxy is run.
pub struct Options {
    /// Where its configuration comes from.
    pub source: Source,
    /// How many workers; `None`: as many as the processors that it may use.
    pub workers: Option<usize>,
    /// Where the admin interface listens, which must be loopback; `None`: as the file says, else 127.0.0.1:15000.
    pub admin: Option<SocketAddr>,
    /// Where Prometheus finds the metrics, and nothing else.
    pub metrics: Option<SocketAddr>,
    /// Where the kubelet finds `/healthz/ready`, and nothing else.
    pub ready: Option<SocketAddr>,
    /// Where captured traffic arrives.
    pub captured: Option<Captured>,
    /// The zone that this node is in; `None`: that of its own endpoints.
    pub zone: Option<Name>,
    /// How long connections are still accepted after the end was announced.
    pub drain_delay: Duration,
    /// How long what is under way may take after that, and the application, for which outbound listeners stay open.
    pub drain_grace: Duration,
    /// How much memory it may use.
    pub memory: MemoryLimit,
    /// How long the application must have had no connection open before it is taken to be gone; `None`: outbound
    /// listeners close with the others.
    pub drain_quiet: Option<Duration>,
    /// A Unix socket: the listening sockets of the proxy that is found there are taken over, and the next one finds this
    /// proxy there. For a proxy from a file.
    pub upgrade: Option<PathBuf>,
    /// Listening sockets that were opened for this process.
    pub activated: Vec<Activated>,
    /// Where requests are logged.
    pub access_log: AccessLog,
    /// The level of the diagnostics, read and set by the admin interface.
    pub log: LogControl,
    /// Told, line by line, where the proxy listens.
    pub announce: Tell,
    /// Told, line by line, what is wrong.
    pub complain: Tell,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Options {
    /// A proxy within a process: any port for the admin interface, one worker, no limit of memory, no access log, no word to
    /// anybody.
    pub fn quiet(source: Source) -> Self {
        Self {
            source,
            workers: Some(1),
            admin: Some((Ipv4Addr::LOCALHOST, 0).into()),
            metrics: None,
            ready: None,
            captured: None,
            zone: None,
            drain_delay: Duration::ZERO,
            drain_grace: Duration::from_secs(10),
            memory: MemoryLimit::Off,
            drain_quiet: None,
            upgrade: None,
            activated: Vec::new(),
            access_log: AccessLog::off(),
            log: LogControl::detached(),
            announce: Arc::new(|_| ()),
            complain: Arc::new(|_| ()),
        }
    }
}

/// Why a proxy could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The configuration file is not YAML, or not a configuration at all.
    #[error("{}:{line}:{column}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Where in it, from 1.
        line: u32,
        /// Where in the line, from 1.
        column: u32,
        /// What is wrong.
        reason: String,
    },
    /// An address of the proxy's own cannot be listened on.
    #[error("{what}: {source}{hint}")]
    Listen {
        /// What was to listen there.
        what: &'static str,
        /// Why not.
        source: listen::BindError,
        /// What to do.
        hint: &'static str,
    },
    /// The admin interface may only be reached from this machine: it is not authenticated.
    #[error(
        "the admin interface is not authenticated, and listens on loopback alone: {0} is not; use 127.0.0.1"
    )]
    ExposedAdmin(SocketAddr),
    /// None of the listeners could be opened.
    #[error("none of the listeners could be opened:\n{0}")]
    Deaf(String),
    /// Nobody wanted it any more before it began to accept.
    #[error("ended before it had started")]
    Unwanted,
    /// The running proxy could not be replaced.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// The system refuses a thread or a runtime.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Where a proxy listens for those who watch over it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Addresses {
    /// The admin interface.
    pub admin: Option<SocketAddr>,
    /// The metrics alone.
    pub metrics: Option<SocketAddr>,
    /// The readiness alone.
    pub ready: Option<SocketAddr>,
}

/// A running proxy. Dropped, it ends at once; [`Proxy::stop`] drains it first.
#[derive(Debug)]
pub struct Proxy {
    addresses: Addresses,
    published: Published,
    ready: watch::Receiver<Readiness>,
    metrics: Metrics,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<Ended>>,
    threads: Vec<JoinHandle<()>>,
}

/// How a proxy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it was told to, by whoever runs it, over the admin interface, or by the process that took its place.
    Told,
    /// Nothing can come of it any more; why was said.
    Failed,
}

/// Starts a proxy. From a file, it listens when this returns; from the control API, it may still wait for a
/// configuration: see [`Proxy::ready`].
///
/// # Errors
/// [`StartError`]: nothing is left running. Nor is it if this is not waited for to the end.
pub async fn start(options: Options) -> Result<Proxy, StartError> {
    start_unless(options, std::future::pending()).await
}

/// The same, unless it turns out to be unwanted before it begins to accept: [`StartError::Unwanted`]. From then on it is to
/// be stopped in order.
pub(crate) async fn start_unless(
    options: Options,
    unwanted: impl Future<Output = ()> + Send + 'static,
) -> Result<Proxy, StartError> {
    let workers = options.workers.unwrap_or_else(threads::workers).max(1);
    let metrics = Metrics::new(workers);
    metrics.show_access_log(&options.access_log);
    let memory = Memory::find(options.memory, workers);
    let mut running = Threads::default();
    let mut orders = Vec::new();
    for index in 0..workers {
        let (sender, receiver) = mpsc::channel(16);
        orders.push(sender);
        let (metrics, log) = (metrics.clone(), options.access_log.clone());
        let budget = memory.budget.clone();
        running.0.push(threads::spawn(format!("worker-{index}"), move || async move {
            // Bound to the thread that uses them.
            let (cells, buffer) = (metrics.worker(index), log.buffer());
            worker::run(index, cells, buffer, budget, receiver).await;
        })?);
    }
    let published = Published::default();
    let (ready, readiness) = watch::channel(Readiness::NotReady(STARTING.into()));
    let (stop, stopped) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let (mut started, outcome) = oneshot::channel();
    let control = {
        let (metrics, published) = (metrics.clone(), published.clone());
        let followed = metrics.clone();
        move || async move {
            let accepts = Cell::new(false);
            let given_up = async {
                tokio::select! {
                    () = unwanted => {}
                    () = started.closed() => {}
                }
                if accepts.get() {
                    std::future::pending::<()>().await;
                }
            };
            let begun = tokio::select! {
                begun = begin(options, orders, metrics, published, ready, &accepts) => begun,
                () = given_up => Err(StartError::Unwanted),
            };
            let (addresses, control) = match begun {
                Ok(begun) => begun,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            if started.send(Ok(addresses)).is_ok() {
                tokio::spawn(memory.follow(followed));
                let _ = end.send(control.run(stopped).await);
            }
        }
    };
    running.0.push(threads::spawn("control".into(), control)?);
    let addresses = match outcome.await {
        Ok(outcome) => outcome?,
        Err(_) => return Err(StartError::System(io::Error::other("the control thread ended"))),
    };
    Ok(Proxy {
        addresses,
        published,
        ready: readiness,
        metrics,
        stop: Some(stop),
        ended: Some(ended),
        threads: std::mem::take(&mut running.0),
    })
}

/// The threads of a proxy that is being started. They end by themselves if that comes to nothing, and are waited for.
#[derive(Default)]
struct Threads(Vec<JoinHandle<()>>);

impl Drop for Threads {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What runs on the control thread.
struct Control {
    director: Director,
    events: mpsc::UnboundedReceiver<Event>,
    files: mpsc::Receiver<()>,
    leaving: Leaving,
    /// Tells the admin interface that another process answers.
    replaced: watch::Sender<bool>,
    upgrade: Option<(Door, Shop)>,
    /// What answers those who watch over the proxy.
    answering: Answering,
    announce: Tell,
}

impl Control {
    async fn run(self, stopped: oneshot::Receiver<()>) -> Ended {
        let Self { mut director, events, files, leaving, replaced, upgrade, answering, announce } = self;
        // Changes go live to the end: the application is served until then.
        let mut directing = std::pin::pin!(director.run(events, files));
        let next = async {
            match &upgrade {
                Some((door, shop)) => door.replaced(shop).await,
                None => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            stop = stopped => if stop.is_ok() { End::Told } else { End::Dropped },
            () = leaving.told() => {
                announce("told that the application is gone; ending once what is under way is done");
                End::Told
            }
            process = next => {
                announce(&format!("process {process} has taken over; ending once what is under way is done"));
                End::Replaced
            }
            () = &mut directing => return Ended::Failed,
        };
        // Whoever comes now starts afresh.
        drop(upgrade);
        replaced.send_replace(end == End::Replaced);
        let mut ending = std::pin::pin!(leaving.run(end));
        tokio::select! {
            () = &mut ending => {}
            () = directing => ending.await,
        }
        if end == End::Replaced {
            answering.ended().await;
        }
        Ended::Told
    }
}

/// Brings up everything on the control thread, and the first configuration if it comes from a file.
async fn begin(
    options: Options,
    orders: Vec<mpsc::Sender<worker::Order>>,
    metrics: Metrics,
    published: Published,
    ready: watch::Sender<Readiness>,
    accepts: &Cell<bool>,
) -> Result<(Addresses, Control), StartError> {
    let (events, heard) = mpsc::unbounded_channel();
    let (follower, files) = Follower::start();
    if let Source::File(path) = &options.source {
        // Before it is read: it may change while this process waits for another to hand over its sockets.
        follower.set([path.clone()].into());
    }
    let (node, file, doubted_control) = follow(options.source, &*options.complain, &events)?;
    let (mut claim, door) = upgrade(options.upgrade.as_deref()).await?;
    let mut given: Vec<Given> = options.activated.into_iter().map(Given::from).collect();
    given.extend(claim.iter_mut().flat_map(|claim| claim.listeners.drain(..)));
    let admin = options.admin.or(file.as_ref().and_then(|file| file.admin));
    let places = Places { admin, metrics: options.metrics, ready: options.ready };
    let faces = faces::open(places, claim.as_mut().map(|claim| &mut claim.own), &mut given)?;
    let (quit, gone) = watch::channel(false);
    let replaced = watch::Sender::new(false);
    let (adopted, findings) = (Arc::<Notify>::default(), Findings::default());
    let (metrics_too, published_too, findings_too) = (metrics.clone(), published.clone(), findings.clone());
    let shown = Shown { metrics: metrics_too, published: published_too, findings: findings_too };
    let interface = interface(shown, ready.subscribe(), options.log, quit, replaced.subscribe());
    let interface = Arc::new(interface);
    let mut answering = None;
    if claim.is_none() {
        answering = Some(faces::answer(&interface, &faces, &options.announce)?);
        door.as_ref().map_or(Ok(()), Door::put)?;
    }
    show_endpoints(&metrics, &published, &findings);
    limits::Collect::add(&metrics, &published);
    tokio::task::spawn_local(health::tend(published.clone(), adopted.clone(), findings));
    let (wanted, names) = watch::channel(std::collections::BTreeSet::new());
    let (doubt, doubted) = mpsc::channel(64);
    let from_file = file.is_some();
    let means = Means {
        metrics: metrics.clone(),
        orders: orders.clone(),
        published: published.clone(),
        adopted,
        ready: ready.clone(),
        addresses: Resolver::system().start(names, doubted),
        wanted,
        doubt: Doubt { names: doubt, control: doubted_control },
        follower,
        announce: options.announce.clone(),
        complain: options.complain.clone(),
        zone: options.zone,
    };
    let mut director = Director::new(means, node, file, options.captured);
    director.given = given;
    if from_file {
        first(&mut director, claim.as_ref(), accepts).await?;
    }
    if let Some(claim) = claim {
        answering = Some(faces::answer(&interface, &faces, &options.announce)?);
        in_place(claim, door.as_ref(), &options.announce, &options.complain).await;
    }
    let (addresses, answering) = answering.unwrap_or_default();
    let complain = options.complain;
    let (orders_too, published_too) = (orders.clone(), published.clone());
    let shop = Shop { orders: orders_too, published: published_too, faces, complain: complain.clone() };
    let terms = Terms { delay: options.drain_delay, grace: options.drain_grace, quiet: options.drain_quiet };
    let opens = director.opens.clone();
    let leaving = Leaving { terms, orders, published, ready, metrics, gone, opens, complain };
    let upgrade = door.map(|door| (door, shop));
    let announce = options.announce;
    let control = Control { director, events: heard, files, leaving, replaced, upgrade, answering, announce };
    Ok((addresses, control))
}

/// What is known of a source once it is followed: the node's name, the file, and who hears of doubts in what it said.
type Followed = (Option<Name>, Option<ConfigFile>, Option<Arc<Notify>>);

/// Reads a file, or begins to follow the control API.
fn follow(
    source: Source,
    complain: &dyn Fn(&str),
    events: &mpsc::UnboundedSender<Event>,
) -> Result<Followed, StartError> {
    Ok(match source {
        Source::File(path) => (None, Some(ConfigFile::open(path, complain)?), None),
        Source::Text(text) => (None, Some(ConfigFile::of_text(&text, complain)?), None),
        Source::Control(control) => {
            let (node, doubts) = (control.node.clone(), Arc::<Notify>::default());
            tokio::spawn(follow_control(control, events.clone(), doubts.clone()));
            (Some(node), None, Some(doubts))
        }
    })
}

/// Adds what is known of endpoints to the metrics.
fn show_endpoints(metrics: &Metrics, published: &Published, findings: &Findings) {
    let added = health::Collect::new(published.clone(), findings.clone())
        .and_then(|collect| metrics.registry().register(Box::new(collect)));
    if let Err(error) = added {
        tracing::warn!(%error, "the metrics of endpoints are left out");
    }
}

/// Finds the process to be replaced, and makes the place where the next one finds this one.
async fn upgrade(path: Option<&Path>) -> Result<(Option<Claim>, Option<Door>), UpgradeError> {
    let Some(path) = path else { return Ok((None, None)) };
    let claim = Claim::make(path).await?;
    Ok((claim, Some(Door::make(path)?)))
}

/// Tells the process that is replaced so, and is found in its place.
async fn in_place(claim: Claim, door: Option<&Door>, announce: &Tell, complain: &Tell) {
    let before = claim.pid;
    claim.accepting().await;
    if let Some(error) = door.and_then(|door| door.put().err()) {
        complain(&format!("{error}; the next upgrade will not find this process"));
    }
    announce(&format!("takes over from process {before}"));
}

/// Makes the configuration of a file live. Where another process is replaced, only if nothing of it is lacking.
async fn first(
    director: &mut Director,
    claim: Option<&Claim>,
    accepts: &Cell<bool>,
) -> Result<(), StartError> {
    director.reread();
    let made = director.make().await;
    if let Some(claim) = claim {
        let lacks = director.lacks(&made);
        if !lacks.is_empty() {
            return Err(UpgradeError::Lacking(lacks.join("\n")).into());
        }
        claim.ready().await?;
        director.listen();
    }
    accepts.set(true);
    director.hand_out(made).await;
    if director.is_deaf() {
        let why: Vec<_> = director.problems().iter().map(|problem| problem.reason.clone()).collect();
        return Err(StartError::Deaf(why.join("\n")));
    }
    if !director.listens() {
        director.complain("no listener is open: the file has none that can be used; once it has, they open");
    }
    director.say_unwanted();
    Ok(())
}

impl Proxy {
    /// Where it listens for those who watch over it.
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Where a listener listens now, by its name.
    pub fn listener(&self, name: &str) -> Option<SocketAddr> {
        let live = self.published.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let listener = live.listeners.iter().find(|listener| listener.name.as_str() == name)?;
        listener.sockets.as_ref().map(|sockets| sockets.local)
    }

    /// The revision of the configuration that is live; `None` before the first.
    pub fn revision(&self) -> Option<u64> {
        let live = self.published.lock().unwrap_or_else(PoisonError::into_inner).clone();
        live.map(|live| live.snapshot.revision)
    }

    /// Returns once it is ready: its first configuration is live. Also if it has ended by itself, and never will be.
    pub async fn ready(&self) {
        let mut ready = self.ready.clone();
        let _ = ready.wait_for(|ready| *ready == Readiness::Ready).await;
    }

    /// Its metrics, in Prometheus's text format.
    pub fn metrics(&self) -> String {
        self.metrics.encode()
    }

    /// Drains it, and returns once nothing of it is left: see [`Options::drain_delay`] and [`Options::drain_grace`].
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(ended) = self.ended.take() {
            let _ = ended.await;
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    /// Returns once it has ended without [`Proxy::stop`]: somebody asked for it at the admin interface, another process
    /// has taken over, or nothing can come of it.
    pub async fn ended(&mut self) -> Ended {
        let ended = match &mut self.ended {
            Some(ended) => ended.await.unwrap_or(Ended::Failed),
            None => Ended::Told,
        };
        self.ended = None;
        ended
    }
}

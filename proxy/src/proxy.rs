//! A proxy as a value: started, asked where it listens, drained and stopped.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use outrigger_config::Name;
use outrigger_config::explain::{Unexplained, explain};
use outrigger_net::listen;
use outrigger_telemetry::{AccessLog, LogControl, Metrics};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::admin::{Admin, Readiness, Surface};
use crate::director::{Captured, Director, Means, Published, STARTING, Tell};
use crate::health::{self, Findings};
use crate::resolve::Resolver;
use crate::source::{ConfigFile, Event, follow_control};
use crate::state::Doubt;
use crate::watch::Follower;
use crate::{threads, worker};

/// Where the admin interface is where nobody says.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

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
    /// How long what is under way may take after that.
    pub drain_grace: Duration,
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
    /// A proxy within a process: any port for the admin interface, one worker, no access log, no word to anybody.
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
    drain: Stop,
    stop: Option<oneshot::Sender<Stop>>,
    ended: Option<oneshot::Receiver<()>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy)]
struct Stop {
    delay: Duration,
    grace: Duration,
}

/// Starts a proxy. From a file, it listens when this returns; from the control API, it may still wait for a
/// configuration: see [`Proxy::ready`].
///
/// # Errors
/// [`StartError`]: nothing is left running.
pub async fn start(options: Options) -> Result<Proxy, StartError> {
    let workers = options.workers.unwrap_or_else(threads::workers).max(1);
    let metrics = Metrics::new(workers);
    metrics.show_access_log(&options.access_log);
    let mut running = Vec::new();
    let mut orders = Vec::new();
    for index in 0..workers {
        let (sender, receiver) = mpsc::channel(16);
        orders.push(sender);
        let (metrics, log) = (metrics.clone(), options.access_log.clone());
        running.push(threads::spawn(format!("worker-{index}"), move || async move {
            // Bound to the thread that uses them.
            let (cells, buffer) = (metrics.worker(index), log.buffer());
            worker::run(index, cells, buffer, receiver).await;
        })?);
    }
    let drain = Stop { delay: options.drain_delay, grace: options.drain_grace };
    let published = Published::default();
    let (ready, readiness) = watch::channel(Readiness::NotReady(STARTING.into()));
    let (stop, stopped) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let (started, outcome) = oneshot::channel();
    let control = {
        let (metrics, published) = (metrics.clone(), published.clone());
        move || async move {
            let begun = begin(options, orders, metrics, published, ready).await;
            let (addresses, control) = match begun {
                Ok(begun) => begun,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            if started.send(Ok(addresses)).is_ok() {
                control.run(stopped).await;
            }
            let _ = end.send(());
        }
    };
    running.push(threads::spawn("control".into(), control)?);
    let addresses = match outcome.await {
        Ok(outcome) => outcome?,
        Err(_) => return Err(StartError::System(io::Error::other("the control thread ended"))),
    };
    Ok(Proxy {
        addresses,
        published,
        ready: readiness,
        metrics,
        drain,
        stop: Some(stop),
        ended: Some(ended),
        threads: running,
    })
}

/// What runs on the control thread.
struct Control {
    director: Director,
    events: mpsc::UnboundedReceiver<Event>,
    files: mpsc::Receiver<()>,
}

impl Control {
    async fn run(mut self, stopped: oneshot::Receiver<Stop>) {
        let stop = tokio::select! {
            stop = stopped => stop,
            () = self.director.run(self.events, self.files) => return,
        };
        // Without a word the proxy was dropped: it ends at once.
        let Stop { delay, grace } = stop.unwrap_or(Stop { delay: Duration::ZERO, grace: Duration::ZERO });
        self.director.drain(delay, grace).await;
    }
}

/// Brings up everything on the control thread, and the first configuration if it comes from a file.
async fn begin(
    options: Options,
    orders: Vec<mpsc::Sender<worker::Order>>,
    metrics: Metrics,
    published: Published,
    ready: watch::Sender<Readiness>,
) -> Result<(Addresses, Control), StartError> {
    let (events, heard) = mpsc::unbounded_channel();
    let (mut node, mut doubted_control) = (None, None);
    let (mut file, mut admin) = (None, options.admin);
    match options.source {
        Source::File(path) => file = Some(ConfigFile::open(path, &*options.complain)?),
        Source::Text(text) => file = Some(ConfigFile::of_text(&text, &*options.complain)?),
        Source::Control(control) => {
            node = Some(control.node.clone());
            let doubts = Arc::<Notify>::default();
            tokio::spawn(follow_control(control, events.clone(), doubts.clone()));
            doubted_control = Some(doubts);
        }
    }
    admin = admin.or(file.as_ref().and_then(|file| file.admin));
    let surfaces = [
        (Surface::All, Some(admin.unwrap_or(ADMIN)), "admin"),
        (Surface::Metrics, options.metrics, "metrics"),
        (Surface::Ready, options.ready, "readiness"),
    ];
    let (adopted, findings) = (Arc::<Notify>::default(), Findings::default());
    let interface = Arc::new(interface(&metrics, &published, &findings, ready.subscribe(), options.log));
    let addresses = watch_over(&interface, surfaces, &options.announce)?;
    show_endpoints(&metrics, &published, &findings);
    tokio::task::spawn_local(health::tend(published.clone(), adopted.clone(), findings));
    let (follower, files) = Follower::start();
    let (wanted, names) = watch::channel(std::collections::BTreeSet::new());
    let (doubt, doubted) = mpsc::channel(64);
    let means = Means {
        metrics,
        orders,
        published,
        adopted,
        ready,
        addresses: Resolver::system().start(names, doubted),
        wanted,
        doubt: Doubt { names: doubt, control: doubted_control },
        follower,
        announce: options.announce,
        complain: options.complain,
        zone: options.zone,
    };
    let from_file = file.is_some();
    let mut director = Director::new(means, node, file, options.captured);
    if from_file {
        director.reread();
        director.go_live().await;
        if director.is_deaf() {
            let why: Vec<_> = director.problems().iter().map(|problem| problem.reason.clone()).collect();
            return Err(StartError::Deaf(why.join("\n")));
        }
        if !director.listens() {
            director
                .complain("no listener is open: the file has none that can be used; once it has, they open");
        }
    }
    Ok((addresses, Control { director, events: heard, files }))
}

/// Adds what is known of endpoints to the metrics.
fn show_endpoints(metrics: &Metrics, published: &Published, findings: &Findings) {
    let added = health::Collect::new(published.clone(), findings.clone())
        .and_then(|collect| metrics.registry().register(Box::new(collect)));
    if let Err(error) = added {
        tracing::warn!(%error, "the metrics of endpoints are left out");
    }
}

fn interface(
    metrics: &Metrics,
    published: &Published,
    findings: &Findings,
    ready: watch::Receiver<Readiness>,
    log: LogControl,
) -> Admin {
    let (seen, findings) = (published.clone(), findings.clone());
    let (metrics, published, set) = (metrics.clone(), published.clone(), log.clone());
    let explained = published.clone();
    Admin {
        ready,
        metrics: Box::new(move || metrics.encode()),
        config: Box::new(move || {
            let live = published.lock().unwrap_or_else(PoisonError::into_inner).clone();
            live.map_or(serde_json::Value::Null, |live| {
                let mut config = live.snapshot.resources_json();
                config["revision"] = live.snapshot.revision.into();
                if let Some(identity) = &live.node.identity {
                    config["identity"] = identity.id().as_str().into();
                }
                config
            })
        }),
        endpoints: Box::new(move || health::endpoints(&seen, &findings)),
        explain: Box::new(move |asked| {
            let live = explained.lock().unwrap_or_else(PoisonError::into_inner).clone();
            live.map_or(Err(Unexplained::NoListener), |live| explain(&live.snapshot, asked))
        }),
        level: Box::new(move || log.level()),
        set_level: Box::new(move |level| set.set(level).map_err(|error| error.to_string())),
    }
}

/// Opens the interfaces for those who watch over the proxy.
fn watch_over(
    interface: &Arc<Admin>,
    surfaces: [(Surface, Option<SocketAddr>, &'static str); 3],
    announce: &Tell,
) -> Result<Addresses, StartError> {
    let mut addresses = Addresses::default();
    for (surface, address, what) in surfaces {
        let Some(address) = address else { continue };
        if surface == Surface::All && !address.ip().is_loopback() {
            return Err(StartError::ExposedAdmin(address));
        }
        let hint = match surface {
            Surface::All => {
                "; --admin ADDRESS, or `admin: { address: … }` in the file, moves the admin interface"
            }
            Surface::Metrics => "; --metrics ADDRESS moves the metrics",
            Surface::Ready => "; --ready ADDRESS moves the readiness",
        };
        let refuse = |source| StartError::Listen { what, source, hint };
        let bound = listen::bind(address, 1).map_err(refuse)?;
        let Some(socket) = bound.sockets.into_iter().next() else { continue };
        tokio::spawn(interface.clone().serve(TcpListener::from_std(socket)?, surface));
        let open = if bound.local.ip().is_loopback() { "" } else { " (not authenticated)" };
        announce(&format!("{what} on http://{}{open}", bound.local));
        let place = match surface {
            Surface::All => &mut addresses.admin,
            Surface::Metrics => &mut addresses.metrics,
            Surface::Ready => &mut addresses.ready,
        };
        *place = Some(bound.local);
    }
    Ok(addresses)
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
            let _ = stop.send(self.drain);
        }
        if let Some(ended) = self.ended.take() {
            let _ = ended.await;
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    /// Returns if it ends by itself.
    pub async fn ended(&mut self) {
        if let Some(ended) = &mut self.ended {
            let _ = ended.await;
        }
    }
}

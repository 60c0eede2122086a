//! A proxy as a value: started, asked where it listens, drained and stopped.

mod begin;
mod options;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use outrigger_telemetry::Metrics;
use tokio::sync::{mpsc, oneshot, watch};

use self::begin::begin;
pub use self::options::{Options, Source, StartError};
use crate::admin::Readiness;
use crate::director::{Director, Published, STARTING, Tell, current};
use crate::drain::{End, Leaving};
use crate::faces::Answering;
use crate::memory::Memory;
use crate::source::Event;
use crate::takeover::{Door, Shop};
use crate::{threads, worker};

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

impl Proxy {
    /// Where it listens for those who watch over it.
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Where a listener listens now, by its name.
    pub fn listener(&self, name: &str) -> Option<SocketAddr> {
        let live = current(&self.published)?;
        let listener = live.listeners.iter().find(|listener| listener.name.as_str() == name)?;
        listener.sockets.as_ref().map(|sockets| sockets.local)
    }

    /// The revision of the configuration that is live; `None` before the first.
    pub fn revision(&self) -> Option<u64> {
        let live = current(&self.published);
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

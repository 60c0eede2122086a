//! A worker: one thread with its own sockets, connections and pools, which shares nothing with the others but the
//! live table, the load of endpoints and the metrics.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use outrigger_config::Name;
use outrigger_http::memory::{Account, Budget, CONNECTION, Charge, Kind, Level, TLS};
use outrigger_http::serve::{Drain, TICK};
use outrigger_telemetry::{ConnectionSeries, LogBuffer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{debug, error, warn};

use crate::connection;
use crate::local::Local;
use crate::state::{Live, LiveListener};

/// How long a worker waits after an accept that failed, as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often it says so.
const ACCEPT_COMPLAINT: Duration = Duration::from_secs(10);
/// How often unused connections are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How often the access log's lines are handed over, if there are any.
const LOG_INTERVAL: Duration = Duration::from_millis(100);

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Acts on this table from now on, and answers once it does.
    Live(Arc<Live>, oneshot::Sender<()>),
    /// Tells HTTP/1.1 callers with each response that the connection ends.
    Announce,
    /// Accepts no more, ends what is open when what is under way is done, and answers when nothing is left.
    Drain(oneshot::Sender<()>),
    /// Ends at once.
    Stop,
}

/// One worker's part of the proxy.
#[derive(Debug)]
pub(crate) struct Worker {
    index: usize,
    live: RefCell<Option<Rc<Local>>>,
    running: RefCell<HashMap<Name, Running>>,
    pub(crate) metrics: outrigger_telemetry::Worker,
    log: LogBuffer,
    /// Told when there is a line to hand over, so that an idle worker sleeps.
    logged: Notify,
    /// Whether that was told.
    pending: Cell<bool>,
    pub(crate) random: RefCell<fastrand::Rng>,
    /// Ends the connections that the application makes to itself.
    pub(crate) own: Rc<Drain>,
    announcing: Cell<bool>,
    draining: Cell<bool>,
    /// Counts what it holds.
    pub(crate) memory: Rc<Account>,
    /// Copies of requests under way.
    pub(crate) mirrors: Cell<u32>,
    /// Connections open, upgraded and opaque ones included.
    open: Cell<usize>,
    /// Told when the last connection closes.
    quiet: Notify,
}

/// A listener that this worker accepts on.
#[derive(Debug)]
struct Running {
    address: SocketAddr,
    drain: Rc<Drain>,
    /// Ends the accepting.
    _accepting: oneshot::Sender<()>,
}

/// Counts a connection as open while it lives.
#[derive(Debug)]
pub(crate) struct Open {
    worker: Rc<Worker>,
    /// Where it is shown, if it came from outside.
    series: Option<ConnectionSeries>,
    /// The connections of its listener, which it is one of.
    among: Option<Arc<AtomicU32>>,
    /// What it takes by itself.
    held: Charge,
}

impl Open {
    /// Counts what TLS takes.
    pub(crate) fn secured(&mut self) {
        self.held.set(CONNECTION + TLS);
    }

    /// Shows it among the connections of its listener.
    pub(crate) fn show(&mut self, listener: &LiveListener) {
        self.worker.metrics.connection_opened(listener.connections);
        self.series = Some(listener.connections);
        listener.open.fetch_add(1, Ordering::Relaxed);
        self.among = Some(listener.open.clone());
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(among) = &self.among {
            among.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(series) = self.series {
            self.worker.metrics.connection_closed(series);
        }
        let open = self.worker.open.get().saturating_sub(1);
        self.worker.open.set(open);
        if open == 0 {
            self.worker.quiet.notify_waiters();
        }
    }
}

/// Runs a worker until it is told to stop, or whoever gives its orders is gone.
pub(crate) async fn run(
    index: usize,
    metrics: outrigger_telemetry::Worker,
    log: LogBuffer,
    budget: Option<Arc<Budget>>,
    mut orders: mpsc::Receiver<Order>,
) {
    let memory = Account::new(budget);
    let worker = Rc::new(Worker {
        index,
        live: RefCell::new(None),
        running: RefCell::default(),
        metrics,
        log,
        logged: Notify::new(),
        pending: Cell::new(false),
        random: RefCell::new(fastrand::Rng::new()),
        own: Rc::new(Drain::counting(memory.clone())),
        memory,
        announcing: Cell::new(false),
        draining: Cell::new(false),
        mirrors: Cell::new(0),
        open: Cell::new(0),
        quiet: Notify::new(),
    });
    tokio::task::spawn_local(sweep(worker.clone()));
    tokio::task::spawn_local(hand_over_log(worker.clone()));
    while let Some(order) = orders.recv().await {
        match order {
            Order::Live(live, done) => {
                worker.adopt(live);
                let _ = done.send(());
            }
            Order::Announce => worker.announcing.set(true),
            Order::Drain(done) => {
                worker.drain();
                let worker = worker.clone();
                tokio::task::spawn_local(async move {
                    worker.until_quiet().await;
                    let _ = done.send(());
                });
            }
            Order::Stop => break,
        }
    }
    worker.log.flush();
}

async fn sweep(worker: Rc<Worker>) {
    let mut swept = Instant::now();
    loop {
        tokio::time::sleep(TICK).await;
        worker.running.borrow().values().for_each(|running| running.drain.tick());
        worker.own.tick();
        worker.memory.settle();
        if worker.memory.wants_room() {
            worker.make_room();
        }
        if swept.elapsed() >= SWEEP_INTERVAL {
            swept = Instant::now();
            if let Some(local) = worker.live.borrow().clone() {
                local.close_idle(swept);
            }
        }
    }
}

async fn hand_over_log(worker: Rc<Worker>) {
    loop {
        worker.logged.notified().await;
        tokio::time::sleep(LOG_INTERVAL).await;
        worker.pending.set(false);
        worker.log.flush();
    }
}

impl Worker {
    /// The table to decide by. `None` only before the first is there, when nothing listens yet.
    pub(crate) fn local(&self) -> Option<Rc<Local>> {
        self.live.borrow().clone()
    }

    /// Whether HTTP/1.1 callers are to be told that their connection ends.
    pub(crate) const fn announces_end(&self) -> bool {
        self.announcing.get()
    }

    /// Whether requests are logged.
    pub(crate) fn logs(&self) -> bool {
        self.log.is_on()
    }

    /// Logs what `write` writes, within [`LOG_INTERVAL`].
    pub(crate) fn log(&self, write: impl FnOnce(&LogBuffer)) {
        if self.log.is_on() {
            write(&self.log);
            if !self.pending.replace(true) {
                self.logged.notify_one();
            }
        }
    }

    /// Counts one more connection, until the value is dropped.
    pub(crate) fn open(self: &Rc<Self>) -> Open {
        self.open.set(self.open.get() + 1);
        let held = self.memory.hold(Kind::Connections, CONNECTION);
        Open { worker: self.clone(), series: None, among: None, held }
    }

    /// Closes the connections on which nothing is under way.
    fn make_room(&self) {
        self.running.borrow().values().for_each(|running| running.drain.make_room());
        self.own.make_room();
        if let Some(local) = self.live.borrow().clone() {
            local.make_room();
        }
    }

    fn adopt(self: &Rc<Self>, live: Arc<Live>) {
        let before = self.live.take();
        let local = Rc::new(Local::new(self, live, before.as_deref()));
        *self.live.borrow_mut() = Some(local.clone());
        self.listen(&local.live);
    }

    /// Accepts on the listeners of the table, and lets go of those that are gone from it.
    fn listen(self: &Rc<Self>, live: &Live) {
        if self.draining.get() {
            return;
        }
        let mut running = self.running.borrow_mut();
        running.retain(|name, running| {
            let stays = live.listeners.iter().any(|listener| {
                listener.name == *name
                    && listener.sockets.as_ref().is_some_and(|s| s.local == running.address)
            });
            if !stays {
                running.drain.begin();
            }
            stays
        });
        for listener in &live.listeners {
            let Some(sockets) = listener.sockets.as_ref().filter(|_| !running.contains_key(&listener.name))
            else {
                continue;
            };
            let Some(socket) = sockets.take(self.index) else { continue };
            if let Some(budget) = self.memory.budget() {
                // What it does not take on it keeps as it was.
                let _ = outrigger_net::listen::confine(&socket, budget.of_one_connection());
            }
            let socket = match TcpListener::from_std(socket) {
                Ok(socket) => socket,
                Err(error) => {
                    error!(listener = %listener.name, %error, "cannot accept");
                    continue;
                }
            };
            let drain = Rc::new(Drain::counting(self.memory.clone()));
            let (accepting, gone) = oneshot::channel();
            tokio::task::spawn_local(accept(
                self.clone(),
                socket,
                listener.name.clone(),
                drain.clone(),
                gone,
            ));
            running.insert(
                listener.name.clone(),
                Running { address: sockets.local, drain, _accepting: accepting },
            );
        }
    }

    fn drain(&self) {
        self.draining.set(true);
        self.announcing.set(true);
        self.own.begin();
        for (_, running) in self.running.borrow_mut().drain() {
            running.drain.begin();
        }
    }

    async fn until_quiet(&self) {
        while self.open.get() > 0 {
            self.quiet.notified().await;
        }
    }
}

/// Accepts on one socket until `gone` says that the listener is.
async fn accept(
    worker: Rc<Worker>,
    socket: TcpListener,
    listener: Name,
    drain: Rc<Drain>,
    mut gone: oneshot::Receiver<()>,
) {
    let mut complained: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut gone => {
                // What the kernel took on for this socket would be reset with it.
                while let Some(Ok((stream, peer))) = ready(socket.accept()).await {
                    serve(&worker, stream, peer, &listener, &drain);
                }
                return;
            }
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => serve(&worker, stream, peer, &listener, &drain),
            Err(error) if is_of_the_connection(&error) => debug!(%listener, %error, "a caller left at once"),
            Err(error) => {
                if complained.is_none_or(|at| at.elapsed() >= ACCEPT_COMPLAINT) {
                    complained = Some(Instant::now());
                    warn!(%listener, %error, "cannot accept; trying again every {ACCEPT_PAUSE:?}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What a future yields if it is ready at once.
async fn ready<F: Future>(future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

fn is_of_the_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused)
}

fn serve(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, listener: &Name, drain: &Rc<Drain>) {
    if worker.memory.level() >= Level::Spent {
        // Even a refusal takes memory.
        return worker.memory.turned_away();
    }
    let task = connection::serve(worker.clone(), stream, peer, listener.clone(), drain.clone());
    tokio::task::spawn_local(task);
}

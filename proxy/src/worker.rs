//! A worker: one thread with its own sockets, connections and pools, which shares nothing with the others but the
//! live table, the load of endpoints and the metrics.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use outrigger_config::Name;
use outrigger_config::listener::Direction;
use outrigger_http::memory::{Account, Budget, CONNECTION, Charge, Kind, Level, TLS};
use outrigger_http::serve::{Drain, TICK};
use outrigger_net::listen;
use outrigger_telemetry::{CallerTimeout, ConnectionSeries, LogBuffer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::{debug, error, warn};

use crate::connection;
use crate::local::Local;
use crate::seldom::Seldom;
use crate::state::{Live, LiveListener};

/// How long a worker waits after an accept that failed, as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often unused connections are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How often the access log's lines are handed over, if there are any.
const LOG_INTERVAL: Duration = Duration::from_millis(100);

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Acts on this table from now on, and answers once it does.
    Live(Arc<Live>, oneshot::Sender<()>),
    /// Tells who calls the application that this proxy is leaving, and goes on accepting: HTTP/1.1 with each response,
    /// other sidecars with GOAWAY as well, so that they go elsewhere from the next request on.
    Announce,
    /// On one side, accepts no more, and ends what is open when what is under way is done.
    Drain(Side),
    /// Answers when nothing is open on one side.
    Quiet(Side, oneshot::Sender<()>),
    /// Answers since when the application has had no connection open; `None` while it has one.
    Idle(oneshot::Sender<Option<Instant>>),
    /// Answers with copies of the sockets that it accepts on, of all or none.
    Lend(oneshot::Sender<io::Result<Vec<(Name, std::net::TcpListener)>>>),
    /// Accepts no more, because another process does, and tells all callers to connect anew.
    HandOver,
    /// Ends at once.
    Stop,
}

/// Whose connections they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Of those who call the application, and of a standalone proxy's callers.
    Inbound,
    /// Of the application.
    Outbound,
    /// Of the application to itself, which never leave the process.
    Own,
}

impl Side {
    /// Of the connections to a listener.
    pub(crate) const fn of(direction: Direction) -> Self {
        match direction {
            Direction::Outbound => Self::Outbound,
            Direction::Inbound | Direction::Edge => Self::Inbound,
        }
    }
}

/// The connections of one side.
#[derive(Debug)]
struct Half {
    /// Connections open, upgraded and opaque ones included.
    open: Cell<usize>,
    /// When the last one was opened or closed.
    last: Cell<Instant>,
    /// Whether callers are told that their connection ends.
    announcing: Cell<bool>,
    /// Whether nothing is accepted any more.
    closed: Cell<bool>,
    /// Tasks that accept, also those that are about to end and still take what had come.
    accepting: Cell<usize>,
}

impl Half {
    fn new() -> Self {
        let (open, last) = (Cell::new(0), Cell::new(Instant::now()));
        let (announcing, closed) = (Cell::new(false), Cell::new(false));
        Self { open, last, announcing, closed, accepting: Cell::new(0) }
    }

    fn count(&self, open: usize) {
        self.open.set(open);
        self.last.set(Instant::now());
    }
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
    /// Counts what it holds.
    pub(crate) memory: Rc<Account>,
    inbound: Half,
    outbound: Half,
    to_itself: Half,
    /// Copies of requests under way.
    pub(crate) mirrors: Cell<u32>,
    /// Told when the last connection of a side closes.
    quiet: Notify,
}

/// A listener that this worker accepts on.
#[derive(Debug)]
struct Running {
    address: SocketAddr,
    direction: Direction,
    drain: Rc<Drain>,
    sockets: Vec<Accepting>,
}

/// A socket that this worker accepts on.
#[derive(Debug)]
struct Accepting {
    socket: Rc<TcpListener>,
    /// Ends the accepting.
    _until: oneshot::Sender<()>,
}

/// Counts a connection as open while it lives.
#[derive(Debug)]
pub(crate) struct Open {
    worker: Rc<Worker>,
    side: Side,
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

    /// Which of the worker's connections it is one of.
    pub(crate) const fn side(&self) -> Side {
        self.side
    }

    /// Counts it among those that a timeout ended.
    pub(crate) fn timed_out(&self, timeout: CallerTimeout) {
        if let Some(series) = self.series {
            self.worker.metrics.connection_timed_out(series, timeout);
        }
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
        let half = self.worker.half(self.side);
        let open = half.open.get().saturating_sub(1);
        half.count(open);
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
        inbound: Half::new(),
        outbound: Half::new(),
        to_itself: Half::new(),
        mirrors: Cell::new(0),
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
            Order::Announce => worker.announce(),
            Order::Drain(side) => worker.drain(side),
            Order::Quiet(side, done) => {
                let worker = worker.clone();
                tokio::task::spawn_local(async move {
                    worker.until_quiet(side).await;
                    let _ = done.send(());
                });
            }
            Order::Idle(since) => {
                let half = &worker.outbound;
                let _ = since.send((half.open.get() == 0).then(|| half.last.get()));
            }
            Order::Lend(lent) => {
                let _ = lent.send(worker.lend());
            }
            Order::HandOver => worker.hand_over(),
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

    const fn half(&self, side: Side) -> &Half {
        match side {
            Side::Inbound => &self.inbound,
            Side::Outbound => &self.outbound,
            Side::Own => &self.to_itself,
        }
    }

    /// Whether HTTP/1.1 callers of a side are to be told that their connection ends.
    pub(crate) const fn announces_end(&self, side: Side) -> bool {
        self.half(side).announcing.get()
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
    pub(crate) fn open(self: &Rc<Self>, side: Side) -> Open {
        let half = self.half(side);
        half.count(half.open.get() + 1);
        let held = self.memory.hold(Kind::Connections, CONNECTION);
        Open { worker: self.clone(), side, series: None, among: None, held }
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
        let mut running = self.running.borrow_mut();
        running.retain(|name, running| {
            // What is ending has been told so, and ends whatever becomes of the configuration.
            let stays = self.half(Side::of(running.direction)).closed.get()
                || live.listeners.iter().any(|listener| {
                    listener.name == *name
                        && listener.sockets.as_ref().is_some_and(|s| s.local == running.address)
                });
            if !stays {
                running.drain.begin();
            }
            stays
        });
        for listener in &live.listeners {
            let side = Side::of(listener.direction);
            let wanted = !self.half(side).closed.get() && !running.contains_key(&listener.name);
            let Some(sockets) = listener.sockets.as_ref().filter(|_| wanted) else { continue };
            let drain = Rc::new(Drain::counting(self.memory.clone()));
            let accept = |socket| self.accept_on(socket, side, &listener.name, &drain);
            let accepting: Vec<_> = sockets.take(self.index).into_iter().filter_map(accept).collect();
            if !accepting.is_empty() {
                let (address, direction) = (sockets.local, listener.direction);
                let here = Running { address, direction, drain, sockets: accepting };
                running.insert(listener.name.clone(), here);
            }
        }
    }

    fn accept_on(
        self: &Rc<Self>,
        socket: std::net::TcpListener,
        side: Side,
        listener: &Name,
        drain: &Rc<Drain>,
    ) -> Option<Accepting> {
        if let Some(budget) = self.memory.budget() {
            // What it does not take on it keeps as it was.
            let _ = outrigger_net::listen::confine(&socket, budget.of_one_connection());
        }
        let socket = match TcpListener::from_std(socket) {
            Ok(socket) => Rc::new(socket),
            Err(error) => {
                error!(%listener, %error, "cannot accept");
                return None;
            }
        };
        let (until, gone) = oneshot::channel();
        let (worker, name, drain, accepts) = (self.clone(), listener.clone(), drain.clone(), socket.clone());
        let half = self.half(side);
        half.accepting.set(half.accepting.get() + 1);
        tokio::task::spawn_local(async move {
            accept(&worker, accepts, side, name, drain, gone).await;
            let half = worker.half(side);
            half.accepting.set(half.accepting.get().saturating_sub(1));
            worker.quiet.notify_waiters();
        });
        Some(Accepting { socket, _until: until })
    }

    fn announce(&self) {
        self.inbound.announcing.set(true);
        for running in self.running.borrow().values() {
            if running.direction == Direction::Inbound {
                running.drain.leave();
            }
        }
    }

    fn drain(&self, side: Side) {
        let half = self.half(side);
        half.closed.set(true);
        half.announcing.set(true);
        if side == Side::Outbound {
            self.own.begin();
        }
        for running in self.running.borrow_mut().values_mut() {
            if Side::of(running.direction) == side {
                running.sockets.clear();
                running.drain.begin();
            }
        }
    }

    fn hand_over(&self) {
        for half in [&self.inbound, &self.outbound] {
            half.closed.set(true);
            half.announcing.set(true);
        }
        for running in self.running.borrow_mut().values_mut() {
            running.sockets.clear();
            running.drain.leave();
        }
    }

    fn lend(&self) -> io::Result<Vec<(Name, std::net::TcpListener)>> {
        let running = self.running.borrow();
        let all = running.iter().flat_map(|(name, running)| running.sockets.iter().map(move |it| (name, it)));
        all.map(|(name, accepting)| Ok((name.clone(), listen::copy(&*accepting.socket)?))).collect()
    }

    /// Waits until nothing is open on a side that has been closed.
    async fn until_quiet(&self, side: Side) {
        let half = self.half(side);
        let own = || side == Side::Outbound && self.to_itself.open.get() > 0;
        while half.open.get() > 0 || half.accepting.get() > 0 || own() {
            self.quiet.notified().await;
        }
    }
}

/// Accepts on one socket until `gone` says that the listener is.
async fn accept(
    worker: &Rc<Worker>,
    socket: Rc<TcpListener>,
    side: Side,
    listener: Name,
    drain: Rc<Drain>,
    mut gone: oneshot::Receiver<()>,
) {
    let mut complaint = Seldom::default();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut gone => {
                // What the kernel took on for this socket would be reset with it.
                for (stream, peer) in waiting(&socket, &listener) {
                    serve(worker, stream, peer, side, &listener, &drain);
                }
                return;
            }
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => serve(worker, stream, peer, side, &listener, &drain),
            Err(error) if is_of_the_connection(&error) => debug!(%listener, %error, "a caller left at once"),
            Err(error) => {
                if complaint.is_due() {
                    warn!(%listener, %error, "cannot accept; trying again every {ACCEPT_PAUSE:?}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connections that wait to be accepted. The kernel is asked: the runtime may not have heard of them yet, and lets a
/// task accept so many at a time.
fn waiting(socket: &TcpListener, listener: &Name) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    let next = || {
        let (stream, peer) = listen::accept(socket)?;
        Ok((TcpStream::from_std(stream)?, peer))
    };
    // No more can have waited; where another process accepts as well, who comes later is its.
    let all = std::iter::repeat_with(next).take(listen::BACKLOG as usize + 1);
    let all = all.take_while(move |next: &io::Result<_>| match next {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Err(error) if !is_of_the_connection(error) => {
            warn!(%listener, %error, "cannot accept those who still wait: they are reset");
            false
        }
        _ => true,
    });
    all.filter_map(Result::ok)
}

fn is_of_the_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionReset | Kind::ConnectionRefused)
}

fn serve(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    side: Side,
    listener: &Name,
    drain: &Rc<Drain>,
) {
    if worker.memory.level() >= Level::Spent {
        // Even a refusal takes memory.
        return worker.memory.turned_away();
    }
    // Counted from now on, not from when its task first runs: a worker that ends might not see it before.
    let open = worker.open(side);
    let task = connection::serve(worker.clone(), stream, peer, open, listener.clone(), drain.clone());
    tokio::task::spawn_local(task);
}

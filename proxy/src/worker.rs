//! A worker: one thread with its own sockets, connections and pools, which shares nothing with the others but the
//! live table, the load of endpoints and the metrics.

mod accept;
mod open;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_config::Name;
use outrigger_config::listener::Direction;
use outrigger_http::memory::{Account, Budget};
use outrigger_http::serve::{Drain, TICK};
use outrigger_net::listen;
use outrigger_telemetry::LogBuffer;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, oneshot};
use tracing::error;

use crate::local::Local;
use crate::state::Live;

use self::accept::accept;
use self::open::Half;
pub(crate) use self::open::{Open, Side};

/// How often unused connections are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How often the access log's lines are handed over, if there are any.
const LOG_INTERVAL: Duration = Duration::from_millis(100);

/// How many endpoints' connections are closed before requests have their turn again.
const RETIRED_AT_A_TIME: usize = 64;

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

/// Gives each worker an order, then waits for the answers, in the workers' order; one that has ended gives none.
pub(crate) async fn ask<T>(
    workers: &[mpsc::Sender<Order>],
    order: impl Fn(oneshot::Sender<T>) -> Order,
) -> Vec<T> {
    let mut asked = Vec::new();
    for orders in workers {
        let (answer, answered) = oneshot::channel();
        if orders.send(order(answer)).await.is_ok() {
            asked.push(answered);
        }
    }
    let mut answers = Vec::new();
    for answered in asked {
        answers.extend(answered.await.ok());
    }
    answers
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
                worker.adopt(live).await;
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

    /// Closes the connections on which nothing is under way.
    fn make_room(&self) {
        self.running.borrow().values().for_each(|running| running.drain.make_room());
        self.own.make_room();
        if let Some(local) = self.live.borrow().clone() {
            local.make_room();
        }
    }

    /// Acts on a table from now on. Requests go on meanwhile: nothing here takes longer the larger the table is, but what
    /// takes turns with them.
    async fn adopt(self: &Rc<Self>, live: Arc<Live>) {
        let local = Rc::new(Local::new(self, live));
        let before = self.local();
        let gone = match &before {
            Some(before) => before.hand_on(&local).await,
            None => Vec::new(),
        };
        *self.live.borrow_mut() = Some(local.clone());
        self.listen(&local.live);
        drop(before);
        for some in gone.chunks(RETIRED_AT_A_TIME) {
            for pool in some {
                pool.retire();
            }
            tokio::task::yield_now().await;
        }
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
            let _ = listen::confine(&socket, budget.of_one_connection());
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

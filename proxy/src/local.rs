//! The live table as one worker has it: with that worker's own connections to the endpoints of each backend.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_balance::Limits;
use outrigger_certs::Identity;
use outrigger_http::connect::{Dialer, OwnDoor, Watch};
use outrigger_http::memory::Account;
use outrigger_http::pool::{Pool, Pools};
use outrigger_http::{Backend, Endpoint, Reason, Security};
use outrigger_telemetry::{BackendSeries, ConnectResult};

use crate::own::Own;
use crate::session::Names;
use crate::state::{Hosts, Live, LiveBackend};
use crate::worker::Worker;

/// How long a connection to an address outside the configuration may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How many addresses outside the configuration a worker keeps connections to.
const MAX_DIRECT: usize = 1024;
/// How many backends are handed on to the next table before requests have their turn again.
const AT_A_TIME: usize = 64;

/// The live table with this worker's connections to its endpoints.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) live: Arc<Live>,
    /// In the order of the table's backends, each made when it is first needed.
    backends: Box<[OnceCell<Rc<LocalBackend>>]>,
    /// The places of those that are made, in the order in which they were.
    made: RefCell<Vec<usize>>,
    /// Addresses that traffic was sent to as they stood.
    direct: RefCell<HashMap<SocketAddr, Rc<LocalBackend>>>,
    means: Means,
}

/// What every connection of a worker is made with.
#[derive(Debug)]
struct Means {
    identity: Option<Arc<Identity>>,
    own: Rc<dyn OwnDoor>,
    metrics: outrigger_telemetry::Worker,
    memory: Rc<Account>,
}

impl Means {
    fn dialer(&self, series: BackendSeries, hosts: Option<Hosts>, timeout: Duration) -> Dialer {
        Dialer {
            identity: self.identity.clone(),
            own: Some(self.own.clone()),
            timeout,
            tls_timeout: None,
            room: None,
            watch: Rc::new(Count { metrics: self.metrics.clone(), series, hosts }),
            memory: self.memory.clone(),
        }
    }

    /// A backend of the table, without connections.
    fn backend(&self, live: &LiveBackend) -> LocalBackend {
        let backend = live.backend.clone();
        let dialer = self.dialer(live.connections, live.hosts.clone(), backend.connect_timeout);
        LocalBackend {
            pools: Pools::new(backend.clone(), live.terms()),
            dialer: Dialer { tls_timeout: live.tls_timeout(), room: backend.connections.clone(), ..dialer },
            series: live.connections,
            waiting_page: live.waiting_page(),
            hosts: live.hosts.clone(),
            names: live.names.clone(),
            backend,
        }
    }

    /// Whether connections are made as by `other`, as the same node.
    fn is_as(&self, other: &Self) -> bool {
        let identity = |means: &Self| means.identity.as_ref().map(Arc::as_ptr);
        identity(self) == identity(other)
    }
}

/// A backend with this worker's connections to it.
#[derive(Debug)]
pub(crate) struct LocalBackend {
    pub(crate) backend: Arc<Backend>,
    pub(crate) pools: Pools,
    pub(crate) dialer: Dialer,
    /// Counts what happens to it.
    pub(crate) series: BackendSeries,
    /// What its endpoints are called in sessions.
    pub(crate) names: Names,
    /// Whether a browser gets a page to wait on while it is not up.
    pub(crate) waiting_page: bool,
    hosts: Option<Hosts>,
}

impl LocalBackend {
    /// Has its names looked up now, because they led nowhere.
    pub(crate) fn doubt(&self) {
        self.hosts.iter().for_each(Hosts::doubt);
    }
}

impl Local {
    /// A table without connections.
    pub(crate) fn new(worker: &Rc<Worker>, live: Arc<Live>) -> Self {
        let means = Means {
            identity: live.node.identity.clone(),
            own: Rc::new(Own::new(worker)),
            metrics: worker.metrics.clone(),
            memory: worker.memory.clone(),
        };
        let backends = std::iter::repeat_with(OnceCell::new).take(live.backends.len()).collect();
        Self { live, backends, made: RefCell::default(), direct: RefCell::default(), means }
    }

    /// Hands its connections on to the next table, as far as their endpoints are in both. Returns the pools that are in
    /// this one alone, to be retired once the next has taken its place.
    ///
    /// Requests have their turn meanwhile, and go by this table. What they have made of it by then is handed on too: the
    /// next has to take its place without waiting for anything else first.
    pub(crate) async fn hand_on(&self, next: &Self) -> Vec<Rc<Pool>> {
        let (mut gone, mut done) = (Vec::new(), 0);
        loop {
            let some: Vec<_> = self.made.borrow().iter().skip(done).take(AT_A_TIME).copied().collect();
            if some.is_empty() {
                break;
            }
            if done > 0 {
                tokio::task::yield_now().await;
            }
            done += some.len();
            for backend in some.into_iter().filter_map(|at| Some((at, self.backends.get(at)?.get()?))) {
                next.take_over(backend, self.means.is_as(&next.means), &mut gone);
            }
        }
        // Connections to addresses outside the configuration stay open, unless they are now inside.
        for (address, backend) in self.direct.borrow().iter() {
            let plain = |(_, pool): (_, &Rc<Pool>)| matches!(pool.endpoint().security, Security::Plain);
            if !backend.pools.made().all(plain) {
                continue;
            }
            if next.live.known.contains_key(address) {
                gone.extend(backend.pools.made().map(|(_, pool)| pool.clone()));
            } else {
                next.direct.borrow_mut().insert(*address, backend.clone());
            }
        }
        gone
    }

    /// Takes a backend over from the table before, where it was in this place. What of it is not here is added to `gone`.
    fn take_over(&self, (was, old): (usize, &Rc<LocalBackend>), same_node: bool, gone: &mut Vec<Rc<Pool>>) {
        let pools = || old.pools.made().map(|(_, pool)| pool);
        let is_here =
            |at: &usize| self.live.backends.get(*at).is_some_and(|it| it.backend.name == old.backend.name);
        let at = Some(was).filter(is_here).or_else(|| self.live.snapshot.backend(&old.backend.name));
        let Some((at, live)) = at.and_then(|at| Some((at, self.live.backends.get(at)?))) else {
            gone.extend(pools().cloned());
            return;
        };
        let unchanged = Arc::ptr_eq(&live.backend, &old.backend);
        if unchanged && same_node && self.backends.get(at).is_some_and(|place| place.set(old.clone()).is_ok())
        {
            self.made.borrow_mut().push(at);
            return;
        }
        let Some(new) = self.backend(at) else { return };
        let mut kept: HashMap<u64, &Rc<Pool>> = pools().map(|pool| (pool.endpoint().id(), pool)).collect();
        for (at, endpoint) in new.backend.endpoints.iter().enumerate() {
            if kept.is_empty() {
                break;
            }
            if let Some(pool) = kept.remove(&endpoint.id()) {
                new.pools.keep(at, pool);
            }
        }
        gone.extend(kept.into_values().cloned());
    }

    /// Each of its pools, in no order; one that several backends share more than once.
    fn each_pool(&self, act: impl FnMut(&Rc<Pool>)) {
        let (direct, made) = (self.direct.borrow(), self.made.borrow());
        let made = made.iter().filter_map(|at| self.backends.get(*at)?.get());
        made.chain(direct.values())
            .flat_map(|backend| backend.pools.made())
            .map(|(_, pool)| pool)
            .for_each(act);
    }

    /// A backend by its place in the table.
    pub(crate) fn backend(&self, at: usize) -> Option<&Rc<LocalBackend>> {
        let (live, place) = (self.live.backends.get(at)?, self.backends.get(at)?);
        Some(place.get_or_init(|| {
            self.made.borrow_mut().push(at);
            Rc::new(self.means.backend(live))
        }))
    }

    /// The way to an address that traffic was sent to: over the mesh if one of its endpoints is there and
    /// `mesh` allows it, otherwise as it stands.
    pub(crate) fn direct(&self, address: SocketAddr, mesh: bool) -> Rc<LocalBackend> {
        if mesh && let Some(found) = self.mesh_endpoint(address) {
            return found;
        }
        if let Some(found) = self.direct.borrow().get(&address) {
            return found.clone();
        }
        if !mesh && self.live.node.captured {
            self.live.node.applications.add(address);
        }
        let load = Arc::new(outrigger_balance::Load::new(1, Instant::now()));
        let endpoint = Arc::new(Endpoint::new(address, Security::Plain, load));
        let pool = Pool::new(endpoint.clone());
        self.remember(
            address,
            alone(
                "".into(),
                endpoint,
                pool,
                self.means.dialer(self.live.direct, None, CONNECT_TIMEOUT),
                self.live.direct,
                None,
            ),
        )
    }

    fn mesh_endpoint(&self, address: SocketAddr) -> Option<Rc<LocalBackend>> {
        let (at, place) = self.live.known.get(&address)?;
        let backend = self.backend(*at)?;
        if let Some(found) = self.direct.borrow().get(&address) {
            return Some(found.clone());
        }
        let endpoint = backend.backend.endpoints.get(*place)?.clone();
        let pool = backend.pools.get(*place)?.clone();
        let dialer = backend.dialer.clone();
        let (name, limits) = (backend.backend.name.clone(), backend.backend.limits.clone());
        Some(self.remember(address, alone(name, endpoint, pool, dialer, backend.series, limits)))
    }

    fn remember(&self, address: SocketAddr, backend: LocalBackend) -> Rc<LocalBackend> {
        let backend = Rc::new(backend);
        let mut direct = self.direct.borrow_mut();
        if direct.len() >= MAX_DIRECT {
            direct.retain(|_, backend| !backend.pools.made().all(|(_, pool)| pool.is_empty()));
        }
        if direct.len() < MAX_DIRECT {
            direct.insert(address, backend.clone());
        }
        backend
    }

    /// Closes the connections that nobody has used for long.
    pub(crate) fn close_idle(&self, now: Instant) {
        self.each_pool(|pool| pool.close_idle(now));
    }

    /// Closes the connections that nobody uses now: memory is scarce.
    pub(crate) fn make_room(&self) {
        self.each_pool(|pool| pool.make_room());
    }
}

/// Counts the connections to a backend, and has its names looked up when one cannot be made.
#[derive(Debug)]
struct Count {
    metrics: outrigger_telemetry::Worker,
    series: BackendSeries,
    hosts: Option<Hosts>,
}

impl Watch for Count {
    fn connected(&self, failed: Option<Reason>) {
        let result = match failed {
            None => ConnectResult::Ok,
            Some(Reason::ConnectionRefused) => ConnectResult::Refused,
            Some(Reason::ConnectionTimeout) => ConnectResult::Timeout,
            Some(Reason::TlsCertificateError) => ConnectResult::Identity,
            Some(Reason::TlsProtocolError) => ConnectResult::Tls,
            Some(_) => ConnectResult::Failed,
        };
        self.metrics.backend_connected(self.series, result);
        if failed.is_some()
            && let Some(hosts) = &self.hosts
        {
            hosts.doubt();
        }
    }

    fn closed(&self) {
        self.metrics.backend_closed(self.series);
    }
}

/// A backend of one endpoint: no balancing between it and others. It shares the limits of the backend that it is of.
fn alone(
    name: Arc<str>,
    endpoint: Arc<Endpoint>,
    pool: Rc<Pool>,
    dialer: Dialer,
    series: BackendSeries,
    limits: Option<Arc<Limits>>,
) -> LocalBackend {
    let backend = Backend { limits, ..Backend::of_one(name, endpoint, dialer.timeout) };
    let backend = Arc::new(backend);
    LocalBackend {
        pools: Pools::of_one(backend.clone(), pool),
        backend,
        dialer,
        series,
        waiting_page: false,
        names: Names::default(),
        hosts: None,
    }
}

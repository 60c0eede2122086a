//! The live table as one worker has it: with that worker's own connections to the endpoints of each backend.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_balance::Limits;
use outrigger_certs::Identity;
use outrigger_http::connect::{Dialer, OwnDoor, Watch};
use outrigger_http::memory::Account;
use outrigger_http::pool::Pool;
use outrigger_http::{Backend, Endpoint, Reason, Security};
use outrigger_telemetry::{BackendSeries, ConnectResult};

use crate::own::Own;
use crate::session::Names;
use crate::state::{Hosts, Live};
use crate::worker::Worker;

/// How long a connection to an address outside the configuration may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How many addresses outside the configuration a worker keeps connections to.
const MAX_DIRECT: usize = 1024;

/// The live table with this worker's connections to its endpoints.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) live: Arc<Live>,
    /// In the order of the table's backends.
    backends: Box<[Rc<LocalBackend>]>,
    /// Where a mesh endpoint is known to be, for traffic that was addressed to it.
    known: HashMap<SocketAddr, (usize, usize)>,
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
}

/// A backend with this worker's connections to it.
#[derive(Debug)]
pub(crate) struct LocalBackend {
    pub(crate) backend: Arc<Backend>,
    /// In the order of its endpoints.
    pub(crate) pools: Box<[Rc<Pool>]>,
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
    /// A table with the connections of the one before it, as far as their endpoints are in both.
    pub(crate) fn new(worker: &Rc<Worker>, live: Arc<Live>, before: Option<&Self>) -> Self {
        let means = Means {
            identity: live.node.identity.clone(),
            own: Rc::new(Own::new(worker)),
            metrics: worker.metrics.clone(),
            memory: worker.memory.clone(),
        };
        let kept: HashMap<u64, Rc<Pool>> = before
            .into_iter()
            .flat_map(|before| before.backends.iter().flat_map(|backend| backend.pools.iter()))
            .map(|pool| (pool.endpoint().id(), pool.clone()))
            .collect();
        let backends: Box<[Rc<LocalBackend>]> = live
            .backends
            .iter()
            .map(|live_backend| {
                let backend = live_backend.backend.clone();
                let pool = |endpoint: &Arc<Endpoint>| {
                    kept.get(&endpoint.id()).cloned().unwrap_or_else(|| Pool::new(endpoint.clone()))
                };
                let dialer = means.dialer(
                    live_backend.connections,
                    live_backend.hosts.clone(),
                    backend.connect_timeout,
                );
                let pools: Box<[Rc<Pool>]> = backend.endpoints.iter().map(pool).collect();
                let terms = Rc::new(live_backend.terms());
                pools.iter().for_each(|pool| pool.set_terms(terms.clone()));
                Rc::new(LocalBackend {
                    pools,
                    dialer: Dialer {
                        tls_timeout: live_backend.tls_timeout(),
                        room: backend.connections.clone(),
                        ..dialer
                    },
                    series: live_backend.connections,
                    waiting_page: live_backend.waiting_page(),
                    hosts: live_backend.hosts.clone(),
                    names: live_backend.names.clone(),
                    backend,
                })
            })
            .collect();
        let mut known = HashMap::new();
        for (at, backend) in backends.iter().enumerate() {
            for (place, endpoint) in backend.backend.endpoints.iter().enumerate() {
                if matches!(endpoint.security, Security::Mesh { .. } | Security::Own) {
                    known.entry(endpoint.address).or_insert((at, place));
                }
            }
        }
        // Connections to addresses outside the configuration stay open, unless they are now inside.
        let direct = before.map(|before| before.direct.borrow().clone()).unwrap_or_default();
        let direct = direct
            .into_iter()
            .filter(|(address, backend)| {
                let plain =
                    backend.pools.iter().all(|pool| matches!(pool.endpoint().security, Security::Plain));
                plain && !known.contains_key(address)
            })
            .collect();
        let local = Self { live, backends, known, direct: RefCell::new(direct), means };
        if let Some(before) = before {
            let mut stays = HashSet::new();
            local.each_pool(|pool| {
                stays.insert(pool.endpoint().id());
            });
            before.each_pool(|pool| {
                if !stays.contains(&pool.endpoint().id()) {
                    pool.retire();
                }
            });
        }
        local
    }

    /// Each of its pools, in no order; one that several backends share more than once.
    fn each_pool(&self, act: impl FnMut(&Rc<Pool>)) {
        let direct = self.direct.borrow();
        let backends = self.backends.iter().chain(direct.values());
        backends.flat_map(|backend| backend.pools.iter()).for_each(act);
    }

    /// A backend by its place in the table.
    pub(crate) fn backend(&self, at: usize) -> Option<&Rc<LocalBackend>> {
        self.backends.get(at)
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
        let (at, place) = self.known.get(&address)?;
        let backend = self.backends.get(*at)?;
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
            direct.retain(|_, backend| !backend.pools.iter().all(|pool| pool.is_empty()));
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
    LocalBackend {
        backend: Arc::new(backend),
        pools: Box::new([pool]),
        dialer,
        series,
        waiting_page: false,
        names: Names::default(),
        hosts: None,
    }
}

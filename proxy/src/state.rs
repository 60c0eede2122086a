//! The live table: a snapshot with everything that it needs to act bound to it, made as a whole and swapped as a
//! whole. What did not change is carried over from the table before: endpoints with their load and connections,
//! balancers, budgets.

mod backend;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outrigger_balance::Limit;
use outrigger_certs::Identity;
use outrigger_config::listener::{Direction, ListenerHttp, MtlsMode, Protocol, TlsMode};
use outrigger_config::route::{HeaderModifier, HttpFilter};
use outrigger_config::snapshot::{HttpRuleEntry, ListenerEntry, Snapshot, TcpRuleEntry};
use outrigger_config::{Listener, Name};
use outrigger_http::Security;
use outrigger_http::endpoint::Origin;
use outrigger_http::forward::Policy;
use outrigger_http::h1::Limits;
use outrigger_http::serve::{BodyRate, Settings};
use outrigger_http::transform::Transforms;
use outrigger_telemetry::{
    BackendSeries, ConnectionSeries, Metrics, RequestLabels, Series, TcpLabels, TcpSeries,
};
use rustls::ServerConfig;

use crate::director::CAPTURED_OUTBOUND;
use crate::filters::Filters;
use crate::listeners::Sockets;
use crate::resolve::Addresses;
use crate::session::Session;
use crate::told::Told;

pub(crate) use backend::{Doubt, Hosts, LiveBackend};

/// One whole configuration, ready to act on. Immutable: every decision reads exactly one.
#[derive(Debug)]
pub(crate) struct Live {
    /// Counts the tables of this process.
    pub(crate) generation: u64,
    pub(crate) snapshot: Snapshot,
    /// In the order of the snapshot's listeners.
    pub(crate) listeners: Vec<Arc<LiveListener>>,
    /// In the order of the snapshot's rules.
    pub(crate) http_rules: Vec<LiveRule>,
    /// In the order of the snapshot's rules; a series for each of a rule's backends.
    pub(crate) tcp_rules: Vec<Box<[TcpSeries]>>,
    /// In the order of the snapshot's backends.
    pub(crate) backends: Vec<LiveBackend>,
    /// Where a mesh endpoint is known to be, for traffic that was addressed to it: the backend's place, and the
    /// endpoint's in it.
    pub(crate) known: HashMap<SocketAddr, (usize, usize)>,
    /// For connections to addresses outside the configuration.
    pub(crate) direct: BackendSeries,
    /// Who this node is, once it is known.
    pub(crate) node: Node,
}

/// Who this node is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    /// Its name; a proxy from a file has none.
    pub(crate) name: Option<Name>,
    /// The zone that it is said to be in.
    pub(crate) zone: Option<Name>,
    pub(crate) identity: Option<Arc<Identity>>,
    /// Terminates mutual TLS as this identity.
    pub(crate) mesh: Option<Arc<ServerConfig>>,
    /// Whether its application's traffic may be captured.
    pub(crate) captured: bool,
    /// Where its application turned out to be.
    pub(crate) applications: Applications,
}

/// Addresses of the application that captured traffic was addressed to. Locked when one is first connected to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applications(Arc<Mutex<BTreeSet<SocketAddr>>>);

impl Applications {
    /// How many are remembered: enough to tell whether the application is there.
    const MOST: usize = 64;

    /// Remembers one.
    pub(crate) fn add(&self, address: SocketAddr) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < Self::MOST {
            known.insert(address);
        }
    }

    /// Those that are known.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

#[derive(Debug)]
pub(crate) struct LiveListener {
    pub(crate) name: Name,
    pub(crate) direction: Direction,
    pub(crate) protocol: Option<Protocol>,
    /// The address bound, with its real port; `None` if it could not be.
    pub(crate) sockets: Option<Arc<Sockets>>,
    /// What its callers may do.
    pub(crate) settings: Arc<Settings>,
    /// Terminates TLS with the listener's certificates.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// Whether TLS goes on as it is.
    pub(crate) passthrough: bool,
    /// Whether there are TLSRoutes, so that it matters which name a caller asks for.
    pub(crate) named: bool,
    /// Whether only mutual TLS is accepted.
    pub(crate) strict: bool,
    /// Whether it is for the captured traffic of the application beside this proxy, and so for nobody else.
    pub(crate) private: bool,
    /// Whether a route takes connections that are not HTTP.
    pub(crate) opaque: bool,
    /// What it tells of its callers and of itself.
    pub(crate) told: Option<Box<Told>>,
    pub(crate) connections: ConnectionSeries,
    /// How many connections are open, over all tables and workers.
    pub(crate) open: Arc<AtomicU32>,
    /// How many may be.
    pub(crate) most: Option<u32>,
    /// Requests in flight, over all tables and workers, where they are limited.
    pub(crate) requests: Option<Arc<Limit>>,
    /// How long a TLS handshake with a caller may take.
    pub(crate) handshake: Option<Duration>,
    /// How long a connection that is not HTTP may be silent both ways.
    pub(crate) tcp_idle: Option<Duration>,
    /// For requests that no route takes.
    pub(crate) unrouted: Series,
    /// For connections that no route takes.
    pub(crate) unrouted_tcp: TcpSeries,
}

impl LiveListener {
    /// Whether there are more connections than there may be.
    pub(crate) fn is_over(&self) -> bool {
        self.most.is_some_and(|most| self.open.load(Ordering::Relaxed) > most)
    }
}

/// A rule with what it needs to act.
#[derive(Debug)]
pub(crate) struct LiveRule {
    pub(crate) policy: Policy,
    /// Whether it is a GRPCRoute's.
    pub(crate) grpc: bool,
    /// One for each of the rule's backends, in their order.
    pub(crate) shares: Box<[LiveShare]>,
    /// For requests that none of them takes.
    pub(crate) unrouted: Series,
    /// What it does to a request that no backend takes.
    pub(crate) filters: Option<Box<Filters>>,
    /// Keeps the requests of one session together.
    pub(crate) session: Option<Session>,
}

/// A backend's share of a rule's requests.
#[derive(Debug)]
pub(crate) struct LiveShare {
    pub(crate) series: Series,
    pub(crate) request: Box<[HeaderModifier]>,
    pub(crate) response: Box<[HeaderModifier]>,
    /// What else the rule and this backend's reference to it do to a request's head.
    pub(crate) filters: Option<Box<Filters>>,
}

impl LiveShare {
    /// What is changed in bodies, if anything is.
    pub(crate) fn bodies(&self) -> Option<&Transforms> {
        self.filters.as_deref()?.bodies()
    }
}

/// What a table is made from, beside the snapshot.
pub(crate) struct Ingredients<'a> {
    pub(crate) before: Option<&'a Live>,
    pub(crate) node: Node,
    pub(crate) addresses: &'a Addresses,
    pub(crate) sockets: &'a BTreeMap<Name, Arc<Sockets>>,
    pub(crate) tls: &'a BTreeMap<Name, Arc<ServerConfig>>,
    pub(crate) origins: &'a BTreeMap<Name, Origin>,
    pub(crate) metrics: &'a Metrics,
    /// Takes what cannot be connected to.
    pub(crate) doubt: &'a Doubt,
    /// Where the folders are from which files are served; `None` where none may be.
    pub(crate) folder: Option<&'a Path>,
}

impl Live {
    /// Makes a table of a snapshot.
    pub(crate) fn build(snapshot: Snapshot, from: &Ingredients<'_>) -> Self {
        let listeners = snapshot.listeners.iter().map(|entry| Arc::new(listener(entry, from))).collect();
        let spec = |name: &Name| {
            let entry = snapshot.listeners.iter().find(|listener| listener.name == *name);
            entry.map(|entry| &*entry.spec)
        };
        let direction = |name| spec(name).map_or(Direction::Edge, |listener| listener.direction).as_str();
        let http_rules = snapshot
            .http_rules
            .iter()
            .map(|entry| http_rule(entry, spec(&entry.listener), &snapshot, from.metrics))
            .collect();
        let tcp_rules = snapshot
            .tcp_rules
            .iter()
            .map(|entry| tcp_rule(entry, direction(&entry.listener), from.metrics))
            .collect();
        let zone = from.node.zone.as_ref().or_else(|| own_zone(&snapshot, from.node.name.as_ref()?));
        let backends: Vec<_> = snapshot
            .backends
            .iter()
            .map(|entry| LiveBackend::build(&entry.name, &entry.spec, zone, from))
            .collect();
        let known = known(&backends);
        Self {
            generation: from.before.map_or(0, |before| before.generation + 1),
            snapshot,
            listeners,
            http_rules,
            tcp_rules,
            backends,
            known,
            direct: from.metrics.backend_series(""),
            node: from.node.clone(),
        }
    }
}

/// Where the endpoints are that are reached through a sidecar; the first of several at one address.
fn known(backends: &[LiveBackend]) -> HashMap<SocketAddr, (usize, usize)> {
    let mut known = HashMap::new();
    for (at, backend) in backends.iter().enumerate() {
        for (place, endpoint) in backend.backend.endpoints.iter().enumerate() {
            if matches!(endpoint.security, Security::Mesh { .. } | Security::Own) {
                known.entry(endpoint.address).or_insert((at, place));
            }
        }
    }
    known
}

/// The zone that the endpoints of a node are in, where nobody says otherwise.
fn own_zone<'a>(snapshot: &'a Snapshot, node: &Name) -> Option<&'a Name> {
    let endpoints = snapshot.backends.iter().flat_map(|entry| &entry.spec.endpoints);
    endpoints.filter(|endpoint| endpoint.instance.as_ref() == Some(node)).find_map(|it| it.zone.as_ref())
}

/// The names that a snapshot's backends are found by, for the resolver.
pub(crate) fn hosts(snapshot: &Snapshot) -> impl Iterator<Item = Arc<str>> {
    snapshot.backends.iter().flat_map(|entry| backend::names(&entry.spec))
}

fn listener(entry: &ListenerEntry, from: &Ingredients<'_>) -> LiveListener {
    let spec = &entry.spec;
    let (direction, name) = (spec.direction.as_str(), entry.name.as_str());
    let before = from.before.and_then(|live| live.listeners.iter().find(|it| it.name == entry.name));
    LiveListener {
        name: entry.name.clone(),
        direction: spec.direction,
        protocol: spec.protocol,
        sockets: from.sockets.get(&entry.name).cloned(),
        settings: Arc::new(settings(&spec.http)),
        tls: from.tls.get(&entry.name).cloned(),
        passthrough: spec.tls.as_ref().is_some_and(|tls| tls.mode == TlsMode::Passthrough),
        named: !entry.tls.is_empty(),
        opaque: entry.tcp.is_some(),
        told: Told::by(spec),
        strict: spec.mtls.is_some_and(|mtls| mtls.mode == MtlsMode::Strict),
        private: from.node.captured && name == CAPTURED_OUTBOUND,
        connections: from.metrics.connection_series(direction, name),
        open: before.map(|before| before.open.clone()).unwrap_or_default(),
        most: spec.http.limits.connections,
        requests: requests(spec, before),
        handshake: spec.timeouts.tls_handshake.limit(),
        tcp_idle: spec.timeouts.tcp_idle.limit(),
        unrouted: from.metrics.request_series(&RequestLabels {
            direction,
            listener: name,
            route: "",
            rule: "",
            backend: "",
        }),
        unrouted_tcp: from.metrics.tcp_series(&TcpLabels {
            direction,
            listener: name,
            route: "",
            backend: "",
        }),
    }
}

/// A listener's requests in flight, with those of the table before.
fn requests(spec: &Listener, before: Option<&Arc<LiveListener>>) -> Option<Arc<Limit>> {
    let most = spec.http.limits.requests?;
    let Some(limit) = before.and_then(|before| before.requests.clone()) else {
        return Some(Limit::new(most));
    };
    limit.resize(most);
    Some(limit)
}

fn settings(http: &ListenerHttp) -> Settings {
    let (limits, timeouts) = (&http.limits, &http.timeouts);
    Settings {
        limits: Limits { bytes: limits.header_bytes as usize, fields: limits.header_fields as usize },
        streams: limits.streams_per_connection,
        header_timeout: timeouts.header(),
        idle_timeout: timeouts.idle(),
        stream_timeout: timeouts.stream(),
        max_age: timeouts.max_connection_age(),
        body_rate: limits
            .min_body_rate
            .map(|rate| BodyRate { bytes: rate.bytes_per_second.into(), grace: rate.grace.get() }),
        ..Settings::default()
    }
}

fn http_rule(
    entry: &HttpRuleEntry,
    listener: Option<&Listener>,
    snapshot: &Snapshot,
    metrics: &Metrics,
) -> LiveRule {
    let direction = listener.map_or(Direction::Edge, |listener| listener.direction).as_str();
    let form = listener.map(|listener| listener.http.path).unwrap_or_default();
    let series = |backend: &str| {
        metrics.request_series(&RequestLabels {
            direction,
            listener: entry.listener.as_str(),
            route: entry.route.as_str(),
            rule: &entry.rule,
            backend,
        })
    };
    let rule = entry.spec.rules.get(entry.index);
    let filters = rule.map(|rule| rule.filters.as_slice()).unwrap_or_default();
    let references = rule.map(|rule| rule.backend_refs.as_slice()).unwrap_or_default();
    let shares = references.iter().map(|reference| {
        let filters = || filters.iter().chain(&reference.filters);
        LiveShare {
            series: series(reference.name.as_str()),
            request: filters()
                .filter_map(|filter| match filter {
                    HttpFilter::RequestHeaderModifier(modifier) => Some(modifier.clone()),
                    _ => None,
                })
                .collect(),
            response: filters()
                .filter_map(|filter| match filter {
                    HttpFilter::ResponseHeaderModifier(modifier) => Some(modifier.clone()),
                    _ => None,
                })
                .collect(),
            filters: rule.and_then(|rule| Filters::bind(rule, &reference.filters, form, snapshot)),
        }
    });
    LiveRule {
        grpc: entry.grpc,
        policy: rule.map(|rule| Policy::new(&rule.timeouts, rule.retry.as_ref())).unwrap_or_default(),
        shares: shares.collect(),
        unrouted: series(""),
        filters: rule.and_then(|rule| Filters::bind(rule, &[], form, snapshot)),
        session: rule.and_then(|rule| {
            let spec = rule.session_persistence.as_ref()?;
            Session::new(spec, entry.route.as_str(), &entry.rule, rule)
        }),
    }
}

fn tcp_rule(entry: &TcpRuleEntry, direction: &str, metrics: &Metrics) -> Box<[TcpSeries]> {
    let series = |backend: &str| {
        metrics.tcp_series(&TcpLabels {
            direction,
            listener: entry.listener.as_str(),
            route: entry.route.as_str(),
            backend,
        })
    };
    entry.shares.refs().iter().map(|share| series(share.name.as_str())).collect()
}

//! The backends of the live table, with what did not change of the table before.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_balance::{Balancer, Budget, Limits, Load, Member, Outliers};
use outrigger_config::backend::{BackendProtocol, Endpoint as EndpointSpec, HealthCheck};
use outrigger_config::{HostPort, Name};
use outrigger_http::endpoint::{Empty, Origin};
use outrigger_http::pool::{IDLE_TIMEOUT, Terms};
use outrigger_http::room::Connections;
use outrigger_http::{Backend, Endpoint, Security};
use outrigger_telemetry::BackendSeries;
use tokio::sync::{Notify, mpsc};

use super::Ingredients;
use crate::files::{self, Folder};
use crate::resolve::{Addresses, Doubted};
use crate::session::Names;

/// A backend, and what it was made from.
#[derive(Debug, Clone)]
pub(crate) struct LiveBackend {
    pub(crate) backend: Arc<Backend>,
    /// What the backend's applications are to be spoken to in, if its configuration says.
    pub(crate) protocol: Option<BackendProtocol>,
    /// For connections to it.
    pub(crate) connections: BackendSeries,
    /// What its endpoints are called in sessions.
    pub(crate) names: Names,
    /// To have it looked up where it is now.
    pub(crate) hosts: Option<Hosts>,
    /// What it was made from, to tell whether it changed.
    spec: Arc<outrigger_config::Backend>,
    origin: Option<Origin>,
    endpoints: Vec<(EndpointSpec, SocketAddr)>,
    node: Option<Name>,
    zone: Option<Name>,
}

impl LiveBackend {
    /// Makes a backend of its configuration, or hands on the one of the table before if nothing has changed.
    pub(crate) fn build(
        name: &Name,
        spec: &Arc<outrigger_config::Backend>,
        zone: Option<&Name>,
        from: &Ingredients<'_>,
    ) -> Self {
        let before = from
            .before
            .and_then(|live| live.snapshot.backend(name.as_str()).and_then(|at| live.backends.get(at)));
        let origin = from.origins.get(name).cloned();
        let (mut endpoints, unresolved) = addresses(spec, from.addresses);
        let insecure = spec.tls.is_some() && origin.is_none();
        if insecure {
            // Never without the TLS that was asked for.
            endpoints.clear();
        }
        let node = from.node.name.clone();
        if let Some(before) = before
            && before.spec == *spec
            && before.endpoints == endpoints
            && before.node == node
            && before.zone.as_ref() == zone
            && same_origin(before.origin.as_ref(), origin.as_ref())
        {
            return before.clone();
        }
        let kept = carried_over(before, node.as_ref(), origin.as_ref());
        let mut made: Vec<_> = endpoints
            .iter()
            .map(|it| match kept.get(it) {
                Some(kept) => Arc::clone(kept),
                None => endpoint(&it.0, it.1, node.as_ref(), origin.as_ref()),
            })
            .collect();
        let mut members: Vec<Member> =
            endpoints.iter().map(|(spec, address)| member(spec, *address, zone)).collect();
        if let Some(folder) = files::place(spec, from.folder) {
            made.push(inside(&folder));
            members.push(Member::new(1));
        }
        let loads: Box<[Arc<Load>]> = made.iter().map(|endpoint| endpoint.load.clone()).collect();
        let budget = before.filter(|before| {
            before.spec.retry_constraint == spec.retry_constraint
                && before.spec.limits.retries == spec.limits.retries
        });
        let outliers = outliers(before, spec, &loads);
        let empty = loads.is_empty();
        let backend = Backend {
            name: name.shared(),
            endpoints: made.into(),
            loads,
            balancer: balancer(before, spec, &members),
            outliers,
            budget: budget.map_or_else(
                || {
                    let budget = Budget::new(&spec.retry_constraint, Instant::now());
                    Arc::new(budget.with_limit(spec.limits.retries))
                },
                |before| before.backend.budget.clone(),
            ),
            limits: limits(before, spec),
            connect_timeout: spec.connect_timeout(),
            connections: connections(name, spec, before),
            empty: match unresolved {
                _ if insecure => Some(Empty::Insecure),
                Some(host) => Some(Empty::Unresolved(host)),
                None => empty.then_some(Empty::Unset),
            },
        };
        Self {
            backend: Arc::new(backend),
            protocol: spec.protocol,
            connections: from.metrics.backend_series(name.as_str()),
            names: Names::default(),
            hosts: Hosts::of(spec, from.doubt),
            spec: spec.clone(),
            origin,
            endpoints,
            node,
            zone: zone.cloned(),
        }
    }

    /// How long its connections last, and how many there may be.
    pub(crate) fn terms(&self) -> Terms {
        let timeouts = &self.spec.timeouts;
        Terms {
            idle: timeouts.idle_connection.map_or(IDLE_TIMEOUT, |idle| idle.limit().unwrap_or(Duration::MAX)),
            max_age: timeouts.max_connection_age.and_then(outrigger_config::Duration::limit),
            room: self.backend.connections.clone(),
        }
    }

    /// How long a TLS handshake with one of its endpoints may take, if that is less than connecting may.
    pub(crate) fn tls_timeout(&self) -> Option<Duration> {
        self.spec.timeouts.tls_handshake.and_then(outrigger_config::Duration::limit)
    }

    /// The zone that this node is in, as far as this backend is concerned.
    pub(crate) const fn zone(&self) -> Option<&Name> {
        self.zone.as_ref()
    }

    /// What its endpoints were made from, in their order; not a folder.
    pub(crate) fn specs(&self) -> impl Iterator<Item = &EndpointSpec> {
        self.endpoints.iter().map(|(spec, _)| spec)
    }

    /// How its endpoints are asked whether they are well, if they are.
    pub(crate) fn check(&self) -> Option<&HealthCheck> {
        self.spec.health_check.as_ref()
    }

    /// Whether a browser gets a page to wait on while it is not up.
    pub(crate) fn waiting_page(&self) -> bool {
        self.spec.waiting_page
    }
}

/// The outlier detection of a backend. Where there is none any more, nobody is kept out for what it said.
fn outliers(
    before: Option<&LiveBackend>,
    spec: &outrigger_config::Backend,
    loads: &[Arc<Load>],
) -> Option<Arc<Outliers>> {
    let now = Instant::now();
    let before = before.and_then(|before| before.backend.outliers.as_deref());
    let Some(spec) = &spec.outlier_detection else {
        if let Some(before) = before {
            before.pardon(now);
        }
        return None;
    };
    Some(Arc::new(Outliers::new(spec, loads, before, now)))
}

/// Takes what cannot be connected to, so that there is news of it soon.
#[derive(Debug, Clone)]
pub(crate) struct Doubt {
    /// The names of which an address is concerned.
    pub(crate) names: mpsc::Sender<Doubted>,
    /// For what the control API says, where there is one.
    pub(crate) control: Option<Arc<Notify>>,
}

/// Where a backend is found, to be looked up anew when a connection to it cannot be made.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    /// The names that it is found by; empty where the configuration has its addresses.
    hosts: Doubted,
    doubt: Doubt,
}

impl Hosts {
    fn of(spec: &outrigger_config::Backend, doubt: &Doubt) -> Option<Self> {
        let hosts: Doubted = names(spec).collect();
        (!hosts.is_empty() || doubt.control.is_some()).then(|| Self { hosts, doubt: doubt.clone() })
    }

    /// Has its names looked up, or else the control API asked. Where many are waiting for that already, one more is not
    /// missed.
    pub(crate) fn doubt(&self) {
        if !self.hosts.is_empty() {
            let _ = self.doubt.names.try_send(self.hosts.clone());
        } else if let Some(control) = &self.doubt.control {
            control.notify_one();
        }
    }
}

pub(super) fn names(spec: &outrigger_config::Backend) -> impl Iterator<Item = Arc<str>> {
    spec.endpoints.iter().filter_map(|endpoint| match &endpoint.address {
        HostPort::Name(host, _) => Some(host.clone()),
        HostPort::Socket(_) => None,
    })
}

/// The addresses of a backend's endpoints, each with what is configured for it; a name stands for all its addresses.
/// Also the name that has none, if that leaves the backend without any endpoint.
fn addresses(
    spec: &outrigger_config::Backend,
    resolved: &Addresses,
) -> (Vec<(EndpointSpec, SocketAddr)>, Option<Arc<str>>) {
    let (mut found, mut missing) = (Vec::new(), None);
    for endpoint in &spec.endpoints {
        match &endpoint.address {
            HostPort::Socket(address) => found.push((endpoint.clone(), *address)),
            HostPort::Name(host, port) => {
                let none = Vec::new();
                let ips: &Vec<IpAddr> = resolved.get(host).unwrap_or(&none);
                if ips.is_empty() {
                    missing = Some(host.clone());
                }
                found.extend(ips.iter().map(|ip| (endpoint.clone(), SocketAddr::new(*ip, *port))));
            }
        }
    }
    let missing = missing.filter(|_| found.is_empty());
    (found, missing)
}

/// A backend's limits, with what is under way in the table before.
fn limits(before: Option<&LiveBackend>, spec: &outrigger_config::Backend) -> Option<Arc<Limits>> {
    let held = before.and_then(|before| before.backend.limits.as_ref());
    let same = before.is_some_and(|before| before.spec.limits == spec.limits);
    if same {
        held.cloned()
    } else {
        Limits::new(&spec.limits, held.map(|held| &**held), Instant::now()).map(Arc::new)
    }
}

/// The count of its connections, where they are limited, which goes on from the table before.
fn connections(
    name: &Name,
    spec: &outrigger_config::Backend,
    before: Option<&LiveBackend>,
) -> Option<Arc<Connections>> {
    spec.limits.connections?;
    let before = before.and_then(|before| before.backend.connections.clone());
    let connections = before.or_else(|| Connections::new(name.shared(), &spec.limits))?;
    connections.set(&spec.limits);
    Some(connections)
}

/// The endpoints of the table before by what they were made from.
fn carried_over<'a>(
    before: Option<&'a LiveBackend>,
    node: Option<&Name>,
    origin: Option<&Origin>,
) -> HashMap<&'a (EndpointSpec, SocketAddr), &'a Arc<Endpoint>> {
    let same =
        before.filter(|before| before.node.as_ref() == node && same_origin(before.origin.as_ref(), origin));
    same.into_iter().flat_map(|before| before.endpoints.iter().zip(&before.backend.endpoints)).collect()
}

/// The balancer of the table before, where nothing that it knows has changed.
fn balancer(
    before: Option<&LiveBackend>,
    spec: &outrigger_config::Backend,
    members: &[Member],
) -> Arc<Balancer> {
    let before = before.map(|before| &before.backend.balancer);
    let same = before.filter(|before| before.is_for(&spec.balance, members));
    same.inspect(|same| same.look_again())
        .cloned()
        .unwrap_or_else(|| Arc::new(Balancer::new(&spec.balance, members, Instant::now())))
}

/// An endpoint as the balancer sees it from this zone.
fn member(spec: &EndpointSpec, address: SocketAddr, zone: Option<&Name>) -> Member {
    Member {
        weight: spec.weight,
        priority: spec.priority,
        near: zone.is_some() && spec.zone.as_ref() == zone,
        key: outrigger_balance::hash(address.to_string().as_bytes()),
    }
}

fn same_origin(a: Option<&Origin>, b: Option<&Origin>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.name == b.name && Arc::ptr_eq(&a.http1, &b.http1),
        (None, None) => true,
        _ => false,
    }
}

/// The endpoint of a backend that is a folder: it has no address.
fn inside(folder: &Path) -> Arc<Endpoint> {
    let load = Arc::new(Load::new(1, Instant::now()));
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    Arc::new(Endpoint::new(nowhere, Security::Inside(Arc::new(Folder::new(folder))), load))
}

fn endpoint(
    spec: &EndpointSpec,
    address: SocketAddr,
    node: Option<&Name>,
    origin: Option<&Origin>,
) -> Arc<Endpoint> {
    let own = node.is_some() && spec.instance.as_ref() == node;
    let security = match (&spec.identity, origin) {
        _ if own => Security::Own,
        (Some(expected), _) => Security::Mesh { expected: expected.clone() },
        (None, Some(origin)) => Security::Tls(origin.clone()),
        (None, None) => Security::Plain,
    };
    let load = Arc::new(Load::new(spec.weight, Instant::now()));
    Arc::new(Endpoint::new(address, security, load))
}

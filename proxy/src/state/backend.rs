//! The backends of the live table, with what did not change of the table before.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use outrigger_balance::{Balancer, Budget, Load, Member};
use outrigger_config::backend::{BackendProtocol, Endpoint as EndpointSpec};
use outrigger_config::{HostPort, Name};
use outrigger_http::endpoint::{Empty, Origin};
use outrigger_http::{Backend, Endpoint, Security};
use outrigger_telemetry::BackendSeries;
use tokio::sync::mpsc;

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
    /// To have its names looked up, where it is found by any.
    pub(crate) hosts: Option<Hosts>,
    /// What it was made from, to tell whether it changed.
    spec: Arc<outrigger_config::Backend>,
    origin: Option<Origin>,
    endpoints: Vec<(EndpointSpec, SocketAddr)>,
    node: Option<Name>,
}

impl LiveBackend {
    /// Makes a backend of its configuration, or hands on the one of the table before if nothing has changed.
    pub(crate) fn build(name: &Name, spec: &Arc<outrigger_config::Backend>, from: &Ingredients<'_>) -> Self {
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
            && same_origin(before.origin.as_ref(), origin.as_ref())
        {
            return before.clone();
        }
        let mut made: Vec<_> = endpoints
            .iter()
            .map(|(spec, address)| {
                carried_over(before, spec, *address, node.as_ref(), origin.as_ref())
                    .unwrap_or_else(|| endpoint(spec, *address, node.as_ref(), origin.as_ref()))
            })
            .collect();
        let mut members: Vec<Member> = endpoints.iter().map(|(spec, _)| Member::new(spec.weight)).collect();
        if let Some(folder) = files::place(spec, from.folder) {
            made.push(inside(&folder));
            members.push(Member::new(1));
        }
        let loads: Box<[Arc<Load>]> = made.iter().map(|endpoint| endpoint.load.clone()).collect();
        let budget = before.filter(|before| {
            before.spec.retry_constraint == spec.retry_constraint
                && before.spec.limits.retries == spec.limits.retries
        });
        let empty = loads.is_empty();
        let backend = Backend {
            name: name.shared(),
            endpoints: made.into(),
            loads,
            balancer: Balancer::new(&spec.balance, &members),
            budget: budget.map_or_else(
                || {
                    let budget = Budget::new(&spec.retry_constraint, Instant::now());
                    Arc::new(budget.with_limit(spec.limits.retries))
                },
                |before| before.backend.budget.clone(),
            ),
            connect_timeout: spec.connect_timeout(),
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
        }
    }

    /// Whether a browser gets a page to wait on while it is not up.
    pub(crate) fn waiting_page(&self) -> bool {
        self.spec.waiting_page
    }
}

/// The names that a backend is found by, to be looked up anew when a connection to it cannot be made.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    hosts: Doubted,
    doubt: mpsc::Sender<Doubted>,
}

impl Hosts {
    fn of(spec: &outrigger_config::Backend, doubt: &mpsc::Sender<Doubted>) -> Option<Self> {
        let hosts: Doubted = names(spec).collect();
        (!hosts.is_empty()).then(|| Self { hosts, doubt: doubt.clone() })
    }

    /// Has them looked up. Where many are waiting for that already, one more is not missed.
    pub(crate) fn doubt(&self) {
        let _ = self.doubt.try_send(self.hosts.clone());
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

fn carried_over(
    before: Option<&LiveBackend>,
    spec: &EndpointSpec,
    address: SocketAddr,
    node: Option<&Name>,
    origin: Option<&Origin>,
) -> Option<Arc<Endpoint>> {
    let before = before?;
    if before.node.as_ref() != node || !same_origin(before.origin.as_ref(), origin) {
        return None;
    }
    let at = before.endpoints.iter().position(|(s, a)| s == spec && *a == address)?;
    before.backend.endpoints.get(at).cloned()
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

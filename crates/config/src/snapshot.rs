//! A snapshot: one immutable, complete, validated configuration. Every decision of the data plane reads exactly one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::backend::Backend;
use crate::listener::{Certificate, Listener};
use crate::matching::HttpTable;
use crate::resource::{Key, Kind, Resource, Spec};
use crate::route::{HttpRoute, TcpRoute, TcpRule, TlsRoute};
use crate::scalar::{Name, Timestamp};
use crate::server_name::NameTable;
use crate::shares::Shares;

/// One immutable, complete, validated configuration, laid out for the data plane: what refers to something else in
/// it does so by index.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The revision it is.
    pub revision: u64,
    /// The listeners, sorted by name.
    pub listeners: Vec<ListenerEntry>,
    /// Every rule of an HTTPRoute or GRPCRoute, once for each listener it is attached to.
    pub http_rules: Vec<HttpRuleEntry>,
    /// Every TCPRoute and TLSRoute that takes connections, once for each listener.
    pub tcp_rules: Vec<TcpRuleEntry>,
    /// The backends, sorted by name.
    pub backends: Vec<BackendEntry>,
    /// The certificates, sorted by name.
    pub certificates: Vec<(Name, Arc<Certificate>)>,
    resources: Vec<Arc<Resource>>,
}

/// A listener with its routes.
#[derive(Debug, Clone)]
pub struct ListenerEntry {
    /// Its name.
    pub name: Name,
    /// What it says.
    pub spec: Arc<Listener>,
    /// Which rule takes an HTTP request.
    pub http: HttpTable,
    /// What takes a connection that is not HTTP: an index into [`Snapshot::tcp_rules`]. Of several TCPRoutes the
    /// oldest, then the first by name.
    pub tcp: Option<usize>,
    /// What takes a TLS connection, by the name asked for: indices into [`Snapshot::tcp_rules`]. Before `tcp`.
    pub tls: NameTable,
}

/// A rule of an HTTPRoute or GRPCRoute at one listener.
#[derive(Debug, Clone)]
pub struct HttpRuleEntry {
    /// The listener.
    pub listener: Name,
    /// The route.
    pub route: Name,
    /// The rule's name, or its index in the route as text.
    pub rule: Arc<str>,
    /// Whether the route is a GRPCRoute.
    pub grpc: bool,
    /// The whole route; a GRPCRoute as the HTTPRoute that it amounts to.
    pub spec: Arc<HttpRoute>,
    /// The rule's index in the route.
    pub index: usize,
    /// Its backends, by weight.
    pub shares: Shares,
}

impl HttpRuleEntry {
    /// The kind of the route.
    pub const fn kind(&self) -> Kind {
        if self.grpc { Kind::GrpcRoute } else { Kind::HttpRoute }
    }
}

/// The rule of a TCPRoute or TLSRoute at one listener.
#[derive(Debug, Clone)]
pub struct TcpRuleEntry {
    /// The listener.
    pub listener: Name,
    /// The route.
    pub route: Name,
    /// The rule's name, or its index in the route as text.
    pub rule: Arc<str>,
    /// Its backends, by weight.
    pub shares: Shares,
}

/// A backend.
#[derive(Debug, Clone)]
pub struct BackendEntry {
    /// Its name.
    pub name: Name,
    /// What it says.
    pub spec: Arc<Backend>,
}

impl Snapshot {
    /// Lays out the resources. Of two with the same kind and name, the later counts. A reference to what is not there is
    /// legal: a route waits for its listener, and the share of a missing backend gets 503.
    pub fn build(revision: u64, resources: impl IntoIterator<Item = Arc<Resource>>) -> Self {
        let by_key: BTreeMap<Key, Arc<Resource>> = resources.into_iter().map(|r| (r.key(), r)).collect();
        let mut builder = Builder::default();
        for (key, resource) in &by_key {
            builder.sort(&key.name, &resource.spec);
        }
        let mut snapshot = builder.build();
        snapshot.revision = revision;
        snapshot.resources = by_key.into_values().collect();
        snapshot
    }

    /// The index of a backend in [`Snapshot::backends`].
    pub fn backend(&self, name: &str) -> Option<usize> {
        self.backends.binary_search_by(|backend| backend.name.as_str().cmp(name)).ok()
    }

    /// Every resource, sorted by kind and name.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.iter()
    }

    /// Every resource as a file would have it: under its kind in the plural, its name beside its fields.
    pub fn resources_json(&self) -> Value {
        let mut file = Map::new();
        for resource in &self.resources {
            let mut object = Map::from_iter([("name".to_owned(), resource.name.as_str().into())]);
            if let Value::Object(spec) = resource.spec_json() {
                object.extend(spec);
            }
            let list = file.entry(resource.kind().plural()).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(Value::Object(object));
            }
        }
        Value::Object(file)
    }
}

/// The resources by kind, each kind sorted by name.
#[derive(Default)]
struct Builder {
    listeners: Vec<(Name, Arc<Listener>)>,
    /// With whether it is a GRPCRoute.
    http_routes: Vec<(Name, (Arc<HttpRoute>, bool))>,
    tls_routes: Vec<(Name, Arc<TlsRoute>)>,
    tcp_routes: Vec<(Name, Arc<TcpRoute>)>,
    backends: Vec<BackendEntry>,
    certificates: Vec<(Name, Arc<Certificate>)>,
}

impl Builder {
    fn sort(&mut self, name: &Name, spec: &Spec) {
        let name = name.clone();
        match spec {
            Spec::Listener(spec) => self.listeners.push((name, spec.clone())),
            Spec::HttpRoute(spec) => self.http_routes.push((name, (spec.clone(), false))),
            Spec::GrpcRoute(spec) => self.http_routes.push((name, (Arc::new(spec.to_http()), true))),
            Spec::TlsRoute(spec) => self.tls_routes.push((name, spec.clone())),
            Spec::TcpRoute(spec) => self.tcp_routes.push((name, spec.clone())),
            Spec::Backend(spec) => self.backends.push(BackendEntry { name, spec: spec.clone() }),
            Spec::Certificate(spec) => self.certificates.push((name, spec.clone())),
        }
    }

    fn build(mut self) -> Snapshot {
        let backends: HashMap<Name, usize> =
            self.backends.iter().enumerate().map(|(index, backend)| (backend.name.clone(), index)).collect();
        by_age(&mut self.http_routes, |(route, _)| route.creation_timestamp);
        by_age(&mut self.tls_routes, |route| route.creation_timestamp);
        by_age(&mut self.tcp_routes, |route| route.creation_timestamp);
        let http = attached(&self.http_routes, |(route, _)| &route.listeners);
        let tls = attached(&self.tls_routes, |route| &route.listeners);
        let tcp = attached(&self.tcp_routes, |route| &route.listeners);
        let mut snapshot =
            Snapshot { backends: self.backends, certificates: self.certificates, ..Snapshot::default() };
        for (name, spec) in self.listeners {
            let first = snapshot.http_rules.len();
            for (route, spec) in http.get(&name).into_iter().flatten() {
                snapshot.http_rules.extend(http_rules(&name, route, spec, &backends));
            }
            let rules = snapshot.http_rules.get(first..).unwrap_or_default();
            let table = HttpTable::new(rules, first, spec.http.path);
            let route = tcp.get(&name).and_then(|routes| routes.first());
            let rule =
                route.and_then(|(route, spec)| Some(tcp_rule(&name, route, spec.rules.first()?, &backends)));
            let tcp = rule.map(|rule| {
                snapshot.tcp_rules.push(rule);
                snapshot.tcp_rules.len() - 1
            });
            let mut names = NameTable::default();
            for (route, spec) in tls.get(&name).into_iter().flatten() {
                let Some(rule) = spec.rules.first() else { continue };
                names.add(&spec.hostnames, snapshot.tcp_rules.len());
                snapshot.tcp_rules.push(tcp_rule(&name, route, rule, &backends));
            }
            snapshot.listeners.push(ListenerEntry { name, spec, http: table, tcp, tls: names });
        }
        snapshot
    }
}

/// Puts the oldest first, and those without a time last; of the same age they stay sorted by name.
fn by_age<T>(routes: &mut [(Name, T)], made: impl Fn(&T) -> Option<Timestamp>) {
    routes.sort_by_key(|(_, route)| {
        let made = made(route);
        (made.is_none(), made)
    });
}

/// The routes of each listener, in their order.
fn attached<T>(
    routes: &[(Name, T)],
    listeners: impl Fn(&T) -> &Vec<Name>,
) -> HashMap<&Name, Vec<&(Name, T)>> {
    let mut by_listener = HashMap::<&Name, Vec<_>>::new();
    for route in routes {
        for listener in listeners(&route.1) {
            by_listener.entry(listener).or_default().push(route);
        }
    }
    by_listener
}

fn http_rules<'a>(
    listener: &'a Name,
    route: &'a Name,
    (spec, grpc): &'a (Arc<HttpRoute>, bool),
    backends: &'a HashMap<Name, usize>,
) -> impl Iterator<Item = HttpRuleEntry> + 'a {
    spec.rules.iter().enumerate().map(move |(index, rule)| {
        let refs =
            rule.backend_refs.iter().map(|r| (r.name.clone(), r.weight, backends.get(&r.name).copied()));
        HttpRuleEntry {
            listener: listener.clone(),
            route: route.clone(),
            rule: rule_name(rule.name.as_ref(), index),
            grpc: *grpc,
            spec: spec.clone(),
            index,
            shares: Shares::new(refs),
        }
    })
}

fn tcp_rule(listener: &Name, route: &Name, rule: &TcpRule, backends: &HashMap<Name, usize>) -> TcpRuleEntry {
    let refs = rule.backend_refs.iter().map(|r| (r.name.clone(), r.weight, backends.get(&r.name).copied()));
    TcpRuleEntry {
        listener: listener.clone(),
        route: route.clone(),
        rule: rule_name(rule.name.as_ref(), 0),
        shares: Shares::new(refs),
    }
}

fn rule_name(name: Option<&Name>, index: usize) -> Arc<str> {
    name.map_or_else(|| index.to_string().into(), Name::shared)
}

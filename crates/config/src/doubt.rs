//! What is legal in a file and most likely not meant: references to what is not there, and routes that take nothing.

use std::collections::HashMap;

use crate::listener::Protocol;
use crate::resource::{Key, Kind, Resource, Spec};
use crate::route::{HttpFilter, HttpRule};
use crate::scalar::Name;

/// Something that is most likely not meant.
pub(crate) struct Doubt {
    pub(crate) key: Key,
    /// The field, from the object's spec.
    pub(crate) field: String,
    pub(crate) reason: String,
}

/// A field that refers to another object.
struct Reference {
    field: String,
    target: Key,
}

/// Looks through the resources; `known` tells whether an object of that kind and name is there, valid or not.
pub(crate) fn doubts(resources: &[Resource], known: impl Fn(&Key) -> bool) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    let protocols = protocols(resources);
    let mut tcp = HashMap::<Name, Name>::new();
    for resource in sorted(resources) {
        for Reference { field, target } in references(&resource.spec) {
            let reason = if known(&target) {
                unused(resource, &target, &protocols, &mut tcp)
            } else {
                Some(format!("there is no {} `{}`", noun(target.kind), target.name))
            };
            doubts.extend(reason.map(|reason| Doubt { key: resource.key(), field, reason }));
        }
    }
    doubts
}

/// By name, because of several TCPRoutes at a listener the first by name takes the connections.
fn sorted(resources: &[Resource]) -> Vec<&Resource> {
    let mut sorted: Vec<&Resource> = resources.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    sorted
}

fn protocols(resources: &[Resource]) -> HashMap<Name, Protocol> {
    let listeners = resources.iter().filter_map(|resource| match &resource.spec {
        Spec::Listener(listener) => Some((resource.name.clone(), listener.protocol?)),
        _ => None,
    });
    listeners.collect()
}

/// Why a route takes nothing from a listener that it is attached to.
fn unused(
    route: &Resource,
    listener: &Key,
    protocols: &HashMap<Name, Protocol>,
    tcp: &mut HashMap<Name, Name>,
) -> Option<String> {
    if listener.kind != Kind::Listener {
        return None;
    }
    let name = &listener.name;
    match (route.kind(), protocols.get(name)) {
        (Kind::HttpRoute | Kind::GrpcRoute, Some(Protocol::Tcp | Protocol::Tls)) => {
            Some(format!("listener `{name}` speaks no HTTP: this route takes nothing from it"))
        }
        (Kind::TcpRoute, Some(Protocol::Http | Protocol::Https)) => {
            Some(format!("listener `{name}` speaks HTTP alone: this route takes nothing from it"))
        }
        (Kind::TlsRoute, Some(Protocol::Http | Protocol::Https | Protocol::Tcp)) => {
            Some(format!("listener `{name}` has no `protocol: TLS`: this route takes nothing from it"))
        }
        (Kind::TcpRoute, _) => {
            let first = tcp.entry(name.clone()).or_insert_with(|| route.name.clone());
            (*first != route.name)
                .then(|| format!("tcpRoutes `{first}` takes the connections of listener `{name}` already"))
        }
        _ => None,
    }
}

fn references(spec: &Spec) -> Vec<Reference> {
    match spec {
        Spec::Listener(listener) => {
            let refs = listener
                .tls
                .iter()
                .flat_map(|tls| &tls.certificate_refs)
                .map(|certificate| &certificate.name);
            refer(Kind::Certificate, refs, |index| format!("tls.certificateRefs[{index}].name"))
        }
        Spec::HttpRoute(route) => {
            let rules = route.rules.iter().map(|rule| rule.backend_refs.iter().map(|backend| &backend.name));
            let mut references = of_route(&route.listeners, rules);
            route.rules.iter().enumerate().for_each(|(index, rule)| of_filters(index, rule, &mut references));
            references
        }
        Spec::GrpcRoute(route) => {
            let rules = route.rules.iter().map(|rule| rule.backend_refs.iter().map(|backend| &backend.name));
            of_route(&route.listeners, rules)
        }
        Spec::TlsRoute(route) => {
            let rules = route.rules.iter().map(|rule| rule.backend_refs.iter().map(|backend| &backend.name));
            of_route(&route.listeners, rules)
        }
        Spec::TcpRoute(route) => {
            let rules = route.rules.iter().map(|rule| rule.backend_refs.iter().map(|backend| &backend.name));
            of_route(&route.listeners, rules)
        }
        Spec::Backend(_) | Spec::Certificate(_) => Vec::new(),
    }
}

fn of_route<'a>(
    listeners: &[Name],
    rules: impl Iterator<Item = impl Iterator<Item = &'a Name>>,
) -> Vec<Reference> {
    let mut references = refer(Kind::Listener, listeners, |index| format!("listeners[{index}]"));
    for (rule, names) in rules.enumerate() {
        let field = |index| format!("rules[{rule}].backendRefs[{index}].name");
        references.extend(refer(Kind::Backend, names, field));
    }
    references
}

/// The backends that a rule's filters name.
fn of_filters(index: usize, rule: &HttpRule, references: &mut Vec<Reference>) {
    let mut lists = vec![(format!("rules[{index}].filters"), &rule.filters)];
    for (place, backend) in rule.backend_refs.iter().enumerate() {
        lists.push((format!("rules[{index}].backendRefs[{place}].filters"), &backend.filters));
    }
    for (at, filters) in lists {
        for (place, filter) in filters.iter().enumerate() {
            let (field, name) = match filter {
                HttpFilter::RequestMirror(mirror) => ("requestMirror", &mirror.backend_ref.name),
                HttpFilter::ExternalAuth(auth) => ("externalAuth", &auth.backend_ref.name),
                _ => continue,
            };
            let target = Key { kind: Kind::Backend, name: name.clone() };
            references.push(Reference { field: format!("{at}[{place}].{field}.backendRef.name"), target });
        }
    }
}

fn refer<'a>(
    kind: Kind,
    names: impl IntoIterator<Item = &'a Name>,
    field: impl Fn(usize) -> String,
) -> Vec<Reference> {
    let names = names.into_iter().enumerate();
    names
        .map(|(index, name)| Reference { field: field(index), target: Key { kind, name: name.clone() } })
        .collect()
}

const fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Listener => "listener",
        Kind::HttpRoute => "HTTPRoute",
        Kind::GrpcRoute => "GRPCRoute",
        Kind::TlsRoute => "TLSRoute",
        Kind::TcpRoute => "TCPRoute",
        Kind::Backend => "backend",
        Kind::Certificate => "certificate",
    }
}

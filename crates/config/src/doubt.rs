//! What is legal in a file and most likely not meant: references to what is not there, routes that take nothing, fields that
//! change nothing.

use std::collections::HashMap;

use self::backends::{Backends, Named};
use crate::listener::Protocol;
use crate::resource::{Key, Kind, Resource, Spec};
use crate::route::{GrpcMatch, HttpMatch};
use crate::scalar::Name;

mod backends;
mod vain;

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
    let mut backends = Backends::new(resources);
    for resource in sorted(resources) {
        let mut doubt = |field, reason| doubts.push(Doubt { key: resource.key(), field, reason });
        for Reference { field, target } in references(&resource.spec) {
            if !known(&target) {
                doubt(field, format!("there is no {} `{}`", noun(target.kind), target.name));
            } else if let Some(reason) = unused(resource, &target, &protocols, &mut tcp) {
                doubt(field, reason);
            }
        }
        for Named { at, object } in backends::named(&resource.spec) {
            if known(&Key { kind: Kind::Backend, name: object.name.clone() }) {
                backends.mistaken(object, |field, reason| doubt(format!("{at}.{field}"), reason));
            } else {
                doubt(format!("{at}.name"), format!("there is no backend `{}`", object.name));
            }
        }
        ignored(&resource.spec, &mut doubt);
        vain::vain(&resource.spec, &mut doubt);
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

/// The listeners of a route, and the certificates of a listener.
fn references(spec: &Spec) -> Vec<Reference> {
    let listeners = match spec {
        Spec::Listener(listener) => {
            let refs = listener.tls.iter().flat_map(|tls| &tls.certificate_refs).map(|r| &r.name);
            return refer(Kind::Certificate, refs, |index| format!("tls.certificateRefs[{index}].name"));
        }
        Spec::HttpRoute(route) => &route.listeners,
        Spec::GrpcRoute(route) => &route.listeners,
        Spec::TlsRoute(route) => &route.listeners,
        Spec::TcpRoute(route) => &route.listeners,
        Spec::Backend(_) | Spec::Certificate(_) => return Vec::new(),
    };
    refer(Kind::Listener, listeners, |index| format!("listeners[{index}]"))
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

/// Headers and query parameters that are in the list of a match already (Gateway API, `HTTPHeaderMatch.name`).
fn ignored(spec: &Spec, doubt: &mut impl FnMut(String, String)) {
    match spec {
        Spec::HttpRoute(route) => {
            for (rule, matches) in route.rules.iter().map(|rule| &rule.matches).enumerate() {
                for (index, HttpMatch { headers, query_params, .. }) in matches.iter().enumerate() {
                    let at = format!("rules[{rule}].matches[{index}]");
                    repeated(&format!("{at}.headers"), headers.iter().map(|h| h.name.0.as_str()), doubt);
                    repeated(&format!("{at}.queryParams"), query_params.iter().map(|q| &*q.name), doubt);
                }
            }
        }
        Spec::GrpcRoute(route) => {
            for (rule, matches) in route.rules.iter().map(|rule| &rule.matches).enumerate() {
                for (index, GrpcMatch { headers, .. }) in matches.iter().enumerate() {
                    let at = format!("rules[{rule}].matches[{index}].headers");
                    repeated(&at, headers.iter().map(|h| h.name.0.as_str()), doubt);
                }
            }
        }
        _ => {}
    }
}

fn repeated<'a>(at: &str, names: impl Iterator<Item = &'a str>, doubt: &mut impl FnMut(String, String)) {
    let mut seen = Vec::new();
    for (index, name) in names.enumerate() {
        if seen.contains(&name) {
            let reason =
                format!("`{name}` is in the list already: the first of them counts, this one does not");
            doubt(format!("{at}[{index}].name"), reason);
        }
        seen.push(name);
    }
}

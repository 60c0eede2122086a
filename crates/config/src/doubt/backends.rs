//! References to backends that say more than a name, and mean less by it than one would think.

use std::collections::HashMap;

use crate::backend::Backend;
use crate::resource::{Resource, Spec};
use crate::route::{BackendObject, BackendRef, HttpFilter, TcpRule};
use crate::scalar::Name;

/// A reference to a backend.
pub(super) struct Named<'a> {
    /// Where it stands in the object's spec: `rules[0].backendRefs[1]`.
    pub(super) at: String,
    pub(super) object: BackendObject<'a>,
}

/// The backends, and what references said of them so far.
pub(super) struct Backends<'a> {
    specs: HashMap<&'a Name, &'a Backend>,
    namespaces: HashMap<&'a Name, &'a Name>,
}

impl<'a> Backends<'a> {
    pub(super) fn new(resources: &'a [Resource]) -> Self {
        let specs = resources.iter().filter_map(|resource| match &resource.spec {
            Spec::Backend(backend) => Some((&resource.name, &**backend)),
            _ => None,
        });
        Self { specs: specs.collect(), namespaces: HashMap::new() }
    }

    /// What a reference says, and the name alone decides otherwise: a port that the endpoints do not have, and a namespace
    /// that would tell one backend from another.
    pub(super) fn mistaken(&mut self, object: BackendObject<'a>, mut doubt: impl FnMut(&str, String)) {
        let name = object.name;
        let endpoints = self.specs.get(name).map_or(&[][..], |backend| &backend.endpoints);
        if let Some(port) = object.port
            && let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.address.port() != port.get())
        {
            let reason = format!("{port} is not used: backend `{name}` is at `{}`", endpoint.address);
            doubt("port", reason);
        }
        if let Some(namespace) = object.namespace {
            let first = *self.namespaces.entry(name).or_insert(namespace);
            if first != namespace {
                let reason = format!(
                    "`{namespace}` is not used: there is one backend `{name}`, also for namespace `{first}`"
                );
                doubt("namespace", reason);
            }
        }
    }
}

/// Every reference to a backend.
pub(super) fn named(spec: &Spec) -> Vec<Named<'_>> {
    let mut found = Vec::new();
    match spec {
        Spec::HttpRoute(route) => {
            for (index, rule) in route.rules.iter().enumerate() {
                of_rule(&format!("rules[{index}]"), &rule.filters, &rule.backend_refs, &mut found);
            }
        }
        Spec::GrpcRoute(route) => {
            for (index, rule) in route.rules.iter().enumerate() {
                of_rule(&format!("rules[{index}]"), &rule.filters, &rule.backend_refs, &mut found);
            }
        }
        Spec::TlsRoute(route) => of_connections(&route.rules, &mut found),
        Spec::TcpRoute(route) => of_connections(&route.rules, &mut found),
        Spec::Listener(_) | Spec::Backend(_) | Spec::Certificate(_) => {}
    }
    found
}

fn of_rule<'a>(at: &str, filters: &'a [HttpFilter], refs: &'a [BackendRef], found: &mut Vec<Named<'a>>) {
    of_filters(at, filters, found);
    for (index, reference) in refs.iter().enumerate() {
        let at = format!("{at}.backendRefs[{index}]");
        of_filters(&at, &reference.filters, found);
        found.push(Named { at, object: reference.object() });
    }
}

fn of_filters<'a>(at: &str, filters: &'a [HttpFilter], found: &mut Vec<Named<'a>>) {
    for (index, filter) in filters.iter().enumerate() {
        let (field, reference) = match filter {
            HttpFilter::RequestMirror(mirror) => ("requestMirror", &mirror.backend_ref),
            HttpFilter::ExternalAuth(auth) => ("externalAuth", &auth.backend_ref),
            _ => continue,
        };
        let at = format!("{at}.filters[{index}].{field}.backendRef");
        found.push(Named { at, object: reference.object() });
    }
}

fn of_connections<'a>(rules: &'a [TcpRule], found: &mut Vec<Named<'a>>) {
    for (rule, TcpRule { backend_refs, .. }) in rules.iter().enumerate() {
        for (index, reference) in backend_refs.iter().enumerate() {
            found.push(Named {
                at: format!("rules[{rule}].backendRefs[{index}]"),
                object: reference.object(),
            });
        }
    }
}

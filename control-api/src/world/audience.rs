//! Which nodes an object concerns. Worked out for all objects at once, at each commit, so that a change costs each
//! connected node no more than a look at what changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use outrigger_config::resource::Spec;
use outrigger_config::{Key, Kind, Name};

use super::Object;

/// The listeners for captured traffic, which every node has by itself where no resource has their name.
const BUILT_IN: [&str; 2] = ["outbound", "inbound"];

/// The nodes that an object concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Every node there is or will be.
    Everyone,
    /// These, which may be none.
    Nodes(BTreeSet<Name>),
}

impl Audience {
    const fn nobody() -> Self {
        Self::Nodes(BTreeSet::new())
    }

    /// Whether `node` is among them.
    pub fn includes(&self, node: &Name) -> bool {
        match self {
            Self::Everyone => true,
            Self::Nodes(nodes) => nodes.contains(node),
        }
    }

    fn join(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Everyone, _) => {}
            (_, Self::Everyone) => *self = Self::Everyone,
            (Self::Nodes(mine), Self::Nodes(theirs)) => mine.extend(theirs.iter().cloned()),
        }
    }
}

/// Who each object is for. A reference to what is not there concerns nobody until it is.
pub(super) fn all(objects: &BTreeMap<Key, Arc<Object>>) -> BTreeMap<Key, Audience> {
    let mut listeners: HashMap<&Name, Audience> = HashMap::new();
    let mut certificates: HashMap<&Name, Audience> = HashMap::new();
    let mut backends: HashMap<&Name, Audience> = HashMap::new();
    let mut routes: HashMap<&Key, Audience> = HashMap::new();

    for object in objects.values() {
        if let Spec::Listener(listener) = &object.resource.spec {
            let audience = if listener.nodes.is_empty() {
                Audience::Everyone
            } else {
                Audience::Nodes(listener.nodes.iter().cloned().collect())
            };
            for reference in listener.tls.iter().flat_map(|tls| &tls.certificate_refs) {
                join(&mut certificates, &reference.name, &audience);
            }
            listeners.insert(&object.resource.name, audience);
        }
    }
    for (key, object) in objects {
        let (attached, references) = match &object.resource.spec {
            Spec::HttpRoute(route) => {
                let rules = route.rules.iter().flat_map(|rule| &rule.backend_refs);
                (&route.listeners, rules.map(|reference| &reference.name).collect::<Vec<_>>())
            }
            Spec::GrpcRoute(route) => {
                let rules = route.rules.iter().flat_map(|rule| &rule.backend_refs);
                (&route.listeners, rules.map(|reference| &reference.name).collect())
            }
            Spec::TlsRoute(route) => {
                let rules = route.rules.iter().flat_map(|rule| &rule.backend_refs);
                (&route.listeners, rules.map(|reference| &reference.name).collect())
            }
            Spec::TcpRoute(route) => {
                let rules = route.rules.iter().flat_map(|rule| &rule.backend_refs);
                (&route.listeners, rules.map(|reference| &reference.name).collect())
            }
            Spec::Listener(_) | Spec::Backend(_) | Spec::Certificate(_) => continue,
        };
        let mut audience = Audience::nobody();
        for name in attached {
            if BUILT_IN.contains(&name.as_str()) {
                audience.join(&Audience::Everyone);
            } else if let Some(opener) = listeners.get(name) {
                audience.join(opener);
            }
        }
        for backend in references {
            join(&mut backends, backend, &audience);
        }
        routes.insert(key, audience);
    }

    let mut audience_of = |key: &Key, object: &Object| match (key.kind, &object.resource.spec) {
        (Kind::Listener, _) => listeners.remove(&key.name),
        (Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute, _) => routes.remove(key),
        (Kind::Certificate, _) => certificates.remove(&key.name),
        // What is captured on its way out can be for any address of the mesh, from any node.
        (_, Spec::Backend(backend))
            if backend.endpoints.iter().any(|endpoint| endpoint.identity.is_some()) =>
        {
            Some(Audience::Everyone)
        }
        (Kind::Backend, _) => backends.remove(&key.name),
    };
    objects
        .iter()
        .map(|(key, object)| (key.clone(), audience_of(key, object).unwrap_or_else(Audience::nobody)))
        .collect()
}

fn join<'a>(audiences: &mut HashMap<&'a Name, Audience>, name: &'a Name, audience: &Audience) {
    audiences.entry(name).or_insert_with(Audience::nobody).join(audience);
}

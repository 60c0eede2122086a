//! References to backends, as rules and filters have them (Gateway API, `BackendObjectReference`). The name alone finds
//! the backend: what else such a reference says in a cluster is kept, so that it can be pasted and be pasted back.

use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::HttpFilter;
use crate::backend::{is_one, one};
use crate::scalar::Name;

/// A backend's share of a rule's requests (Gateway API, `HTTPBackendRef`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendRef {
    /// The API group of what it names in a cluster: empty, as that of Services. It is kept, and not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 0))]
    pub group: Option<Box<str>>,
    /// The kind of what it names in a cluster. It is kept, and not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<BackendRefKind>,
    /// The backend. It may not be there yet: its share then gets 503.
    pub name: Name,
    /// The namespace of what it names in a cluster. It is kept, and not used: the name alone finds the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// The port of the Service that it names in a cluster. It is kept, and not used: a backend has its endpoints' ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
    /// Its share, in proportion to the sum of the rule's weights. 0: none.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
    /// What is changed on the way to this backend alone, after the rule's own filters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub filters: Vec<HttpFilter>,
}

/// A backend's share of a rule's connections (Gateway API, `BackendRef`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpBackendRef {
    /// The API group of what it names in a cluster: empty, as that of Services. It is kept, and not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 0))]
    pub group: Option<Box<str>>,
    /// The kind of what it names in a cluster. It is kept, and not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<BackendRefKind>,
    /// The backend.
    pub name: Name,
    /// The namespace of what it names in a cluster. It is kept, and not used: the name alone finds the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// The port of the Service that it names in a cluster. It is kept, and not used: a backend has its endpoints' ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
    /// Its share, in proportion to the sum of the rule's weights. 0: none.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
}

/// The backend that a filter names (Gateway API, `BackendObjectReference`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilterBackend {
    /// The API group of what it names in a cluster: empty, as that of Services. It is kept, and not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 0))]
    pub group: Option<Box<str>>,
    /// The kind of what it names in a cluster. It is kept, and not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<BackendRefKind>,
    /// The backend. It may not be there yet: nothing is copied then, and nothing is authorized.
    pub name: Name,
    /// The namespace of what it names in a cluster. It is kept, and not used: the name alone finds the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Name>,
    /// The port of the Service that it names in a cluster. It is kept, and not used: a backend has its endpoints' ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
}

/// What a reference names in a cluster; here it is a backend in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BackendRefKind {
    /// A Service of Kubernetes.
    Service,
    /// A backend, as this configuration has them.
    Backend,
}

/// What every reference to a backend has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BackendObject<'a> {
    pub(crate) group: Option<&'a str>,
    pub(crate) name: &'a Name,
    pub(crate) namespace: Option<&'a Name>,
    pub(crate) port: Option<NonZeroU16>,
}

macro_rules! object {
    ($($reference:ty),*) => {$(
        impl $reference {
            pub(crate) fn object(&self) -> BackendObject<'_> {
                BackendObject {
                    group: self.group.as_deref(),
                    name: &self.name,
                    namespace: self.namespace.as_ref(),
                    port: self.port,
                }
            }
        }
    )*};
}

object!(BackendRef, TcpBackendRef, FilterBackend);

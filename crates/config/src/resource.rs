//! Resources: the objects of the model, one by one, as a file, the REST API or the control stream carries them.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::listener::{Certificate, Listener};
use crate::route::{HttpRoute, TcpRoute};
use crate::scalar::Name;

/// The kinds of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// An address that accepts.
    Listener,
    /// Maps requests to backends.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// Maps connections to backends.
    #[serde(rename = "TCPRoute")]
    TcpRoute,
    /// A named service.
    Backend,
    /// A certificate chain and its key, in files.
    Certificate,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::Listener, Self::HttpRoute, Self::TcpRoute, Self::Backend, Self::Certificate];

    /// As a resource names it: `HTTPRoute`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "Listener",
            Self::HttpRoute => "HTTPRoute",
            Self::TcpRoute => "TCPRoute",
            Self::Backend => "Backend",
            Self::Certificate => "Certificate",
        }
    }

    /// The key of a file, and the segment of a REST path, that holds objects of this kind: `httpRoutes`.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Listener => "listeners",
            Self::HttpRoute => "httpRoutes",
            Self::TcpRoute => "tcpRoutes",
            Self::Backend => "backends",
            Self::Certificate => "certificates",
        }
    }

    /// The kind of either spelling, upper and lower case aside: `HTTPRoute`, `httpRoutes`, `httproute`.
    pub fn find(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| text.eq_ignore_ascii_case(kind.as_str()) || text.eq_ignore_ascii_case(kind.plural()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What tells a resource from every other: its kind and name. Written `HTTPRoute/shop`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its name, unique within the kind.
    pub name: Name,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// What a resource says, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// An address that accepts.
    Listener(Listener),
    /// Maps requests to backends.
    HttpRoute(HttpRoute),
    /// Maps connections to backends.
    TcpRoute(TcpRoute),
    /// A named service.
    Backend(Backend),
    /// A certificate chain and its key, in files.
    Certificate(Certificate),
}

/// One valid object of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: Name,
    /// What it says.
    pub spec: Spec,
}

/// A resource on the wire: `{"kind": "HTTPRoute", "name": "shop", "spec": {…}}`.
#[derive(Serialize)]
struct Wire<'a, T> {
    kind: Kind,
    name: &'a Name,
    spec: &'a T,
}

impl Serialize for Resource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, name) = (self.kind(), &self.name);
        match &self.spec {
            Spec::Listener(spec) => Wire { kind, name, spec }.serialize(serializer),
            Spec::HttpRoute(spec) => Wire { kind, name, spec }.serialize(serializer),
            Spec::TcpRoute(spec) => Wire { kind, name, spec }.serialize(serializer),
            Spec::Backend(spec) => Wire { kind, name, spec }.serialize(serializer),
            Spec::Certificate(spec) => Wire { kind, name, spec }.serialize(serializer),
        }
    }
}

/// Why an object was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// The field, from the object's spec: `rules[0].timeouts.request`; `spec` itself where it is the whole.
    pub field: Cow<'static, str>,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl Resource {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self.spec {
            Spec::Listener(_) => Kind::Listener,
            Spec::HttpRoute(_) => Kind::HttpRoute,
            Spec::TcpRoute(_) => Kind::TcpRoute,
            Spec::Backend(_) => Kind::Backend,
            Spec::Certificate(_) => Kind::Certificate,
        }
    }

    /// Its kind and name.
    pub fn key(&self) -> Key {
        Key { kind: self.kind(), name: self.name.clone() }
    }
}

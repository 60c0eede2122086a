//! Resources: the objects of the model, one by one, as a file, the REST API or the control stream carries them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::backend::Backend;
use crate::check::Check;
use crate::listener::{Certificate, Listener};
use crate::route::{GrpcRoute, HttpRoute, TcpRoute, TlsRoute};
use crate::scalar::{Name, Refused, Timestamp};
use crate::strict::Strict;
use crate::tree::Node;
use crate::wording::reword;

/// The kinds of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// An address that accepts.
    Listener,
    /// Maps requests to backends.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// Maps calls of gRPC to backends.
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
    /// Maps TLS connections to backends, by the name asked for.
    #[serde(rename = "TLSRoute")]
    TlsRoute,
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
    pub const ALL: [Self; 7] = [
        Self::Listener,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TlsRoute,
        Self::TcpRoute,
        Self::Backend,
        Self::Certificate,
    ];

    /// As a resource names it: `HTTPRoute`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "Listener",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
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
            Self::GrpcRoute => "grpcRoutes",
            Self::TlsRoute => "tlsRoutes",
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

/// What a resource says, by kind. Shared, so that every snapshot it is part of holds the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// An address that accepts.
    Listener(Arc<Listener>),
    /// Maps requests to backends.
    HttpRoute(Arc<HttpRoute>),
    /// Maps calls of gRPC to backends.
    GrpcRoute(Arc<GrpcRoute>),
    /// Maps TLS connections to backends, by the name asked for.
    TlsRoute(Arc<TlsRoute>),
    /// Maps connections to backends.
    TcpRoute(Arc<TcpRoute>),
    /// A named service.
    Backend(Arc<Backend>),
    /// A certificate chain and its key, in files.
    Certificate(Arc<Certificate>),
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
            Spec::GrpcRoute(spec) => Wire { kind, name, spec }.serialize(serializer),
            Spec::TlsRoute(spec) => Wire { kind, name, spec }.serialize(serializer),
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

impl Invalid {
    /// What is wrong with a field.
    pub fn new(field: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

impl Resource {
    /// Reads and validates one object by itself: its name, and its spec without the name.
    ///
    /// # Errors
    /// The first thing that is wrong with it: a field that is unknown, missing, of the wrong type or out of its range,
    /// or fields that contradict each other.
    pub fn parse(kind: Kind, name: &str, spec: Value) -> Result<Self, Invalid> {
        let name = name.parse().map_err(|refused: Refused| Invalid::new("name", refused.to_string()))?;
        Self::of(kind, name, spec.into())
    }

    /// The same of a name that is one, and a spec as a tree.
    pub(crate) fn of(kind: Kind, name: Name, spec: Node) -> Result<Self, Invalid> {
        let spec = match kind {
            Kind::Listener => Spec::Listener(Arc::new(read(spec)?)),
            Kind::HttpRoute => Spec::HttpRoute(Arc::new(read(spec)?)),
            Kind::GrpcRoute => Spec::GrpcRoute(Arc::new(read(spec)?)),
            Kind::TlsRoute => Spec::TlsRoute(Arc::new(read(spec)?)),
            Kind::TcpRoute => Spec::TcpRoute(Arc::new(read(spec)?)),
            Kind::Backend => Spec::Backend(Arc::new(read(spec)?)),
            Kind::Certificate => Spec::Certificate(Arc::new(read(spec)?)),
        };
        Ok(Self { name, spec })
    }

    /// What it says, as [`Resource::parse`] takes it.
    pub fn spec_json(&self) -> Value {
        let json = match &self.spec {
            Spec::Listener(spec) => serde_json::to_value(spec),
            Spec::HttpRoute(spec) => serde_json::to_value(spec),
            Spec::GrpcRoute(spec) => serde_json::to_value(spec),
            Spec::TlsRoute(spec) => serde_json::to_value(spec),
            Spec::TcpRoute(spec) => serde_json::to_value(spec),
            Spec::Backend(spec) => serde_json::to_value(spec),
            Spec::Certificate(spec) => serde_json::to_value(spec),
        };
        // The model's types hold only text, numbers, lists and maps with text keys, which JSON can always express.
        json.unwrap_or_default()
    }

    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self.spec {
            Spec::Listener(_) => Kind::Listener,
            Spec::HttpRoute(_) => Kind::HttpRoute,
            Spec::GrpcRoute(_) => Kind::GrpcRoute,
            Spec::TlsRoute(_) => Kind::TlsRoute,
            Spec::TcpRoute(_) => Kind::TcpRoute,
            Spec::Backend(_) => Kind::Backend,
            Spec::Certificate(_) => Kind::Certificate,
        }
    }

    /// When it was made, where that is known.
    pub fn creation_timestamp(&self) -> Option<Timestamp> {
        match &self.spec {
            Spec::HttpRoute(route) => route.creation_timestamp,
            Spec::GrpcRoute(route) => route.creation_timestamp,
            Spec::TlsRoute(route) => route.creation_timestamp,
            Spec::TcpRoute(route) => route.creation_timestamp,
            Spec::Listener(_) | Spec::Backend(_) | Spec::Certificate(_) => None,
        }
    }

    /// The same, made at `time` if it is of a kind whose age counts, and does not say when it was made.
    pub fn made_at(mut self, time: Timestamp) -> Self {
        match &mut self.spec {
            Spec::HttpRoute(route) if route.creation_timestamp.is_none() => {
                Arc::make_mut(route).creation_timestamp = Some(time);
            }
            Spec::GrpcRoute(route) if route.creation_timestamp.is_none() => {
                Arc::make_mut(route).creation_timestamp = Some(time);
            }
            Spec::TlsRoute(route) if route.creation_timestamp.is_none() => {
                Arc::make_mut(route).creation_timestamp = Some(time);
            }
            Spec::TcpRoute(route) if route.creation_timestamp.is_none() => {
                Arc::make_mut(route).creation_timestamp = Some(time);
            }
            _ => {}
        }
        self
    }

    /// Its kind and name.
    pub fn key(&self) -> Key {
        Key { kind: self.kind(), name: self.name.clone() }
    }
}

/// One part of the model out of a tree: its shape first, then what its fields mean together.
pub(crate) fn read<T: DeserializeOwned + Check>(spec: Node) -> Result<T, Invalid> {
    let read: T = serde_path_to_error::deserialize(Strict(spec)).map_err(|error| {
        let path = error.path().to_string();
        let field = if matches!(&*path, "." | "") { "spec".to_owned() } else { path };
        Invalid::new(field, reword(&error.inner().to_string()))
    })?;
    read.check()?;
    Ok(read)
}

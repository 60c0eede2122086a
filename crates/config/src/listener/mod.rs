//! Listeners: the addresses that accept.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{Duration, Name, socket_address, socket_address_schema};

mod http;

pub use http::{
    EncodedSlash, Forwarded, HttpLimits, HttpPath, HttpTimeouts, ListenerHttp, MinBodyRate, Normalize, Via,
};

/// An address that accepts connections, and what is expected on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// Where it listens: `127.0.0.1:8080`, `[::]:15001`. Port 0 lets the system choose.
    #[serde(deserialize_with = "socket_address")]
    #[schemars(schema_with = "socket_address_schema")]
    pub address: SocketAddr,
    /// Which way its traffic goes, seen from the application.
    #[serde(default, skip_serializing_if = "is_default")]
    pub direction: Direction,
    /// What is spoken on it; detected from the first bytes where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// How TLS is terminated. Required by protocols `HTTPS` and `TLS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Whether callers in the mesh must prove their identity. For direction `Inbound` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<Mtls>,
    /// How HTTP is served on it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub http: ListenerHttp,
    /// How long its connections may take, whatever is spoken on them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: ListenerTimeouts,
    /// The nodes that open it; every node of the control API where it is empty. A file's proxy opens all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Name>,
}

impl Listener {
    /// The listener for captured traffic that a sidecar has by itself.
    pub fn captured(address: SocketAddr, direction: Direction) -> Self {
        Self {
            address,
            direction,
            protocol: None,
            tls: None,
            mtls: None,
            http: ListenerHttp::default(),
            timeouts: ListenerTimeouts::default(),
            nodes: Vec::new(),
        }
    }
}

/// Which way a listener's traffic goes, seen from the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum Direction {
    /// To the application beside this proxy.
    Inbound,
    /// From the application beside this proxy.
    Outbound,
    /// Neither: a reverse proxy of its own.
    #[default]
    Edge,
}

impl Direction {
    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
            Self::Edge => "edge",
        }
    }
}

/// How long a listener's connections may take, whatever is spoken on them. `0s`: without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ListenerTimeouts {
    /// For the TLS handshake of a caller. 10 s where it is absent.
    pub tls_handshake: Duration,
    /// For a connection that is not HTTP, and on which nothing moves either way. 24 h where it is absent.
    pub tcp_idle: Duration,
}

impl Default for ListenerTimeouts {
    fn default() -> Self {
        Self { tls_handshake: Duration::from_secs(10), tcp_idle: Duration::from_secs(24 * 3600) }
    }
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// HTTP/1.0, HTTP/1.1 and HTTP/2 by prior knowledge, without TLS.
    Http,
    /// The same inside TLS, HTTP/2 by ALPN.
    Https,
    /// Any bytes inside TLS.
    Tls,
    /// Any bytes.
    Tcp,
}

/// What a listener does with TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerTls {
    /// Whether it is terminated here, or passed on.
    #[serde(default)]
    pub mode: TlsMode,
    /// The certificates to choose from, by the name the caller asks for (SNI); the first answers everyone else. With
    /// mode `Terminate` there is one at least, with `Passthrough` none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificate_refs: Vec<CertificateRef>,
}

/// What happens to TLS at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum TlsMode {
    /// Decrypted here.
    #[default]
    Terminate,
    /// Passed on as it is, by the name that the caller asks for: see TLSRoute. For protocol `TLS` alone.
    Passthrough,
}

/// A certificate by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateRef {
    /// The certificate's name.
    pub name: Name,
}

/// What an inbound listener asks of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mtls {
    /// Whether plain connections are accepted beside mutual TLS.
    #[serde(default)]
    pub mode: MtlsMode,
}

/// Whether plain connections are accepted beside mutual TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum MtlsMode {
    /// Mutual TLS and plain.
    #[default]
    Permissive,
    /// Mutual TLS alone.
    Strict,
}

/// A certificate chain and its key, in files beside the configuration, followed as they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Certificate {
    /// The chain's file, PEM, leaf first. A relative path is taken from the configuration file's folder.
    #[schemars(with = "String")]
    pub chain: std::path::PathBuf,
    /// The private key's file, PEM.
    #[schemars(with = "String")]
    pub key: std::path::PathBuf,
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

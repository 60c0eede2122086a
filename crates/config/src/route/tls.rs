//! TLSRoutes: which connections go where, by the name that the caller asks for in its TLS handshake.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TcpRule;
use crate::scalar::{Hostname, Name, Timestamp};

/// Maps TLS connections to backends by the name asked for (SNI; Gateway API, `TLSRoute`). At a listener with
/// `tls.mode: Passthrough` they go on as they are, at one with `Terminate` decrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsRoute {
    /// The listeners it is attached to, by name.
    #[schemars(length(min = 1))]
    pub listeners: Vec<Name>,
    /// The names that it answers to (RFC 6066, section 3); any, and connections without one, where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<Hostname>,
    /// When it was made: of two routes that match equally well, the older takes it, and one with a time comes before
    /// one without. The control API sets it on a route that does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
    /// Its one rule.
    #[schemars(length(min = 1, max = 1))]
    pub rules: Vec<TcpRule>,
}

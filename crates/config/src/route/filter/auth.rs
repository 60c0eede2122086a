//! Asking another service whether a request may pass.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::listener::is_default;
use crate::route::FilterBackend;
use crate::scalar::HeaderName;

/// Asks another backend whether a request may pass, before it does (Gateway API, `HTTPExternalAuthFilter`). A status of
/// 200 lets it; any other response is the caller's answer. If there is none, the request fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalAuth {
    /// How it is asked.
    pub protocol: AuthProtocol,
    /// Who is asked.
    pub backend_ref: FilterBackend,
    /// What it is told, and tells.
    #[serde(default, skip_serializing_if = "is_default")]
    pub http: HttpAuth,
}

/// How another service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthProtocol {
    /// By a request with the method, host, path and query of the request in question, without a body.
    #[serde(rename = "HTTP")]
    Http,
}

/// What the service is told, and tells (Gateway API, `HTTPAuthConfig`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpAuth {
    /// What stands before the path of the request in question; nothing where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = r"^/[-A-Za-z0-9._~!$&'()*+,;=:@/%]*$"))]
    pub path: Option<Box<str>>,
    /// Which headers of the request it sees beside `Host` and `Authorization`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allowed_headers: Vec<HeaderName>,
    /// Which headers of its response go on with the request, in place of any that the caller sent; all but those that
    /// frame it where it is empty. Those named here are never the caller's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allowed_response_headers: Vec<HeaderName>,
}

//! Sessions: the requests that go to one endpoint because an earlier one did.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::listener::is_default;
use crate::scalar::{Duration, Token};

/// The requests of one session go to one endpoint (Gateway API, `SessionPersistence`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionPersistence {
    /// The name of the cookie, or of the header, that tells the session; at most 128 characters. Absent: a name made
    /// from the route's and the rule's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 128))]
    pub session_name: Option<Token>,
    /// How long after it began a session ends. Absent: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute_timeout: Option<Duration>,
    /// How long after its last request a session ends. Absent: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// What tells the session.
    #[serde(rename = "type", default, skip_serializing_if = "is_default")]
    pub kind: SessionKind,
    /// What the cookie is like. With type `Cookie` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_config: Option<CookieConfig>,
}

/// What tells a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum SessionKind {
    /// A cookie, which the caller keeps by itself.
    #[default]
    Cookie,
    /// A header of the response, which the caller repeats in its requests.
    Header,
}

/// What the cookie of a session is like (Gateway API, `CookieConfig`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CookieConfig {
    /// How long the caller keeps the cookie.
    #[serde(default)]
    pub lifetime_type: CookieLifetime,
}

/// How long a caller keeps the cookie of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum CookieLifetime {
    /// For `absoluteTimeout`, which must be given.
    Permanent,
    /// Until the caller ends, as a browser does.
    #[default]
    Session,
}

//! Sending a copy of requests elsewhere.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Fraction;
use crate::route::FilterBackend;

/// Sends a copy of requests to another backend, whose responses are thrown away (Gateway API,
/// `HTTPRequestMirrorFilter`). May be given more than once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestMirror {
    /// Where the copies go.
    pub backend_ref: FilterBackend,
    /// The share of the requests that is copied, of 100; all where neither it nor `fraction` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub percent: Option<u32>,
    /// The same as a fraction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<Fraction>,
}

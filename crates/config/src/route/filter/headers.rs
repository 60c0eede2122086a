//! What a filter changes in a message's headers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{HeaderName, HeaderValue};

/// Changes headers (Gateway API, `HTTPHeaderFilter`): `remove`, then `set`, then `add`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderModifier {
    /// Headers that get this value, and lose any other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub set: Vec<HeaderField>,
    /// Values that join those that are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub add: Vec<HeaderField>,
    /// Headers that are taken out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub remove: Vec<HeaderName>,
}

/// A header with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderField {
    /// The header.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
}

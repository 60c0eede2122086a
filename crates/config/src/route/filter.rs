//! What a rule of an HTTPRoute changes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{HeaderName, HeaderValue, Refused, refuse};

/// What a rule changes on the way (Gateway API, `HTTPRouteFilter`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawFilter", into = "RawFilter")]
pub enum HttpFilter {
    /// Changes the request's headers.
    RequestHeaderModifier(HeaderModifier),
    /// Changes the response's headers.
    ResponseHeaderModifier(HeaderModifier),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
enum FilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "HttpFilter", rename_all = "camelCase", deny_unknown_fields)]
struct RawFilter {
    /// Which of the fields below is given.
    #[serde(rename = "type")]
    kind: FilterType,
    /// Changes the request's headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_header_modifier: Option<HeaderModifier>,
    /// Changes the response's headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_header_modifier: Option<HeaderModifier>,
}

impl TryFrom<RawFilter> for HttpFilter {
    type Error = Refused;

    fn try_from(raw: RawFilter) -> Result<Self, Refused> {
        match (raw.kind, raw.request_header_modifier, raw.response_header_modifier) {
            (FilterType::RequestHeaderModifier, Some(modifier), None) => {
                Ok(Self::RequestHeaderModifier(modifier))
            }
            (FilterType::ResponseHeaderModifier, None, Some(modifier)) => {
                Ok(Self::ResponseHeaderModifier(modifier))
            }
            (FilterType::RequestHeaderModifier, ..) => refuse(
                "a filter of type RequestHeaderModifier has the field requestHeaderModifier, and no other",
            ),
            (FilterType::ResponseHeaderModifier, ..) => refuse(
                "a filter of type ResponseHeaderModifier has the field responseHeaderModifier, and no other",
            ),
        }
    }
}

impl From<HttpFilter> for RawFilter {
    fn from(filter: HttpFilter) -> Self {
        match filter {
            HttpFilter::RequestHeaderModifier(modifier) => Self {
                kind: FilterType::RequestHeaderModifier,
                request_header_modifier: Some(modifier),
                response_header_modifier: None,
            },
            HttpFilter::ResponseHeaderModifier(modifier) => Self {
                kind: FilterType::ResponseHeaderModifier,
                request_header_modifier: None,
                response_header_modifier: Some(modifier),
            },
        }
    }
}

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

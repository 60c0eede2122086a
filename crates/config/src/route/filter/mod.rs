//! What a rule of a route changes, and what it answers itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{Refused, refuse};

mod headers;

pub use headers::{HeaderField, HeaderModifier};

/// What a rule changes on the way (Gateway API, `HTTPRouteFilter`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawFilter", into = "RawFilter")]
pub enum HttpFilter {
    /// Changes the request's headers.
    RequestHeaderModifier(HeaderModifier),
    /// Changes the response's headers.
    ResponseHeaderModifier(HeaderModifier),
}

/// What a filter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
enum FilterType {
    /// Changes the request's headers.
    #[default]
    RequestHeaderModifier,
    /// Changes the response's headers.
    ResponseHeaderModifier,
}

/// What a rule changes on the way (Gateway API, `HTTPRouteFilter`): a type, and the field of its name.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
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

impl HttpFilter {
    const fn kind(&self) -> FilterType {
        match self {
            Self::RequestHeaderModifier(_) => FilterType::RequestHeaderModifier,
            Self::ResponseHeaderModifier(_) => FilterType::ResponseHeaderModifier,
        }
    }
}

impl FilterType {
    /// The field that a filter of this type has.
    const fn field(self) -> &'static str {
        match self {
            Self::RequestHeaderModifier => "requestHeaderModifier",
            Self::ResponseHeaderModifier => "responseHeaderModifier",
        }
    }
}

impl TryFrom<RawFilter> for HttpFilter {
    type Error = Refused;

    fn try_from(raw: RawFilter) -> Result<Self, Refused> {
        let kind = raw.kind;
        let mut given = [
            raw.request_header_modifier.map(Self::RequestHeaderModifier),
            raw.response_header_modifier.map(Self::ResponseHeaderModifier),
        ]
        .into_iter()
        .flatten();
        match (given.next(), given.next()) {
            (Some(filter), None) if filter.kind() == kind => Ok(filter),
            _ => refuse(format!("a filter of type {kind:?} has the field {}, and no other", kind.field())),
        }
    }
}

impl From<HttpFilter> for RawFilter {
    fn from(filter: HttpFilter) -> Self {
        let mut raw = Self { kind: filter.kind(), ..Self::default() };
        match filter {
            HttpFilter::RequestHeaderModifier(modifier) => raw.request_header_modifier = Some(modifier),
            HttpFilter::ResponseHeaderModifier(modifier) => raw.response_header_modifier = Some(modifier),
        }
        raw
    }
}

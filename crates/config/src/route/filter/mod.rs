//! What a rule of a route changes, and what it answers itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{Refused, refuse};

mod answer;
mod cors;
mod headers;
mod mirror;
mod portion;
mod url;

pub use answer::{Abort, Delay, Fault, FixedResponse};
pub use cors::Cors;
pub use headers::{HeaderField, HeaderModifier};
pub use mirror::{MirrorRef, RequestMirror};
pub use portion::{Fraction, Portion};
pub use url::{PathModifier, RequestRedirect, UrlRewrite};

/// What a rule changes on the way (Gateway API, `HTTPRouteFilter`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawFilter", into = "RawFilter")]
pub enum HttpFilter {
    /// Changes the request's headers.
    RequestHeaderModifier(HeaderModifier),
    /// Changes the response's headers.
    ResponseHeaderModifier(HeaderModifier),
    /// Sends the caller elsewhere.
    RequestRedirect(RequestRedirect),
    /// Changes the host and the path under which a backend gets the request.
    UrlRewrite(UrlRewrite),
    /// Sends a copy of requests to another backend.
    RequestMirror(RequestMirror),
    /// Says which pages of other origins may read responses.
    Cors(Cors),
    /// Answers with the same response, without a backend.
    FixedResponse(FixedResponse),
    /// Delays requests, or fails them, on purpose.
    Fault(Fault),
}

/// What a filter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
enum FilterType {
    /// Changes the request's headers.
    #[default]
    RequestHeaderModifier,
    /// Changes the response's headers.
    ResponseHeaderModifier,
    /// Sends the caller elsewhere.
    RequestRedirect,
    /// Changes the host and the path under which a backend gets the request.
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    /// Sends a copy of requests to another backend.
    RequestMirror,
    /// Says which pages of other origins may read responses.
    #[serde(rename = "CORS")]
    Cors,
    /// Answers with the same response, without a backend.
    FixedResponse,
    /// Delays requests, or fails them, on purpose.
    Fault,
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
    /// Sends the caller elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_redirect: Option<RequestRedirect>,
    /// Changes the host and the path under which a backend gets the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url_rewrite: Option<UrlRewrite>,
    /// Sends a copy of requests to another backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_mirror: Option<RequestMirror>,
    /// Says which pages of other origins may read responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cors: Option<Cors>,
    /// Answers with the same response, without a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fixed_response: Option<FixedResponse>,
    /// Delays requests, or fails them, on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fault: Option<Fault>,
}

impl HttpFilter {
    /// Its type as the configuration names it: `URLRewrite`.
    pub const fn name(&self) -> &'static str {
        self.kind().names().0
    }

    const fn kind(&self) -> FilterType {
        match self {
            Self::RequestHeaderModifier(_) => FilterType::RequestHeaderModifier,
            Self::ResponseHeaderModifier(_) => FilterType::ResponseHeaderModifier,
            Self::RequestRedirect(_) => FilterType::RequestRedirect,
            Self::UrlRewrite(_) => FilterType::UrlRewrite,
            Self::RequestMirror(_) => FilterType::RequestMirror,
            Self::Cors(_) => FilterType::Cors,
            Self::FixedResponse(_) => FilterType::FixedResponse,
            Self::Fault(_) => FilterType::Fault,
        }
    }
}

impl FilterType {
    /// As the configuration names the type, and the field that a filter of it has.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::RequestHeaderModifier => ("RequestHeaderModifier", "requestHeaderModifier"),
            Self::ResponseHeaderModifier => ("ResponseHeaderModifier", "responseHeaderModifier"),
            Self::RequestRedirect => ("RequestRedirect", "requestRedirect"),
            Self::UrlRewrite => ("URLRewrite", "urlRewrite"),
            Self::RequestMirror => ("RequestMirror", "requestMirror"),
            Self::Cors => ("CORS", "cors"),
            Self::FixedResponse => ("FixedResponse", "fixedResponse"),
            Self::Fault => ("Fault", "fault"),
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
            raw.request_redirect.map(Self::RequestRedirect),
            raw.url_rewrite.map(Self::UrlRewrite),
            raw.request_mirror.map(Self::RequestMirror),
            raw.cors.map(Self::Cors),
            raw.fixed_response.map(Self::FixedResponse),
            raw.fault.map(Self::Fault),
        ]
        .into_iter()
        .flatten();
        match (given.next(), given.next()) {
            (Some(filter), None) if filter.kind() == kind => Ok(filter),
            _ => {
                let (kind, field) = kind.names();
                refuse(format!("a filter of type {kind} has the field {field}, and no other"))
            }
        }
    }
}

impl From<HttpFilter> for RawFilter {
    fn from(filter: HttpFilter) -> Self {
        let mut raw = Self { kind: filter.kind(), ..Self::default() };
        match filter {
            HttpFilter::RequestHeaderModifier(modifier) => raw.request_header_modifier = Some(modifier),
            HttpFilter::ResponseHeaderModifier(modifier) => raw.response_header_modifier = Some(modifier),
            HttpFilter::RequestRedirect(it) => raw.request_redirect = Some(it),
            HttpFilter::UrlRewrite(it) => raw.url_rewrite = Some(it),
            HttpFilter::RequestMirror(it) => raw.request_mirror = Some(it),
            HttpFilter::Cors(it) => raw.cors = Some(it),
            HttpFilter::FixedResponse(it) => raw.fixed_response = Some(it),
            HttpFilter::Fault(it) => raw.fault = Some(it),
        }
        raw
    }
}

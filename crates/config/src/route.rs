//! Routes: which requests and connections go where, and under which policy. The shape of a rule is the Gateway API's,
//! field for field.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backend::{is_one, one};
use crate::listener::is_default;
use crate::scalar::{Duration, HeaderName, HeaderValue, Hostname, Method, Name, Pattern, Refused, refuse};

/// Maps requests to backends (Gateway API, `HTTPRoute`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRoute {
    /// The listeners it is attached to, by name.
    #[schemars(length(min = 1))]
    pub listeners: Vec<Name>,
    /// The hosts it answers to; any host where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<Hostname>,
    /// Its rules.
    #[schemars(length(min = 1, max = 64))]
    pub rules: Vec<HttpRule>,
}

/// What a route does with the requests that match (Gateway API, `HTTPRouteRule`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRule {
    /// The rule's name, for logs and metrics; its place in the route where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// A request matches the rule if it matches one of these; every request where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub matches: Vec<HttpMatch>,
    /// What is changed on the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub filters: Vec<HttpFilter>,
    /// Where requests go, in proportion to the weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub backend_refs: Vec<BackendRef>,
    /// How long it may take.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,
    /// Whether and when a request is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

/// What a request must look like: all that is given must hold (Gateway API, `HTTPRouteMatch`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatch {
    /// Its path, without the query; any where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Its method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Its headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HeaderMatch>,
    /// Its query parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub query_params: Vec<QueryMatch>,
}

/// How a path matches (Gateway API, `HTTPPathMatch`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawPathMatch", into = "RawPathMatch")]
pub enum PathMatch {
    /// Exactly this path.
    Exact(Box<str>),
    /// This path or one below it, by whole segments. Without a trailing slash: `/` is the empty text.
    PathPrefix(Box<str>),
    /// A regular expression for the whole path.
    RegularExpression(Pattern),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
enum PathMatchType {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "PathMatch", deny_unknown_fields)]
struct RawPathMatch {
    /// `Exact`, `PathPrefix` where it is absent, or `RegularExpression`.
    #[serde(rename = "type", default)]
    kind: PathMatchType,
    /// The path, which begins with `/`, or the expression.
    #[serde(default = "slash")]
    value: String,
}

fn slash() -> String {
    "/".into()
}

impl TryFrom<RawPathMatch> for PathMatch {
    type Error = Refused;

    fn try_from(raw: RawPathMatch) -> Result<Self, Refused> {
        let value = raw.value;
        if raw.kind == PathMatchType::RegularExpression {
            return value.parse().map(Self::RegularExpression);
        }
        if !value.starts_with('/') {
            return refuse(format!("`{value}` is not a path: it must begin with `/`"));
        }
        if value.contains(['?', '#']) || value.chars().any(|c| c.is_ascii_control() || c == ' ') {
            return refuse(format!(
                "`{}` is not a path: it must have no query, fragment or space",
                value.escape_debug()
            ));
        }
        Ok(match raw.kind {
            PathMatchType::Exact => Self::Exact(value.into()),
            _ => Self::PathPrefix(value.strip_suffix('/').unwrap_or(&value).into()),
        })
    }
}

impl From<PathMatch> for RawPathMatch {
    fn from(path: PathMatch) -> Self {
        let (kind, value) = match path {
            PathMatch::Exact(value) => (PathMatchType::Exact, value.into()),
            PathMatch::PathPrefix(value) if value.is_empty() => (PathMatchType::PathPrefix, slash()),
            PathMatch::PathPrefix(value) => (PathMatchType::PathPrefix, value.into()),
            PathMatch::RegularExpression(pattern) => (PathMatchType::RegularExpression, pattern.to_string()),
        };
        Self { kind, value }
    }
}

/// How a header's or a query parameter's value matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueMatch {
    /// Exactly this text.
    Exact(Box<str>),
    /// A regular expression for the whole value.
    RegularExpression(Pattern),
}

impl ValueMatch {
    /// Whether `value` matches.
    pub fn is_match(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => **text == *value,
            Self::RegularExpression(pattern) => pattern.is_match(value),
        }
    }
}

/// A header and what its value must be (Gateway API, `HTTPHeaderMatch`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawNamedMatch<HeaderName>", into = "RawNamedMatch<HeaderName>")]
pub struct HeaderMatch {
    /// The header.
    pub name: HeaderName,
    /// What its value must be. Of several lines, their values joined with a comma (RFC 9110, section 5.3).
    pub value: ValueMatch,
}

/// A query parameter and what its value must be (Gateway API, `HTTPQueryParamMatch`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawNamedMatch<String>", into = "RawNamedMatch<String>")]
pub struct QueryMatch {
    /// The parameter.
    pub name: String,
    /// What its value must be. Of several, the first decides.
    pub value: ValueMatch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
enum ValueMatchType {
    #[default]
    Exact,
    RegularExpression,
}

#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "{N}Match", deny_unknown_fields)]
struct RawNamedMatch<N> {
    /// `Exact`, where it is absent, or `RegularExpression`.
    #[serde(rename = "type", default, skip_serializing_if = "is_default")]
    kind: ValueMatchType,
    /// Whose value is compared.
    name: N,
    /// The text, or the expression, for the whole value.
    value: String,
}

impl<N> RawNamedMatch<N> {
    fn new(name: N, value: ValueMatch) -> Self {
        let (kind, value) = match value {
            ValueMatch::Exact(text) => (ValueMatchType::Exact, text.into()),
            ValueMatch::RegularExpression(pattern) => {
                (ValueMatchType::RegularExpression, pattern.to_string())
            }
        };
        Self { kind, name, value }
    }

    fn value(kind: ValueMatchType, value: String) -> Result<ValueMatch, Refused> {
        match kind {
            ValueMatchType::Exact => Ok(ValueMatch::Exact(value.into())),
            ValueMatchType::RegularExpression => value.parse().map(ValueMatch::RegularExpression),
        }
    }
}

impl TryFrom<RawNamedMatch<HeaderName>> for HeaderMatch {
    type Error = Refused;

    fn try_from(raw: RawNamedMatch<HeaderName>) -> Result<Self, Refused> {
        let value = RawNamedMatch::<HeaderName>::value(raw.kind, raw.value)?;
        Ok(Self { name: raw.name, value })
    }
}

impl From<HeaderMatch> for RawNamedMatch<HeaderName> {
    fn from(header: HeaderMatch) -> Self {
        Self::new(header.name, header.value)
    }
}

impl TryFrom<RawNamedMatch<String>> for QueryMatch {
    type Error = Refused;

    fn try_from(raw: RawNamedMatch<String>) -> Result<Self, Refused> {
        let value = RawNamedMatch::<String>::value(raw.kind, raw.value)?;
        Ok(Self { name: raw.name, value })
    }
}

impl From<QueryMatch> for RawNamedMatch<String> {
    fn from(query: QueryMatch) -> Self {
        Self::new(query.name, query.value)
    }
}

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

/// A backend's share of a rule's requests (Gateway API, `HTTPBackendRef`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendRef {
    /// The backend. It may not be there yet: its share then gets 503.
    pub name: Name,
    /// Its share, in proportion to the sum of the rule's weights. 0: none.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
    /// What is changed on the way to this backend alone, after the rule's own filters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub filters: Vec<HttpFilter>,
}

/// How long a request may take (Gateway API, `HTTPRouteTimeouts`). `0s`, or absent: without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timeouts {
    /// From the request's head until the response is complete, all attempts together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// For one attempt, until the response's head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
}

/// Whether and when a request is sent again (Gateway API, `HTTPRouteRetry`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// How often it may be sent again. 1 where it is absent.
    #[serde(default = "one")]
    #[schemars(range(max = 100))]
    pub attempts: u32,
    /// The response statuses, 400 to 599, after which it is, if its method is idempotent (RFC 9110, section 9.2.2).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(range(min = 400, max = 599)))]
    pub codes: Vec<u16>,
    /// The least wait before the second retry; it doubles with each one after, and a random part is added.
    /// 25 ms where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
    /// How many bytes of a request's body are kept so that it can be sent again. 64 KiB where it is absent. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 16_777_216))]
    pub max_body_bytes: Option<u32>,
}

/// Maps connections to backends (Gateway API, `TCPRoute`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRoute {
    /// The listeners it is attached to, by name.
    #[schemars(length(min = 1))]
    pub listeners: Vec<Name>,
    /// Its one rule.
    #[schemars(length(min = 1, max = 1))]
    pub rules: Vec<TcpRule>,
}

/// What a route does with connections (Gateway API, `TCPRouteRule`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRule {
    /// The rule's name, for logs and metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Where connections go, in proportion to the weights.
    #[schemars(length(min = 1, max = 16))]
    pub backend_refs: Vec<TcpBackendRef>,
}

/// A backend's share of a rule's connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpBackendRef {
    /// The backend.
    pub name: Name,
    /// Its share, in proportion to the sum of the rule's weights. 0: none.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
}

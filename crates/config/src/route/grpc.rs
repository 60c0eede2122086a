//! GRPCRoutes: which calls of gRPC go where. Each is also a set of rules for HTTP, since a call is a request whose path
//! is `/SERVICE/METHOD`, and takes its place among the HTTPRoutes of its listeners.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    BackendRef, HeaderMatch, HttpFilter, HttpMatch, HttpRoute, HttpRule, PathMatch, Retry,
    SessionPersistence, Timeouts,
};
use crate::listener::is_default;
use crate::scalar::{Hostname, Name, Pattern, Refused, Timestamp, refuse};

/// Maps calls of gRPC to backends (Gateway API, `GRPCRoute`). It takes requests of the media type `application/grpc`,
/// gRPC-Web included, and no others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRoute {
    /// The listeners it is attached to, by name.
    #[schemars(length(min = 1))]
    pub listeners: Vec<Name>,
    /// The hosts it answers to; any host where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<Hostname>,
    /// When it was made: of two routes that match equally well, the older takes it, and one with a time comes before
    /// one without. The control API sets it on a route that does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
    /// Its rules.
    #[schemars(length(min = 1, max = 64))]
    pub rules: Vec<GrpcRule>,
}

/// What a route does with the calls that match (Gateway API, `GRPCRouteRule`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRule {
    /// The rule's name, for logs and metrics; its place in the route where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// A call matches the rule if it matches one of these; every call where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub matches: Vec<GrpcMatch>,
    /// What is changed on the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub filters: Vec<HttpFilter>,
    /// Where calls go, in proportion to the weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub backend_refs: Vec<BackendRef>,
    /// How long a call may take. Ours.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,
    /// Whether and when a call is sent again. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Whether the calls of one session go to one endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// What a call must look like: all that is given must hold (Gateway API, `GRPCRouteMatch`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMatch {
    /// Its service and method; any where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<GrpcMethodMatch>,
    /// Its metadata. Of several with one name the first counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HeaderMatch>,
}

/// A service, a method, or both (Gateway API, `GRPCMethodMatch`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawMethodMatch", into = "RawMethodMatch")]
pub enum GrpcMethodMatch {
    /// Exactly these; any where one is absent.
    Exact {
        /// The service with its package: `shop.v1.Cart`.
        service: Option<Box<str>>,
        /// The method: `Add`.
        method: Option<Box<str>>,
    },
    /// Regular expressions for the whole of each; any where one is absent.
    RegularExpression {
        /// For the service with its package.
        service: Option<Pattern>,
        /// For the method.
        method: Option<Pattern>,
        /// For the path, made of both.
        path: Pattern,
    },
}

/// How a service and a method match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
enum MethodMatchType {
    /// Exactly this text.
    #[default]
    Exact,
    /// A regular expression for the whole.
    RegularExpression,
}

/// A service, a method, or both (Gateway API, `GRPCMethodMatch`).
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "GrpcMethodMatch", deny_unknown_fields)]
#[schemars(extend(
    "anyOf" = [{ "required": ["service"] }, { "required": ["method"] }],
    "if" = { "properties": { "type": { "const": "RegularExpression" } }, "required": ["type"] },
    "else" = { "properties": { "service": { "pattern": SERVICE_PATTERN }, "method": { "pattern": METHOD_PATTERN } } }
))]
struct RawMethodMatch {
    /// `Exact`, where it is absent, or `RegularExpression`.
    #[serde(rename = "type", default, skip_serializing_if = "is_default")]
    kind: MethodMatchType,
    /// The service with its package, `shop.v1.Cart`; any where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    service: Option<String>,
    /// The method; any where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    method: Option<String>,
}

/// The Gateway API's patterns of a service and a method: names of protobuf.
const SERVICE_PATTERN: &str = r"^[A-Za-z_][A-Za-z_0-9]*(\.[A-Za-z_][A-Za-z_0-9]*)*$";
const METHOD_PATTERN: &str = "^[A-Za-z_][A-Za-z_0-9]*$";

impl TryFrom<RawMethodMatch> for GrpcMethodMatch {
    type Error = Refused;

    fn try_from(raw: RawMethodMatch) -> Result<Self, Refused> {
        let RawMethodMatch { kind, service, method } = raw;
        if service.is_none() && method.is_none() {
            return refuse("a method match names a service, a method, or both");
        }
        for text in [&service, &method].into_iter().flatten() {
            if text.is_empty() || text.chars().count() > 1024 {
                return refuse("a service or method has 1 to 1024 characters; leave it out for any");
            }
        }
        if kind == MethodMatchType::RegularExpression {
            let compile = |text: Option<String>| text.map(|text| text.parse::<Pattern>()).transpose();
            let (service, method) = (compile(service)?, compile(method)?);
            let part =
                |one: &Option<Pattern>| one.as_ref().map_or("[^/]+".to_owned(), |p| format!("(?:{p})"));
            let path = format!("/{}/{}", part(&service), part(&method)).parse()?;
            return Ok(Self::RegularExpression { service, method, path });
        }
        if let Some(service) = service.as_deref().filter(|service| !service.split('.').all(is_name)) {
            return refuse(format!("`{service}` is not a service: write it with its package, shop.v1.Cart"));
        }
        if let Some(method) = method.as_deref().filter(|method| !is_name(method)) {
            return refuse(format!("`{method}` is not a method: write its name alone, such as Add"));
        }
        Ok(Self::Exact { service: service.map(Into::into), method: method.map(Into::into) })
    }
}

/// Whether it is a name of protobuf: letters, digits and underscores, no digit first.
fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl From<GrpcMethodMatch> for RawMethodMatch {
    fn from(one: GrpcMethodMatch) -> Self {
        let text = |pattern: Option<Pattern>| pattern.map(|pattern| pattern.to_string());
        match one {
            GrpcMethodMatch::Exact { service, method } => Self {
                kind: MethodMatchType::Exact,
                service: service.map(Into::into),
                method: method.map(Into::into),
            },
            GrpcMethodMatch::RegularExpression { service, method, .. } => Self {
                kind: MethodMatchType::RegularExpression,
                service: text(service),
                method: text(method),
            },
        }
    }
}

/// What makes a match of a GRPCRoute one for calls alone. It stands beside the path, and never in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GrpcCall {
    /// The method, where the service is any.
    pub method: Option<Box<str>>,
}

impl GrpcCall {
    /// Whether a request is a call, and of this method if one is given.
    pub fn matches(&self, path: &str, headers: &http::HeaderMap) -> bool {
        let kind = headers.get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
        kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
            && self.method.as_deref().is_none_or(|method| {
                path.strip_prefix('/').and_then(|path| path.split_once('/')).is_some_and(|(_, m)| m == method)
            })
    }
}

impl GrpcRoute {
    /// The route as an HTTPRoute, for the table of its listeners.
    pub(crate) fn to_http(&self) -> HttpRoute {
        HttpRoute {
            listeners: self.listeners.clone(),
            hostnames: self.hostnames.clone(),
            creation_timestamp: self.creation_timestamp,
            rules: self.rules.iter().map(GrpcRule::to_http).collect(),
        }
    }
}

impl GrpcRule {
    fn to_http(&self) -> HttpRule {
        let any = [GrpcMatch::default()];
        let matches = if self.matches.is_empty() { &any } else { self.matches.as_slice() };
        HttpRule {
            name: self.name.clone(),
            matches: matches.iter().map(GrpcMatch::to_http).collect(),
            filters: self.filters.clone(),
            backend_refs: self.backend_refs.clone(),
            timeouts: self.timeouts,
            retry: self.retry.clone(),
            session_persistence: self.session_persistence.clone(),
        }
    }
}

impl GrpcMatch {
    /// By the Gateway API's precedence more characters of the service count before more of the method. So a service
    /// alone becomes a prefix, which is longer than the root, under which a method alone stands.
    fn to_http(&self) -> HttpMatch {
        let (path, method) = match &self.method {
            None => (None, None),
            Some(GrpcMethodMatch::Exact { service, method }) => match (service, method) {
                (Some(service), Some(method)) => {
                    (Some(PathMatch::Exact(format!("/{service}/{method}").into())), None)
                }
                (Some(service), None) => (Some(PathMatch::PathPrefix(format!("/{service}").into())), None),
                (None, method) => (None, method.clone()),
            },
            Some(GrpcMethodMatch::RegularExpression { path, .. }) => {
                (Some(PathMatch::RegularExpression(path.clone())), None)
            }
        };
        HttpMatch {
            path,
            headers: self.headers.clone(),
            grpc: Some(GrpcCall { method }),
            ..HttpMatch::default()
        }
    }
}

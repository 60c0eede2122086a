//! What a rule of an HTTPRoute matches.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GrpcCall;
use crate::listener::is_default;
use crate::scalar::{HeaderName, Method, Pattern, Refused, refuse};

/// What a request must look like: all that is given must hold (Gateway API, `HTTPRouteMatch`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatch {
    /// Its path, without the query; any where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Its method; any but CONNECT where it is absent. CONNECT has no path, and is matched as if it was `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Its headers. Of several with one name the first counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HeaderMatch>,
    /// Its query parameters. Of several with one name the first counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub query_params: Vec<QueryMatch>,
    /// That it is a call of gRPC: the matches of GRPCRoutes have it.
    #[serde(skip)]
    pub grpc: Option<GrpcCall>,
}

impl HttpMatch {
    /// The headers that count: of several entries with one name the first (Gateway API, `HTTPHeaderMatch.name`).
    pub fn headers(&self) -> impl Iterator<Item = &HeaderMatch> {
        firsts(&self.headers, |header| &header.name)
    }

    /// The query parameters that count: of several entries with one name the first (Gateway API,
    /// `HTTPQueryParamMatch.name`).
    pub fn query_params(&self) -> impl Iterator<Item = &QueryMatch> {
        firsts(&self.query_params, |query| &query.name)
    }
}

/// Of the entries with one name, the first. There are few of them: a set would cost more than it saves.
fn firsts<T, N: PartialEq>(list: &[T], name: impl Fn(&T) -> &N) -> impl Iterator<Item = &T> {
    let is_first =
        move |(at, one): &(usize, &T)| !list.iter().take(*at).any(|other| name(other) == name(one));
    list.iter().enumerate().filter(is_first).map(|(_, one)| one)
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

/// How a path matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
enum PathMatchType {
    /// Exactly this path.
    Exact,
    /// This path or one below it, by whole segments.
    #[default]
    PathPrefix,
    /// A regular expression for the whole path.
    RegularExpression,
}

/// How a path matches (Gateway API, `HTTPPathMatch`).
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "PathMatch", deny_unknown_fields)]
#[schemars(extend(
    "if" = { "properties": { "type": { "const": "RegularExpression" } }, "required": ["type"] },
    "else" = { "properties": { "value": { "pattern": PATH_PATTERN, "maxLength": 1024 } } }
))]
struct RawPathMatch {
    /// `Exact`, `PathPrefix` where it is absent, or `RegularExpression`.
    #[serde(rename = "type", default)]
    kind: PathMatchType,
    /// The path, which begins with `/`, or the expression.
    #[serde(default = "slash")]
    #[schemars(length(max = 4096))]
    value: String,
}

/// What [`check_path`] accepts, as far as an expression goes.
const PATH_PATTERN: &str = "^/([-A-Za-z0-9._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*$";

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
        check_path(&value)?;
        Ok(match raw.kind {
            PathMatchType::Exact => Self::Exact(value.into()),
            _ => Self::PathPrefix(value.strip_suffix('/').unwrap_or(&value).into()),
        })
    }
}

/// The Gateway API's rules for the value of an exact path or a prefix (`HTTPPathMatch`).
fn check_path(path: &str) -> Result<(), Refused> {
    let wrong = |why: &str| refuse(format!("`{}` is not a path: {why}", path.escape_debug()));
    if !path.starts_with('/') {
        return wrong("it must begin with `/`");
    }
    if path.len() > 1024 {
        return wrong("it must have at most 1024 characters");
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&b);
    if !path.bytes().all(allowed) {
        return wrong("a query or fragment does not belong to it, and other characters are percent-encoded");
    }
    let escape = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !path.split('%').skip(1).all(escape) {
        return wrong("`%` must be followed by two hexadecimal digits");
    }
    if path.contains("//") || path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return wrong("it must not have `//`, `/./` or `/../`");
    }
    if path.to_ascii_lowercase().contains("%2f") {
        return wrong("it must not have an encoded slash");
    }
    Ok(())
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

/// How a value matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
enum ValueMatchType {
    /// Exactly this text.
    #[default]
    Exact,
    /// A regular expression for the whole value.
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

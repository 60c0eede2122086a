//! What a filter changes in a request's host and path, on the way or by sending the caller elsewhere.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{Hostname, Refused, Scheme, refuse};

/// Sends the caller elsewhere (Gateway API, `HTTPRequestRedirectFilter`). What is not given stays as in the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestRedirect {
    /// The scheme of the new location.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The host of the new location, without a wildcard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Hostname>,
    /// The path of the new location. The query stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
    /// The port of the new location. Where it is absent, the scheme's own if `scheme` is given, otherwise the listener's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// The status of the answer: 301, 302, 303, 307 or 308. 302 where it is absent.
    #[serde(default = "found")]
    #[schemars(extend("enum" = [301, 302, 303, 307, 308]))]
    pub status_code: u16,
}

const fn found() -> u16 {
    302
}

/// Changes the host and the path under which a backend gets the request (Gateway API, `HTTPURLRewriteFilter`). The query
/// stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UrlRewrite {
    /// The host, without a wildcard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Hostname>,
    /// The path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
}

/// How a path is changed (Gateway API, `HTTPPathModifier`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawPathModifier", into = "RawPathModifier")]
pub enum PathModifier {
    /// Another path.
    ReplaceFullPath(Box<str>),
    /// Another beginning in place of the prefix that the rule matches. Without a trailing slash: `/` is the empty text.
    ReplacePrefixMatch(Box<str>),
}

/// What is changed in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
enum PathModifierType {
    /// All of it.
    ReplaceFullPath,
    /// The prefix that the rule matches.
    ReplacePrefixMatch,
}

/// How a path is changed (Gateway API, `HTTPPathModifier`): a type, and the field of its name.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "PathModifier", rename_all = "camelCase", deny_unknown_fields)]
struct RawPathModifier {
    /// Which of the fields below is given.
    #[serde(rename = "type")]
    kind: PathModifierType,
    /// The new path, which begins with `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = r"^/[-A-Za-z0-9._~!$&'()*+,;=:@/%]*$"))]
    replace_full_path: Option<String>,
    /// What takes the place of the prefix that the rule matches, by whole segments: it begins with `/`, or is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = r"^(/[-A-Za-z0-9._~!$&'()*+,;=:@/%]*)?$"))]
    replace_prefix_match: Option<String>,
}

impl TryFrom<RawPathModifier> for PathModifier {
    type Error = Refused;

    fn try_from(raw: RawPathModifier) -> Result<Self, Refused> {
        match (raw.kind, raw.replace_full_path, raw.replace_prefix_match) {
            (PathModifierType::ReplaceFullPath, Some(path), None) => {
                check_path(&path)?;
                Ok(Self::ReplaceFullPath(path.into()))
            }
            (PathModifierType::ReplacePrefixMatch, None, Some(prefix)) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(&prefix);
                if !prefix.is_empty() {
                    check_path(prefix)?;
                }
                Ok(Self::ReplacePrefixMatch(prefix.into()))
            }
            (PathModifierType::ReplaceFullPath, ..) => {
                refuse("a path of type ReplaceFullPath has the field replaceFullPath, and no other")
            }
            (PathModifierType::ReplacePrefixMatch, ..) => {
                refuse("a path of type ReplacePrefixMatch has the field replacePrefixMatch, and no other")
            }
        }
    }
}

/// What can stand in a request's target (RFC 3986, section 3.3).
pub(crate) fn check_path(path: &str) -> Result<(), Refused> {
    let wrong = |why: &str| refuse(format!("`{}` is not a path: {why}", path.escape_debug()));
    if !path.starts_with('/') {
        return wrong("it must begin with `/`");
    }
    if path.len() > 1024 {
        return wrong("it must have at most 1024 characters");
    }
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&b)) {
        return wrong("a query or fragment does not belong to it, and other characters are percent-encoded");
    }
    Ok(())
}

impl From<PathModifier> for RawPathModifier {
    fn from(path: PathModifier) -> Self {
        match path {
            PathModifier::ReplaceFullPath(path) => Self {
                kind: PathModifierType::ReplaceFullPath,
                replace_full_path: Some(path.into()),
                replace_prefix_match: None,
            },
            PathModifier::ReplacePrefixMatch(prefix) => {
                let prefix = if prefix.is_empty() { "/".into() } else { prefix.into() };
                Self {
                    kind: PathModifierType::ReplacePrefixMatch,
                    replace_full_path: None,
                    replace_prefix_match: Some(prefix),
                }
            }
        }
    }
}

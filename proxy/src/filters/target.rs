//! Where a request goes: the host and the path that a backend sees, and those that a caller is sent to.

use std::borrow::Cow;

use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Uri};
use outrigger_config::route::{PathModifier, UrlRewrite};

/// Another host, another path.
#[derive(Debug)]
pub(super) struct Rewrite {
    host: Option<(HeaderValue, Authority)>,
    path: Option<NewPath>,
}

/// How a path is changed.
#[derive(Debug)]
pub(super) enum NewPath {
    Full(Box<str>),
    /// What stands in place of a prefix; both without their trailing slash.
    Prefix {
        matched: Box<str>,
        replacement: Box<str>,
    },
}

impl NewPath {
    /// `prefix` is the one that the rule matches.
    pub(super) fn new(path: &PathModifier, prefix: &str) -> Self {
        match path {
            PathModifier::ReplaceFullPath(path) => Self::Full(path.clone()),
            PathModifier::ReplacePrefixMatch(replacement) => {
                Self::Prefix { matched: prefix.into(), replacement: replacement.clone() }
            }
        }
    }

    /// The new path of a request. A target that is no path, as the `*` of OPTIONS, stays.
    pub(super) fn of<'a>(&'a self, path: &'a str) -> Cow<'a, str> {
        if !path.starts_with('/') {
            return Cow::Borrowed(path);
        }
        match self {
            Self::Full(path) => Cow::Borrowed(path),
            Self::Prefix { matched, replacement } => match below(path, matched) {
                Some("") if replacement.is_empty() => Cow::Borrowed("/"),
                Some(rest) => Cow::Owned([replacement, rest].concat()),
                None => Cow::Borrowed(path),
            },
        }
    }
}

/// What follows a prefix, by whole segments.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Rewrite {
    pub(super) fn new(rewrite: &UrlRewrite, prefix: &str) -> Self {
        let host = rewrite.hostname.as_ref().map(ToString::to_string);
        Self {
            // A hostname can always be either.
            host: host.and_then(|host| {
                Some((HeaderValue::from_str(&host).ok()?, Authority::try_from(host.as_str()).ok()?))
            }),
            path: rewrite.path.as_ref().map(|path| NewPath::new(path, prefix)),
        }
    }

    /// Changes a request as it was received.
    pub(super) fn apply<B>(&self, request: &mut Request<B>) {
        if let Some(path) = &self.path {
            let uri = request.uri();
            let target = with_query(path.of(uri.path()), uri.query());
            if let Ok(target) = PathAndQuery::try_from(target) {
                change(request.uri_mut(), |parts| parts.path_and_query = Some(target));
            }
        }
        if let Some((host, authority)) = &self.host {
            if request.uri().authority().is_some() {
                change(request.uri_mut(), |parts| parts.authority = Some(authority.clone()));
            }
            if request.uri().authority().is_none() || request.headers().contains_key(HOST) {
                request.headers_mut().insert(HOST, host.clone());
            }
        }
    }
}

/// A path with a request's query, byte for byte.
pub(super) fn with_query(path: Cow<'_, str>, query: Option<&str>) -> String {
    let mut target = path.into_owned();
    if let Some(query) = query {
        target.extend(["?", query]);
    }
    target
}

fn change(uri: &mut Uri, change: impl FnOnce(&mut http::uri::Parts)) {
    let mut parts = std::mem::take(uri).into_parts();
    change(&mut parts);
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the Gateway API's `HTTPPathModifier`, and what it leaves open.
    #[test]
    fn a_prefix_is_replaced_by_segments() {
        for (path, prefix, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo//a%2Fb/../c", "/foo", "/xyz", "/xyz//a%2Fb/../c"),
            ("/bar", "", "/xyz", "/xyz/bar"),
            ("/", "", "/xyz", "/xyz/"),
            ("/foobar", "/foo", "/xyz", "/foobar"),
            ("*", "", "/xyz", "*"),
        ] {
            let path_modifier = NewPath::Prefix { matched: prefix.into(), replacement: replacement.into() };
            assert_eq!(path_modifier.of(path), expected, "{path} {prefix} {replacement}");
        }
    }
}

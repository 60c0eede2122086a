//! Where a request goes: the host and the path that a backend sees, and those that a caller is sent to.

use std::borrow::Cow;

use http::header::HOST;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use outrigger_config::listener::HttpPath;
use outrigger_config::path::normalize;
use outrigger_config::route::{PathModifier, UrlRewrite};

/// Another host, another path.
#[derive(Debug)]
pub(super) struct Rewrite {
    host: Option<HeaderValue>,
    path: Option<NewPath>,
}

/// How a path is changed.
#[derive(Debug)]
pub(super) enum NewPath {
    Full(Box<str>),
    Prefix(NewPrefix),
}

/// What stands in place of a prefix; both without their trailing slash.
#[derive(Debug)]
pub(super) struct NewPrefix {
    matched: Box<str>,
    replacement: Box<str>,
    /// The form in which the listener sees paths.
    form: HttpPath,
}

/// The prefix that a rule matches, and the form in which its listener sees paths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefix<'a> {
    pub(super) matched: &'a str,
    pub(super) form: HttpPath,
}

impl NewPath {
    pub(super) fn new(path: &PathModifier, prefix: Prefix<'_>) -> Self {
        match path {
            PathModifier::ReplaceFullPath(path) => Self::Full(path.clone()),
            PathModifier::ReplacePrefixMatch(replacement) => Self::Prefix(NewPrefix {
                // A route's has no encoded slash, which is all that can be refused.
                matched: normalize(prefix.matched, prefix.form).unwrap_or(prefix.matched.into()).into(),
                replacement: replacement.clone(),
                form: prefix.form,
            }),
        }
    }

    /// The new path of a request. A target that is no path, as the `*` of OPTIONS, stays.
    pub(super) fn of<'a>(&'a self, path: &'a str) -> Cow<'a, str> {
        if !path.starts_with('/') {
            return Cow::Borrowed(path);
        }
        match self {
            Self::Full(path) => Cow::Borrowed(path),
            Self::Prefix(prefix) => prefix.of(path),
        }
    }
}

impl NewPrefix {
    fn of<'a>(&self, path: &'a str) -> Cow<'a, str> {
        // It was in this form that the rule took it, so it can be brought there, and begins with the prefix.
        let Ok(seen) = normalize(path, self.form) else { return Cow::Borrowed(path) };
        let Some(new) = self.joined(&seen) else { return Cow::Borrowed(path) };
        // As it was received where that means the same, and does not lead out of the new prefix.
        let raw = self.joined(path).filter(|raw| normalize(raw, self.form) == normalize(&new, self.form));
        Cow::Owned(raw.unwrap_or(new))
    }

    fn joined(&self, path: &str) -> Option<String> {
        let new = [&*self.replacement, below(path, &self.matched)?].concat();
        Some(if new.is_empty() { "/".into() } else { new })
    }
}

/// What follows a prefix, by whole segments.
fn below<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Rewrite {
    pub(super) fn new(rewrite: &UrlRewrite, prefix: Prefix<'_>) -> Self {
        let host = rewrite.hostname.as_ref();
        Self {
            // A hostname always can be one.
            host: host.and_then(|host| HeaderValue::try_from(host.to_string()).ok()),
            path: rewrite.path.as_ref().map(|path| NewPath::new(path, prefix)),
        }
    }

    /// Changes a request in the form of HTTP/1.1: a target without a host, which is in `Host`.
    pub(super) fn apply(&self, request: &mut Parts) {
        // The target of CONNECT is no path.
        if let Some(path) = self.path.as_ref().filter(|_| request.uri.path().starts_with('/')) {
            let target = with_query(path.of(request.uri.path()), request.uri.query());
            if let Ok(target) = PathAndQuery::try_from(target) {
                let mut uri = std::mem::take(&mut request.uri).into_parts();
                uri.path_and_query = Some(target);
                request.uri = Uri::from_parts(uri).unwrap_or_default();
            }
        }
        if let Some(host) = &self.host {
            request.headers.insert(HOST, host.clone());
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
            // What was received stays, where it means the same.
            ("/foo//a%2fb/./../%63", "/foo", "/xyz", "/xyz//a%2fb/./../%63"),
            // Where the prefix itself is spelled in another way, or left and entered again, the form that the rule saw.
            ("/%66oo/b%61r", "/foo", "/xyz", "/xyz/bar"),
            ("/x/../foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/../foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/../foo", "", "/xyz", "/xyz/foo"),
            ("/foo/..", "", "/xyz", "/xyz/foo/.."),
            ("/foo/bar", "/%66oo", "/xyz", "/xyz/bar"),
            ("/bar", "", "/xyz", "/xyz/bar"),
            ("/", "", "/xyz", "/xyz/"),
            ("/foobar", "/foo", "/xyz", "/foobar"),
            ("*", "", "/xyz", "*"),
        ] {
            let modifier = PathModifier::ReplacePrefixMatch(replacement.into());
            let new = NewPath::new(&modifier, Prefix { matched: prefix, form: HttpPath::default() });
            assert_eq!(new.of(path), expected, "{path} {prefix} {replacement}");
        }
    }
}

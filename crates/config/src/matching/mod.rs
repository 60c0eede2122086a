//! Which rule takes a request: the Gateway API's precedence (`HTTPRouteSpec.hostnames`, `HTTPRouteRule.matches`), laid
//! out so that a request is looked up by its host and path and never compared with every rule.
//!
//! The most specific host decides first: an exact one, then the longest wildcard, then routes without hosts. A
//! request is only ever matched against the rules of that one host, as Envoy and Istio do; if none of them matches,
//! the less specific hosts are not asked, and nothing takes the request.
//!
//! Within the host, by path: exact, then regular expressions, the longest expression first and of two as long the one
//! whose route comes first (the Gateway API leaves their place to the implementation), then prefixes, the longest
//! first. Among matches of the same path: one with a
//! method, then the one with most headers, then most query parameters, then the one of the oldest route, then by
//! route name, then in the order of rules, then of matches.
//!
//! The rules of GRPCRoutes stand in the same table: a service and its method are an exact path, a service alone is a
//! prefix, a method alone stands under the root. For the same path they come before those of HTTPRoutes, because they
//! take calls of gRPC alone.

use std::borrow::Cow;

use http::{HeaderMap, Method};

use crate::listener::HttpPath;
use crate::path::normalize;
use crate::route::{HttpMatch, PathMatch};
use crate::scalar::Hostname;
use crate::snapshot::HttpRuleEntry;

mod candidate;
mod candidates;
mod expressions;
mod text_map;

pub use candidate::header_matches;
pub(crate) use candidate::{header_value, query_value};

use candidate::Candidate;
use candidates::Candidates;
use expressions::Expressions;
use text_map::TextMap;

/// What of a request decides which rule takes it.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The host of its authority as received: in upper or lower case, with or without a port and a trailing dot.
    pub host: &'a str,
    /// Its path without the query, in the form of the listener's [`crate::path::normalize`].
    pub path: &'a str,
    /// Its query, without the `?`.
    pub query: Option<&'a str>,
    /// Its method.
    pub method: &'a Method,
    /// Its headers.
    pub headers: &'a HeaderMap,
}

/// The rule that takes a request, and by which of its matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The rule's index in [`crate::Snapshot::http_rules`].
    pub rule: usize,
    /// The match's index in the rule's `matches`; 0 where it has none.
    pub matched: usize,
    /// How many bytes of the request's path its prefix took, without a trailing slash: of `/` none. Where the path was
    /// matched in another way than by prefix, none either.
    pub prefix: usize,
}

/// The HTTP rules of one listener.
#[derive(Debug, Clone, Default)]
pub struct HttpTable {
    form: HttpPath,
    exact: TextMap<HostRules>,
    /// By suffix, which begins with a dot.
    wildcard: TextMap<HostRules>,
    any: Option<HostRules>,
}

impl HttpTable {
    /// Lays out the rules of one listener, which are in the order of routes; `first` is the index of the first of them.
    /// Paths have the form that `form` gives those of requests.
    pub(crate) fn new(rules: &[HttpRuleEntry], first: usize, form: HttpPath) -> Self {
        let mut table = Self { form, ..Self::default() };
        for (entry, index) in rules.iter().zip(first..) {
            let Some(rule) = entry.spec.rules.get(entry.index) else { continue };
            table.add(&entry.spec.hostnames, &rule.matches, index);
        }
        for host in table.exact.values_mut().chain(table.wildcard.values_mut()).chain(&mut table.any) {
            host.seal();
        }
        table
    }

    /// The rule that takes a request.
    pub fn find(&self, head: &Head<'_>) -> Option<Found> {
        self.host(&host_name(head.host))?.find(head)
    }

    /// Whether it has no rule at all.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty() && self.any.is_none()
    }

    fn host(&self, host: &str) -> Option<&HostRules> {
        self.exact.get(host).or_else(|| self.wildcard_host(host)).or(self.any.as_ref())
    }

    fn wildcard_host(&self, host: &str) -> Option<&HostRules> {
        if self.wildcard.is_empty() {
            return None;
        }
        // The wildcard stands for one label at least, so the suffix cannot begin with the name's first character.
        let mut dots = host.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'.');
        dots.find_map(|(dot, _)| self.wildcard.get(host.get(dot..)?))
    }

    fn add(&mut self, hostnames: &[Hostname], matches: &[HttpMatch], rule: usize) {
        let anything = [HttpMatch::default()];
        let matches = if matches.is_empty() { &anything } else { matches };
        if hostnames.is_empty() {
            self.any.get_or_insert_default().add(matches, rule, self.form);
        }
        for hostname in hostnames {
            let host = match hostname {
                Hostname::Exact(name) => self.exact.entry(name),
                Hostname::Wildcard(suffix) => self.wildcard.entry(suffix),
            };
            host.add(matches, rule, self.form);
        }
    }
}

/// A host as routes name it: without port and trailing dot, in lower case.
pub(crate) fn host_name(host: &str) -> Cow<'_, str> {
    let port = host.bytes().rev().take_while(u8::is_ascii_digit).count();
    let name = host.get(..host.len() - port).and_then(|name| name.strip_suffix(':')).unwrap_or(host);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().fold(false, |upper, byte| upper | byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// The rules of one host.
#[derive(Debug, Clone, Default)]
struct HostRules {
    exact: TextMap<Candidates>,
    expressions: Expressions,
    /// By prefix without its trailing slash; the root apart.
    prefixes: TextMap<Candidates>,
    root: Candidates,
}

impl HostRules {
    fn add(&mut self, matches: &[HttpMatch], rule: usize, form: HttpPath) {
        for (matched, one) in matches.iter().enumerate() {
            let candidate = Candidate::new(one, rule, matched);
            match &one.path {
                Some(PathMatch::Exact(path)) => self.exact.entry(&in_form(path, form)).add(candidate),
                Some(PathMatch::RegularExpression(pattern)) => self.expressions.add(pattern, candidate),
                Some(PathMatch::PathPrefix(prefix)) => {
                    let prefix = in_form(prefix, form);
                    match prefix.strip_suffix('/').unwrap_or(&prefix) {
                        "" => self.root.add(candidate),
                        prefix => self.prefixes.entry(prefix).add(candidate),
                    }
                }
                None => self.root.add(candidate),
            }
        }
    }

    /// Puts everything in order, once all of it is there.
    fn seal(&mut self) {
        self.exact.values_mut().chain(self.prefixes.values_mut()).for_each(Candidates::seal);
        self.root.seal();
        self.expressions.seal();
    }

    fn find(&self, head: &Head<'_>) -> Option<Found> {
        let exact = self.exact.get(head.path).and_then(|candidates| candidates.find(head, 0));
        exact.or_else(|| self.expressions.find(head)).or_else(|| self.prefix(head))
    }

    /// Walks up the path's segments. What has no slash at all, as the `*` of OPTIONS, is under the root alone.
    fn prefix(&self, head: &Head<'_>) -> Option<Found> {
        // Segments are short: looking byte by byte is quicker than a search made for long text.
        let parent = |path: &str| path.bytes().rposition(|byte| byte == b'/').unwrap_or(0);
        let mut end = head.path.len();
        if let Some(possible) = head.path.as_bytes().get(..=self.prefixes.longest()) {
            end = possible.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        }
        while end > 0 {
            let path = head.path.get(..end)?;
            let candidates = self.prefixes.get(path);
            if let Some(found) = candidates.and_then(|candidates| candidates.find(head, end)) {
                return Some(found);
            }
            end = parent(path);
        }
        self.root.find(head, 0)
    }
}

/// The path of a route in the form of those of requests. A route's has no encoded slash, so none is refused.
fn in_form(path: &str, form: HttpPath) -> Cow<'_, str> {
    normalize(path, form).unwrap_or(Cow::Borrowed(path))
}

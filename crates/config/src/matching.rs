//! Which rule takes a request: the Gateway API's precedence (`HTTPRouteSpec.hostnames`, `HTTPRouteRule.matches`), laid
//! out so that a request is looked up by its host and path and never compared with every rule.
//!
//! The most specific host decides first: an exact one, then the longest wildcard, then routes without hosts. A
//! request is only ever matched against the rules of that one host, as Envoy and Istio do; if none of them matches,
//! the less specific hosts are not asked, and nothing takes the request.
//!
//! Within the host, by path: exact, then regular expressions, the longest expression first (the Gateway API leaves
//! their place to the implementation), then prefixes, the longest first. Among matches of the same path: one with a
//! method, then the one with most headers, then most query parameters, then the one of the oldest route, then by
//! route name, then in the order of rules, then of matches.
//!
//! The rules of GRPCRoutes stand in the same table: a service and its method are an exact path, a service alone is a
//! prefix, a method alone stands under the root. For the same path they come before those of HTTPRoutes, because they
//! take calls of gRPC alone.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;

use http::{HeaderMap, Method};

use crate::route::{GrpcCall, HeaderMatch, HttpMatch, PathMatch, QueryMatch};
use crate::scalar::{Hostname, Pattern};
use crate::snapshot::HttpRuleEntry;

/// What of a request decides which rule takes it.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The host of its authority as received: in upper or lower case, with or without a port and a trailing dot.
    pub host: &'a str,
    /// Its path as received, without the query.
    pub path: &'a str,
    /// Its query, without the `?`.
    pub query: Option<&'a str>,
    /// Its method.
    pub method: &'a Method,
    /// Its headers.
    pub headers: &'a HeaderMap,
}

/// The HTTP rules of one listener.
#[derive(Debug, Clone, Default)]
pub struct HttpTable {
    exact: TextMap<HostRules>,
    /// By suffix, which begins with a dot.
    wildcard: TextMap<HostRules>,
    any: Option<HostRules>,
}

impl HttpTable {
    /// Lays out the rules of one listener, which are in the order of routes; `first` is the index of the first of them.
    pub(crate) fn new(rules: &[HttpRuleEntry], first: usize) -> Self {
        let mut table = Self::default();
        for (entry, index) in rules.iter().zip(first..) {
            let Some(rule) = entry.spec.rules.get(entry.index) else { continue };
            table.add(&entry.spec.hostnames, &rule.matches, index);
        }
        for host in table.exact.values_mut().chain(table.wildcard.values_mut()).chain(&mut table.any) {
            host.sort();
        }
        table
    }

    /// The index in [`crate::Snapshot::http_rules`] of the rule that takes a request.
    pub fn find(&self, head: &Head<'_>) -> Option<usize> {
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
            self.any.get_or_insert_default().add(matches, rule);
        }
        for hostname in hostnames {
            let host = match hostname {
                Hostname::Exact(name) => self.exact.entry(name),
                Hostname::Wildcard(suffix) => self.wildcard.entry(suffix),
            };
            host.add(matches, rule);
        }
    }
}

/// A host as routes name it: without port and trailing dot, in lower case.
fn host_name(host: &str) -> Cow<'_, str> {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// The rules of one host.
#[derive(Debug, Clone, Default)]
struct HostRules {
    exact: TextMap<Vec<Candidate>>,
    expressions: Vec<(Pattern, Candidate)>,
    /// By prefix without its trailing slash.
    prefixes: TextMap<Vec<Candidate>>,
}

impl HostRules {
    fn add(&mut self, matches: &[HttpMatch], rule: usize) {
        for one in matches {
            let candidate = Candidate::new(one, rule);
            match &one.path {
                Some(PathMatch::Exact(path)) => self.exact.entry(path).push(candidate),
                Some(PathMatch::RegularExpression(pattern)) => {
                    self.expressions.push((pattern.clone(), candidate));
                }
                Some(PathMatch::PathPrefix(prefix)) => self.prefixes.entry(prefix).push(candidate),
                None => self.prefixes.entry("").push(candidate),
            }
        }
    }

    /// Puts the candidates of each path in order. They were added by route, rule and match: the sort is stable.
    fn sort(&mut self) {
        for candidates in self.exact.values_mut().chain(self.prefixes.values_mut()) {
            candidates.sort_by_key(Candidate::rank);
        }
        self.expressions
            .sort_by_key(|(pattern, candidate)| (Reverse(pattern.as_str().len()), candidate.rank()));
    }

    fn find(&self, head: &Head<'_>) -> Option<usize> {
        let exact = self.exact.get(head.path).and_then(|candidates| first(candidates, head));
        exact.or_else(|| self.expression(head)).or_else(|| self.prefix(head))
    }

    fn expression(&self, head: &Head<'_>) -> Option<usize> {
        let found = self
            .expressions
            .iter()
            .find(|(pattern, candidate)| candidate.matches(head) && pattern.is_match(head.path));
        found.map(|(_, candidate)| candidate.rule)
    }

    /// Walks up the path's segments. What has no slash at all, as the `*` of OPTIONS, is under the root alone.
    fn prefix(&self, head: &Head<'_>) -> Option<usize> {
        let mut path = head.path;
        loop {
            if let Some(rule) = self.prefixes.get(path).and_then(|candidates| first(candidates, head)) {
                return Some(rule);
            }
            if path.is_empty() {
                return None;
            }
            path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }
}

fn first(candidates: &[Candidate], head: &Head<'_>) -> Option<usize> {
    candidates.iter().find(|candidate| candidate.matches(head)).map(|candidate| candidate.rule)
}

/// A rule that takes a request with the right path, if the rest of it is right too.
#[derive(Debug, Clone)]
struct Candidate {
    rule: usize,
    method: Option<Method>,
    headers: Box<[HeaderMatch]>,
    query: Box<[QueryMatch]>,
    /// That the request is a call of gRPC.
    grpc: Option<GrpcCall>,
}

impl Candidate {
    fn new(one: &HttpMatch, rule: usize) -> Self {
        Self {
            rule,
            method: one.method.as_ref().map(|method| method.0.clone()),
            headers: one.headers.clone().into(),
            query: one.query_params.clone().into(),
            grpc: one.grpc.clone(),
        }
    }

    /// Its place among the candidates of one path: the lowest first.
    fn rank(&self) -> impl Ord + use<> {
        let method = self.grpc.as_ref().map(|call| call.method.as_ref().map_or(0, |method| method.len()));
        (Reverse(method), self.method.is_none(), Reverse(self.headers.len()), Reverse(self.query.len()))
    }

    fn matches(&self, head: &Head<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method == head.method)
            && self.grpc.as_ref().is_none_or(|call| call.matches(head.path, head.headers))
            && self.headers.iter().all(|header| header_matches(header, head.headers))
            && self.query.iter().all(|query| query_matches(query, head.query.unwrap_or_default()))
    }
}

/// A value that is not UTF-8 matches nothing.
fn header_matches(wanted: &HeaderMatch, headers: &HeaderMap) -> bool {
    let mut values =
        headers.get_all(&wanted.name.0).iter().map(|value| std::str::from_utf8(value.as_bytes()));
    let Some(Ok(first)) = values.next() else { return false };
    let Some(second) = values.next() else { return wanted.value.is_match(first) };
    let mut joined = first.to_owned();
    for value in std::iter::once(second).chain(values) {
        let Ok(value) = value else { return false };
        joined.push(',');
        joined.push_str(value);
    }
    wanted.value.is_match(&joined)
}

/// Percent signs and pluses are decoded, without allocating where there are none.
fn query_matches(wanted: &QueryMatch, query: &str) -> bool {
    let found = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| *name == wanted.name);
    found.is_some_and(|(_, value)| wanted.value.is_match(&value))
}

/// A map by text that says no without hashing to most text that it does not have, however long that text is.
#[derive(Debug, Clone)]
struct TextMap<V> {
    map: HashMap<Box<str>, V>,
    /// One bit for each length of key that there is, the last one for all from 63.
    lengths: u64,
    longest: usize,
}

impl<V> Default for TextMap<V> {
    fn default() -> Self {
        Self { map: HashMap::new(), lengths: 0, longest: 0 }
    }
}

impl<V: Default> TextMap<V> {
    fn get(&self, key: &str) -> Option<&V> {
        let possible = key.len() <= self.longest && self.lengths & Self::length_bit(key) != 0;
        if possible { self.map.get(key) } else { None }
    }

    fn entry(&mut self, key: &str) -> &mut V {
        self.lengths |= Self::length_bit(key);
        self.longest = self.longest.max(key.len());
        self.map.entry(key.into()).or_default()
    }

    fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.map.values_mut()
    }

    fn length_bit(key: &str) -> u64 {
        1 << key.len().min(63)
    }
}

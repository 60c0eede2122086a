//! Rules that did not take a request, and why.

use std::cmp::Reverse;

use http::header::CONTENT_TYPE;

use super::Near;
use super::words::{got, path, value};
use crate::listener::HttpPath;
use crate::matching::{Found, Head, header_value, query_value};
use crate::path::normalize;
use crate::route::{HttpMatch, PathMatch};
use crate::scalar::{Hostname, Name};
use crate::snapshot::{HttpRuleEntry, Snapshot};

/// How far a match came, the farthest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The host is right, or the path would be; with how many bytes of the path are.
    HostOrPath(usize),
    Method,
    Header,
    Query,
    /// It matches, and another comes first.
    Matches,
}

/// How specific a host is: exact before wildcard before any, then the longer one.
type HostRank = (u8, usize);

/// A request at one listener.
pub(super) struct Seen<'a> {
    pub(super) head: Head<'a>,
    /// Its host as routes name it.
    pub(super) host: &'a str,
    /// The form of the listener's paths.
    pub(super) form: HttpPath,
}

/// The rules that came near a request, without the one that takes it; the nearest first.
pub(super) fn near(snapshot: &Snapshot, listener: &Name, seen: &Seen<'_>, found: Option<Found>) -> Vec<Near> {
    let rules = || snapshot.http_rules.iter().enumerate().filter(|(_, entry)| entry.listener == *listener);
    let committed = rules().filter_map(|(_, entry)| host_rank(entry, seen.host)).max();
    let winner = found.and_then(|found| Some((snapshot.http_rules.get(found.rule)?, found.matched)));
    let mut near = Vec::new();
    for (at, entry) in rules() {
        if found.is_some_and(|found| found.rule == at) {
            continue;
        }
        let any = [HttpMatch::default()];
        let matches = entry.spec.rules.get(entry.index).map(|rule| rule.matches.as_slice());
        let matches = matches.filter(|matches| !matches.is_empty()).unwrap_or(&any);
        let host = match host_rank(entry, seen.host) {
            rank @ Some(_) if rank == committed => None,
            Some(_) => Some(format!("host: routes of a more specific one than {} come first", hosts(entry))),
            None => Some(format!("host: wanted {}, got `{}`", hosts(entry), seen.host)),
        };
        let misses = matches.iter().filter_map(|one| match (&host, miss(one, seen)) {
            (None, Some(miss)) => Some(miss),
            (None, None) => Some((Stage::Matches, later(one, entry, winner?))),
            (Some(_), Some((Stage::HostOrPath(_), _))) => None,
            // What takes every path is near only if its host nearly is the one, and then
            // only where nothing else takes the request.
            (Some(host), _) => {
                let same_path =
                    one.path.as_ref().is_some_and(|path| *path != PathMatch::PathPrefix("".into()));
                (same_path || found.is_none() && is_like(entry, seen.host))
                    .then(|| (Stage::HostOrPath(usize::MAX), host.clone()))
            }
        });
        if let Some((stage, because)) = misses.max_by_key(|(stage, _)| *stage) {
            let (kind, route, rule) = (entry.kind(), entry.route.clone(), entry.rule.to_string());
            near.push((stage, Near { kind, route, rule, because }));
        }
    }
    near.sort_by_key(|(stage, _)| Reverse(*stage));
    near.into_iter().map(|(_, near)| near).collect()
}

/// Whether a host of the route is nearly the one that is asked for: mistyped, or under a wildcard beside it.
fn is_like(entry: &HttpRuleEntry, host: &str) -> bool {
    let like = |name: &str| strsim::damerau_levenshtein(name, host) <= (name.len() / 4).min(2);
    entry.spec.hostnames.is_empty()
        || entry.spec.hostnames.iter().any(|hostname| match hostname {
            Hostname::Exact(name) => like(name),
            Hostname::Wildcard(suffix) => host.ends_with(&**suffix) || like(suffix.trim_start_matches('.')),
        })
}

/// How specific the host of a route is that a request's host matches.
fn host_rank(entry: &HttpRuleEntry, host: &str) -> Option<HostRank> {
    if entry.spec.hostnames.is_empty() {
        return Some((0, 0));
    }
    let ranks = entry.spec.hostnames.iter().filter_map(|hostname| match hostname {
        Hostname::Exact(name) => (**name == *host).then_some((2, name.len())),
        Hostname::Wildcard(suffix) => {
            (host.len() > suffix.len() && host.ends_with(&**suffix)).then_some((1, suffix.len()))
        }
    });
    ranks.max()
}

fn hosts(entry: &HttpRuleEntry) -> String {
    match entry.spec.hostnames.as_slice() {
        [] => "none in particular".into(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or "),
    }
}

/// The first thing of a match that a request does not have.
fn miss(one: &HttpMatch, seen: &Seen<'_>) -> Option<(Stage, String)> {
    let head = &seen.head;
    if let Some(wanted) = &one.path
        && let Err(common) = path_matches(wanted, head.path, seen.form)
    {
        let because = format!("path: wanted {}, got `{}`", path(wanted), head.path);
        return Some((Stage::HostOrPath(common), because));
    }
    if let Some(call) = &one.grpc
        && !call.matches(head.path, head.headers)
    {
        let kind = header_value(head.headers, &CONTENT_TYPE);
        let because = format!(
            "call: wanted {}, got `{}`, content-type {}",
            super::words::call(call),
            head.path,
            kind.as_deref().unwrap_or("none")
        );
        return Some((Stage::Method, because));
    }
    if let Some(wanted) = &one.method
        && wanted.0 != *head.method
    {
        return Some((Stage::Method, format!("method: wanted {wanted}, got {}", head.method)));
    }
    for wanted in one.headers() {
        let found = header_value(head.headers, &wanted.name.0);
        if !found.as_deref().is_some_and(|found| wanted.value.is_match(found)) {
            let (name, wanted) = (&wanted.name, value(&wanted.value));
            let because = format!("header {name}: wanted {wanted}, {}", got(found.as_deref()));
            return Some((Stage::Header, because));
        }
    }
    for wanted in one.query_params() {
        let found = query_value(head.query, &wanted.name);
        if !found.as_deref().is_some_and(|found| wanted.value.is_match(found)) {
            let (name, wanted) = (&wanted.name, value(&wanted.value));
            let because = format!("query parameter {name}: wanted {wanted}, {}", got(found.as_deref()));
            return Some((Stage::Query, because));
        }
    }
    None
}

/// Whether a path is as wanted; if not, how many bytes of it are.
fn path_matches(wanted: &PathMatch, path: &str, form: HttpPath) -> Result<(), usize> {
    let (text, matches): (_, fn(&str, &str) -> bool) = match wanted {
        PathMatch::RegularExpression(pattern) => {
            return if pattern.is_match(path) { Ok(()) } else { Err(0) };
        }
        PathMatch::Exact(text) => (text, |path, wanted| path == wanted),
        PathMatch::PathPrefix(text) => (text, |path, wanted| {
            let rest = path.strip_prefix(wanted.strip_suffix('/').unwrap_or(wanted));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) || wanted.is_empty()
        }),
    };
    let wanted = normalize(text, form).unwrap_or_default();
    if matches(path, &wanted) {
        return Ok(());
    }
    Err(path.bytes().zip(wanted.bytes()).take_while(|(a, b)| a == b).count())
}

/// Why a match that a request has comes after the one that takes it.
fn later(one: &HttpMatch, entry: &HttpRuleEntry, (winner, matched): (&HttpRuleEntry, usize)) -> String {
    let anything = HttpMatch::default();
    let rule = winner.spec.rules.get(winner.index);
    let by = rule.and_then(|rule| rule.matches.get(matched)).unwrap_or(&anything);
    let path = |one: &HttpMatch| match &one.path {
        Some(PathMatch::Exact(_)) => (2, 0),
        Some(PathMatch::RegularExpression(pattern)) => (1, pattern.as_str().len()),
        Some(PathMatch::PathPrefix(prefix)) => (0, prefix.len()),
        None => (0, 0),
    };
    let age = |entry: &HttpRuleEntry| {
        let made = entry.spec.creation_timestamp;
        (made.is_none(), made)
    };
    let why = if path(one) != path(by) {
        "its path is less specific"
    } else if one.grpc.is_some() != by.grpc.is_some() {
        "it is not for gRPC alone"
    } else if one.method.is_some() != by.method.is_some() {
        "it names no method"
    } else if one.headers().count() != by.headers().count() {
        "it names fewer headers"
    } else if one.query_params().count() != by.query_params().count() {
        "it names fewer query parameters"
    } else if age(entry) != age(winner) {
        "its route is younger"
    } else if entry.route != winner.route {
        "its route comes later by name"
    } else {
        "it comes later in its route"
    };
    format!("matches too, but {why}")
}

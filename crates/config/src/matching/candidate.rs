//! One match of a rule, without its path.

use std::borrow::Cow;
use std::cmp::Reverse;

use http::{HeaderMap, HeaderName, Method};

use super::{Found, Head};
use crate::route::{GrpcCall, HeaderMatch, HttpMatch, QueryMatch};

/// A rule that takes a request with the right path, if the rest of it is right too.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    rule: usize,
    matched: usize,
    pub(super) method: Option<Method>,
    pub(super) headers: Box<[HeaderMatch]>,
    pub(super) query: Box<[QueryMatch]>,
    /// That the request is a call of gRPC.
    grpc: Option<GrpcCall>,
}

impl Candidate {
    pub(super) fn new(one: &HttpMatch, rule: usize, matched: usize) -> Self {
        Self {
            rule,
            matched,
            method: one.method.as_ref().map(|method| method.0.clone()),
            headers: one.headers().cloned().collect(),
            query: one.query_params().cloned().collect(),
            grpc: one.grpc.clone(),
        }
    }

    pub(super) fn found(&self, prefix: usize) -> Found {
        Found { rule: self.rule, matched: self.matched, prefix }
    }

    /// Its place among the candidates of one path: the lowest first.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        let call = self.grpc.as_ref().map(|call| call.method.as_ref().map_or(0, |method| method.len()));
        (Reverse(call), self.method.is_none(), Reverse(self.headers.len()), Reverse(self.query.len()))
    }

    pub(super) fn matches(&self, head: &Head<'_>) -> bool {
        let header = |wanted: &HeaderMatch| header_matches(wanted, head.headers);
        let query = |wanted: &QueryMatch| {
            query_value(head.query, &wanted.name).is_some_and(|value| wanted.value.is_match(&value))
        };
        // Who lets a caller connect to an application lets it say anything there, past every route: only if asked to.
        let any = |method: &Method| method != Method::CONNECT;
        self.method.as_ref().map_or_else(|| any(head.method), |method| method == head.method)
            && self.grpc.as_ref().is_none_or(|call| call.matches(head.path, head.headers))
            && self.headers.iter().all(header)
            && self.query.iter().all(query)
    }
}

/// Whether the one header of that name, or all of them joined, have the value.
pub fn header_matches(wanted: &HeaderMatch, headers: &HeaderMap) -> bool {
    header_value(headers, &wanted.name.0).is_some_and(|value| wanted.value.is_match(&value))
}

/// A header's value, its lines joined with a comma. One that is not UTF-8 matches nothing, as if it was not there.
pub(crate) fn header_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter().map(|value| std::str::from_utf8(value.as_bytes()));
    let first = values.next()?.ok()?;
    let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
    let mut joined = first.to_owned();
    for value in std::iter::once(second).chain(values) {
        joined.push(',');
        joined.push_str(value.ok()?);
    }
    Some(Cow::Owned(joined))
}

/// A query parameter's value: of several, the first. Percent signs and pluses are decoded, without allocating where
/// there are none.
pub(crate) fn query_value<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    let mut pairs = form_urlencoded::parse(query?.as_bytes());
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

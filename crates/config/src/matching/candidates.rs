//! The matches that have one path in common.

use foldhash::{HashMap, HashMapExt as _};
use http::{HeaderName, Method};

use super::candidate::{Candidate, header_value};
use super::expressions::Patterns;
use super::text_map::TextMap;
use super::{Found, Head};
use crate::route::ValueMatch;
use crate::scalar::Pattern;

/// As many are compared one after the other; more are looked up.
const FEW: usize = 8;

/// The matches that have one path in common.
#[derive(Debug, Clone, Default)]
pub(super) struct Candidates {
    /// In the order in which they are preferred, once sealed.
    list: Vec<Candidate>,
    index: Option<Box<Index>>,
}

impl Candidates {
    pub(super) fn add(&mut self, candidate: Candidate) {
        self.list.push(candidate);
    }

    /// Puts them in order. They were added by route, rule and match: the sort is stable.
    pub(super) fn seal(&mut self) {
        self.list.sort_by_key(Candidate::rank);
        self.index = (self.list.len() > FEW).then(|| Box::new(Index::new(&self.list)));
    }

    /// The first that takes a request with the right path, of which a prefix took this many bytes.
    pub(super) fn find(&self, head: &Head<'_>, prefix: usize) -> Option<Found> {
        let candidate = match &self.index {
            None => self.list.iter().find(|candidate| candidate.matches(head)),
            Some(index) => index.find(&self.list, head),
        };
        candidate.map(|candidate| candidate.found(prefix))
    }
}

/// Where in a list the candidates are that a request may match. Each candidate is filed once, under the rarest of its
/// conditions, so that few are left to compare. All lists of places are in order.
#[derive(Debug, Clone, Default)]
struct Index {
    methods: HashMap<Method, Vec<usize>>,
    headers: HashMap<HeaderName, Values>,
    query: TextMap<Values>,
    /// Those that take everything.
    rest: Vec<usize>,
}

/// By the value of one header or query parameter.
#[derive(Debug, Clone, Default)]
struct Values {
    exact: TextMap<Vec<usize>>,
    patterns: Patterns,
    /// The candidates of the patterns.
    places: Vec<usize>,
}

/// A condition that can be looked up.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Method(&'a Method),
    Header(&'a HeaderName, &'a str),
    Query(&'a str, &'a str),
}

impl Index {
    fn new(list: &[Candidate]) -> Self {
        let mut counts = HashMap::<Key<'_>, usize>::new();
        for key in list.iter().flat_map(keys) {
            *counts.entry(key).or_default() += 1;
        }
        let mut index = Self::default();
        for (at, candidate) in list.iter().enumerate() {
            let rarest = keys(candidate).min_by_key(|key| counts.get(key).copied());
            match rarest {
                Some(Key::Method(method)) => index.methods.entry(method.clone()).or_default().push(at),
                Some(Key::Header(name, value)) => {
                    index.headers.entry(name.clone()).or_default().exact.entry(value).push(at);
                }
                Some(Key::Query(name, value)) => index.query.entry(name).exact.entry(value).push(at),
                None => index.file_by_pattern(at, candidate),
            }
        }
        let values = index.headers.values_mut().chain(index.query.values_mut());
        values.for_each(|values| values.patterns.seal());
        index
    }

    fn file_by_pattern(&mut self, at: usize, candidate: &Candidate) {
        let header = candidate.headers.iter().find_map(|header| Some((header, pattern(&header.value)?)));
        let query = candidate.query.iter().find_map(|query| Some((query, pattern(&query.value)?)));
        match (header, query) {
            (Some((header, pattern)), _) => {
                self.headers.entry(header.name.0.clone()).or_default().add(at, pattern);
            }
            (None, Some((query, pattern))) => self.query.entry(&query.name).add(at, pattern),
            (None, None) => self.rest.push(at),
        }
    }

    fn find<'a>(&self, list: &'a [Candidate], head: &Head<'_>) -> Option<&'a Candidate> {
        let mut best = Best { list, head, at: list.len() };
        best.look(&self.rest);
        if let Some(places) = self.methods.get(head.method) {
            best.look(places);
        }
        // Whichever are fewer: the request's headers, or those that decide.
        if self.headers.len() <= head.headers.keys_len() {
            for (name, values) in &self.headers {
                best.look_at_header(name, values);
            }
        } else {
            for name in head.headers.keys() {
                if let Some(values) = self.headers.get(name) {
                    best.look_at_header(name, values);
                }
            }
        }
        if !self.query.is_empty() {
            for (name, value) in form_urlencoded::parse(head.query.unwrap_or_default().as_bytes()) {
                if let Some(values) = self.query.get(&name) {
                    best.look_at_values(values, &value);
                }
            }
        }
        list.get(best.at)
    }
}

impl Values {
    fn add(&mut self, at: usize, pattern: &Pattern) {
        self.patterns.add(pattern);
        self.places.push(at);
    }
}

/// The best candidate so far.
struct Best<'a> {
    list: &'a [Candidate],
    head: &'a Head<'a>,
    at: usize,
}

impl Best<'_> {
    fn takes(&self, at: usize) -> bool {
        self.list.get(at).is_some_and(|candidate| candidate.matches(self.head))
    }

    fn look(&mut self, places: &[usize]) {
        let better = places.iter().copied().take_while(|at| *at < self.at).find(|at| self.takes(*at));
        self.at = better.unwrap_or(self.at);
    }

    fn look_at_header(&mut self, name: &HeaderName, values: &Values) {
        if let Some(value) = header_value(self.head.headers, name) {
            self.look_at_values(values, &value);
        }
    }

    fn look_at_values(&mut self, values: &Values, value: &str) {
        if let Some(places) = values.exact.get(value) {
            self.look(places);
        }
        let found = values.patterns.first(value, |place| {
            values.places.get(place).copied().filter(|at| *at < self.at && self.takes(*at))
        });
        self.at = found.unwrap_or(self.at);
    }
}

/// The conditions of a candidate that can be looked up.
fn keys(candidate: &Candidate) -> impl Iterator<Item = Key<'_>> {
    let headers = candidate.headers.iter().filter_map(|h| Some(Key::Header(&h.name.0, exact(&h.value)?)));
    let query = candidate.query.iter().filter_map(|q| Some(Key::Query(&q.name, exact(&q.value)?)));
    headers.chain(query).chain(candidate.method.as_ref().map(Key::Method))
}

fn exact(value: &ValueMatch) -> Option<&str> {
    match value {
        ValueMatch::Exact(text) => Some(text),
        ValueMatch::RegularExpression(_) => None,
    }
}

fn pattern(value: &ValueMatch) -> Option<&Pattern> {
    match value {
        ValueMatch::Exact(_) => None,
        ValueMatch::RegularExpression(pattern) => Some(pattern),
    }
}

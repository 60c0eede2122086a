//! Regular expressions, of which one or more may match a text.

use std::cmp::Reverse;
use std::collections::HashMap;

use regex::{RegexSet, RegexSetBuilder};

use super::candidate::Candidate;
use super::candidates::Candidates;
use super::text_map::TextMap;
use super::{Found, Head};
use crate::scalar::Pattern;

/// As many are tried one after the other; more are tried as one.
const FEW: usize = 8;
/// How large, in bytes, the program may be that tries several as one; where it would be larger, they are tried one
/// after the other.
const PROGRAM: usize = 8 << 20;

/// The matches of one host whose path is a regular expression.
#[derive(Debug, Clone, Default)]
pub(super) struct Expressions {
    /// In the order in which they are preferred, once sealed; each expression once.
    list: Vec<(Pattern, Candidates)>,
    /// Where each is, until sealed.
    places: HashMap<Box<str>, usize>,
    patterns: Patterns,
}

impl Expressions {
    pub(super) fn add(&mut self, pattern: &Pattern, candidate: Candidate) {
        let end = self.list.len();
        let at = *self.places.entry(pattern.as_str().into()).or_insert(end);
        if at == end {
            self.list.push((pattern.clone(), Candidates::default()));
        }
        if let Some((_, candidates)) = self.list.get_mut(at) {
            candidates.add(candidate);
        }
    }

    /// Puts the longest first. Those of one length were added by route: the sort is stable.
    pub(super) fn seal(&mut self) {
        self.places = HashMap::new();
        self.list.sort_by_key(|(pattern, _)| Reverse(pattern.as_str().len()));
        for (pattern, candidates) in &mut self.list {
            candidates.seal();
            self.patterns.add(pattern);
        }
        self.patterns.seal();
    }

    pub(super) fn find(&self, head: &Head<'_>) -> Option<Found> {
        self.patterns.first(head.path, |at| self.list.get(at)?.1.find(head, 0))
    }
}

/// Regular expressions by the text with which all that they match begins, so that of many few are tried.
#[derive(Debug, Clone, Default)]
pub(super) struct Patterns {
    list: Vec<Pattern>,
    groups: TextMap<Group>,
    /// The lengths of the groups' prefixes.
    lengths: Vec<usize>,
}

/// Expressions with the same prefix.
#[derive(Debug, Clone, Default)]
struct Group {
    /// Where they are in the list, in order.
    places: Vec<usize>,
    /// All of them as one.
    set: Option<RegexSet>,
}

impl Patterns {
    pub(super) fn add(&mut self, pattern: &Pattern) {
        self.groups.entry(pattern.prefix()).places.push(self.list.len());
        self.list.push(pattern.clone());
    }

    pub(super) fn seal(&mut self) {
        self.lengths = self.groups.iter().map(|(prefix, _)| prefix.len()).collect();
        self.lengths.sort_unstable();
        self.lengths.dedup();
        let mut compiled = HashMap::new();
        self.list.iter_mut().for_each(|pattern| pattern.share(&mut compiled));
        for group in self.groups.values_mut().filter(|group| group.places.len() > FEW) {
            let sources = group.places.iter().filter_map(|at| self.list.get(*at)).map(Pattern::anchored);
            group.set = RegexSetBuilder::new(sources).size_limit(PROGRAM).build().ok();
        }
    }

    /// What `take` makes of the first that matches the whole of `text` and of which it makes something.
    pub(super) fn first<T>(&self, text: &str, take: impl Fn(usize) -> Option<T>) -> Option<T> {
        let mut best = None;
        for length in &self.lengths {
            let Some(group) = text.get(..*length).and_then(|prefix| self.groups.get(prefix)) else {
                continue;
            };
            let end = best.as_ref().map_or(self.list.len(), |(at, _)| *at);
            let found = match &group.set {
                Some(set) => {
                    let mut places = set.matches(text).into_iter().filter_map(|one| group.places.get(one));
                    places.find_map(|at| Some((*at, take(*at)?)))
                }
                None => group.places.iter().take_while(|at| **at < end).find_map(|at| {
                    let matches = self.list.get(*at)?.is_match(text);
                    matches.then(|| take(*at)).flatten().map(|taken| (*at, taken))
                }),
            };
            if let Some(found) = found.filter(|(at, _)| *at < end) {
                best = Some(found);
            }
        }
        best.map(|(_, taken)| taken)
    }
}

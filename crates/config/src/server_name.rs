//! Which TLSRoute takes a connection: by the name that the caller asks for in its handshake (SNI).

use std::collections::HashMap;

use crate::scalar::Hostname;

/// The TLSRoutes of one listener, by name. The most specific name decides: an exact one, then the longest wildcard, then
/// a route without names. Of several routes for the same name, the first that was added.
#[derive(Debug, Clone, Default)]
pub struct NameTable {
    exact: HashMap<Box<str>, usize>,
    /// By suffix, which begins with a dot.
    wildcard: HashMap<Box<str>, usize>,
    any: Option<usize>,
}

impl NameTable {
    pub(crate) fn add(&mut self, hostnames: &[Hostname], rule: usize) {
        if hostnames.is_empty() {
            self.any.get_or_insert(rule);
        }
        for hostname in hostnames {
            let (map, name) = match hostname {
                Hostname::Exact(name) => (&mut self.exact, name),
                Hostname::Wildcard(suffix) => (&mut self.wildcard, suffix),
            };
            map.entry((**name).into()).or_insert(rule);
        }
    }

    /// The rule that takes a connection whose caller asks for `name`, in lower case, or for none.
    pub fn find(&self, name: Option<&str>) -> Option<usize> {
        let named = name.and_then(|name| {
            let name = name.strip_suffix('.').unwrap_or(name);
            self.exact.get(name).or_else(|| {
                // The wildcard stands for one label at least.
                let dots = name.match_indices('.').map(|(dot, _)| dot).filter(|dot| *dot > 0);
                dots.filter_map(|dot| name.get(dot..)).find_map(|suffix| self.wildcard.get(suffix))
            })
        });
        named.copied().or(self.any)
    }

    /// Whether it has no route at all.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty() && self.any.is_none()
    }
}

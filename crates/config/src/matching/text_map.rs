//! A map by text.

use foldhash::HashMap;

/// A map by text that says no without hashing to most text that it does not have, however long that text is.
#[derive(Debug, Clone)]
pub(super) struct TextMap<V> {
    map: HashMap<Box<str>, V>,
    /// One bit for each length of key that there is, the last one for all from 63.
    lengths: u64,
    longest: usize,
}

impl<V> Default for TextMap<V> {
    fn default() -> Self {
        Self { map: HashMap::default(), lengths: 0, longest: 0 }
    }
}

impl<V: Default> TextMap<V> {
    pub(super) fn get(&self, key: &str) -> Option<&V> {
        let possible = key.len() <= self.longest && self.lengths & Self::length_bit(key) != 0;
        if possible { self.map.get(key) } else { None }
    }

    /// The length of the longest key.
    pub(super) const fn longest(&self) -> usize {
        self.longest
    }

    pub(super) fn entry(&mut self, key: &str) -> &mut V {
        self.lengths |= Self::length_bit(key);
        self.longest = self.longest.max(key.len());
        self.map.entry(key.into()).or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.map.iter().map(|(key, value)| (&**key, value))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.map.values_mut()
    }

    fn length_bit(key: &str) -> u64 {
        1 << key.len().min(63)
    }
}

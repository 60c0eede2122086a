//! How many requests each endpoint of a backend got lately, so that this node's zone can come first and still no endpoint
//! gets more than its part.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// How many requests for each endpoint are counted before the counts begin anew.
const WINDOW: u32 = 64;
/// An endpoint may always have so many more than its part, as at the beginning of a window.
pub(super) const SLACK: f32 = 2.0;

/// See the module.
#[derive(Debug)]
pub(super) struct Quota {
    counts: Box<[AtomicU32]>,
    total: AtomicU32,
}

impl Quota {
    pub(super) fn new(endpoints: usize) -> Self {
        Self { counts: (0..endpoints).map(|_| AtomicU32::new(0)).collect(), total: AtomicU32::new(0) }
    }

    /// The requests of this window.
    pub(super) fn total(&self) -> u32 {
        self.total.load(Relaxed)
    }

    /// Whether an endpoint got fewer than `most`.
    pub(super) fn has_room(&self, place: usize, most: f32) -> bool {
        self.counts.get(place).is_some_and(|count| count.load(Relaxed) as f32 + 1.0 <= most + SLACK)
    }

    /// Counts a request.
    pub(super) fn count(&self, place: usize) {
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Relaxed);
        }
        let total = self.total.fetch_add(1, Relaxed) + 1;
        if total as usize == self.counts.len().saturating_mul(WINDOW as usize) {
            self.counts.iter().for_each(|count| count.store(0, Relaxed));
            self.total.store(0, Relaxed);
        }
    }
}

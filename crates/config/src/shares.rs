//! The shares of a rule's backends: which one takes a request.

use crate::scalar::Name;

/// The backends that a rule refers to, by weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    refs: Box<[Share]>,
    total: u32,
}

/// One backend that a rule refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The backend's name.
    pub name: Name,
    /// Its index in [`crate::Snapshot::backends`]; absent where there is no such backend: its share gets 503.
    pub backend: Option<usize>,
    /// The sum of the weights up to and with this one.
    below: u32,
}

impl Shares {
    /// Adds up the weights of `refs`: names, weights, and where the backends are in the snapshot.
    pub(crate) fn new(refs: impl IntoIterator<Item = (Name, u32, Option<usize>)>) -> Self {
        let mut total = 0u32;
        let refs = refs
            .into_iter()
            .map(|(name, weight, backend)| {
                total = total.saturating_add(weight);
                Share { name, backend, below: total }
            })
            .collect();
        Self { refs, total }
    }

    /// The index, in the rule's `backendRefs`, of the one that takes a request. `random` is uniform over `u32`; the
    /// error of the proportions is below one part in 2³² / total weight. `None` where no backend has a weight.
    pub fn pick(&self, random: u32) -> Option<usize> {
        if self.total == 0 {
            return None;
        }
        if self.refs.len() == 1 {
            return Some(0);
        }
        let point = ((u64::from(random) * u64::from(self.total)) >> 32) as u32;
        Some(self.refs.partition_point(|share| share.below <= point))
    }

    /// The backends, in the order of the rule's `backendRefs`.
    pub fn refs(&self) -> &[Share] {
        &self.refs
    }

    /// The backends, each with how many of a hundred it takes.
    pub fn percents(&self) -> impl Iterator<Item = (&Share, f64)> {
        let mut above = 0;
        self.refs.iter().map(move |share| {
            let weight = share.below - above;
            above = share.below;
            (share, if self.total == 0 { 0.0 } else { f64::from(weight) * 100.0 / f64::from(self.total) })
        })
    }

    /// The index in [`crate::Snapshot::backends`] of the backend of the reference with this index; `None` where there
    /// is no such backend.
    pub fn backend(&self, reference: usize) -> Option<usize> {
        self.refs.get(reference).and_then(|share| share.backend)
    }
}

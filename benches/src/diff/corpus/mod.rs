//! The corpus, by topic.

mod targets;

use super::exchange::Exchange;

/// All exchanges; each has a name of its own.
pub(crate) fn exchanges() -> Vec<Exchange> {
    [targets::exchanges()].into_iter().flatten().collect()
}

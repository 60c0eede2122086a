//! What goes on being wrong is said now and then, not each time that it is met.

use std::time::{Duration, Instant};

/// How often the same is said.
const EVERY: Duration = Duration::from_secs(10);

/// Whether it is time to say something again.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Option<Instant>);

impl Seldom {
    /// Whether it is; then it was said.
    pub(crate) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.0.is_none_or(|said| now.saturating_duration_since(said) >= EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

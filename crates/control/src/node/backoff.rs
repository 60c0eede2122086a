//! When to try again, and how often to complain.

use std::fmt::Display;
use std::time::Duration;

use tracing::{debug, warn};

/// The shortest time before another try.
const FLOOR: Duration = Duration::from_millis(100);

/// Full jitter over a range that doubles with each failure, up to a cap.
#[derive(Debug)]
pub(super) struct Backoff {
    cap: Duration,
    ceiling: Duration,
    complaint: String,
}

impl Backoff {
    pub(super) fn new(cap: Duration) -> Self {
        Self { cap, ceiling: FLOOR, complaint: String::new() }
    }

    /// Something went well: the next failure starts from the beginning.
    pub(super) fn reset(&mut self) {
        self.ceiling = FLOOR;
        self.complaint.clear();
    }

    /// Says what failed and when it is tried again, and gives the time until then. What was said before is not said
    /// again at a level that people read.
    pub(super) fn after(&mut self, attempt: &str, error: impl Display) -> Duration {
        self.ceiling = (self.ceiling * 2).min(self.cap);
        let spread = self.ceiling.saturating_sub(FLOOR).as_millis() as u64;
        let delay = FLOOR + Duration::from_millis(fastrand::u64(0..=spread));
        let complaint = error.to_string();
        let millis = delay.as_millis();
        if complaint == self.complaint {
            debug!("{attempt}: {complaint}; next try in {millis} ms");
        } else {
            warn!("{attempt}: {complaint}; next try in {millis} ms, and so on");
            self.complaint = complaint;
        }
        delay
    }
}

//! One request at an endpoint.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::Load;
use crate::Outliers;

/// The least that a failed request counts as, in seconds, since a refusal is often the quickest of answers.
const FAILURE: f32 = 0.1;

/// One request at an endpoint. Dropping it counts the endpoint as free again.
#[derive(Debug)]
#[must_use = "dropping it says that the request is over"]
pub struct InFlight {
    load: Arc<Load>,
    started: Instant,
    answered: bool,
    /// Whether outlier detection knows how it ended.
    judged: bool,
    outliers: Option<Arc<Outliers>>,
}

impl InFlight {
    pub(super) const fn new(load: Arc<Load>, started: Instant) -> Self {
        Self { load, started, answered: false, judged: false, outliers: None }
    }

    /// Has outlier detection, where there is any, hear of how it ends.
    pub fn watched(mut self, outliers: Option<&Arc<Outliers>>) -> Self {
        self.outliers = outliers.cloned();
        self
    }

    /// Whether outlier detection hears of how it ends.
    pub const fn is_watched(&self) -> bool {
        self.outliers.is_some()
    }

    /// The head of the response has come: the time since the start is a sample of the endpoint's latency. Only the
    /// first call counts.
    pub fn response(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.answered, true) {
            self.load.sample(self.elapsed(now), now);
            if let Some(outliers) = &self.outliers {
                outliers.answered(&self.load, now.saturating_duration_since(self.started));
            }
        }
    }

    /// The request failed at the endpoint (reset, timed out): counts as a slow answer, however quick the failure was.
    /// May follow [`response`](Self::response), where the body broke.
    pub fn failure(&mut self, now: Instant) {
        self.answered = true;
        self.load.sample(self.elapsed(now).max(FAILURE), now);
        self.refused(now);
    }

    /// It was answered, by what counts as a failure in outlier detection alone: a status that says so.
    pub fn refused(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.judged, true)
            && let Some(outliers) = &self.outliers
        {
            outliers.failed(&self.load, self.started, now);
        }
    }

    /// The response came to its end. Says nothing after [`failure`](Self::failure) or [`refused`](Self::refused).
    pub fn success(&mut self) {
        if !std::mem::replace(&mut self.judged, true)
            && let Some(outliers) = &self.outliers
        {
            outliers.succeeded(&self.load, self.started);
        }
    }

    /// No connection was made for it.
    pub fn unconnected(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.judged, true)
            && let Some(outliers) = &self.outliers
        {
            outliers.unconnected(&self.load, self.started, now);
        }
    }

    /// The load of the endpoint that has the request.
    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }

    fn elapsed(&self, now: Instant) -> f32 {
        now.saturating_duration_since(self.started).as_secs_f32()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.load.in_flight.fetch_sub(1, Relaxed);
    }
}

//! A request's place at a backend where those in flight are limited: taken before it is sent, waited for where that is
//! allowed, held until its response has ended.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use outrigger_balance::{Adaptive, Limit, Limits, Place};

use crate::error::{Error, Reason};
use crate::message::Answered;

/// A request that was let in, and has no response yet.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// `None` once it was handed on.
    place: Option<Place>,
    requests: Arc<Limit>,
    /// What wants to know how long it takes.
    adaptive: Option<Arc<Adaptive>>,
    since: Instant,
}

impl Admitted {
    /// Takes a place for a request to the backend of this name.
    ///
    /// # Errors
    /// None is free, or becomes free in time: the request was not sent.
    pub(crate) async fn at(limits: &Limits, backend: &str) -> Result<Self, Error> {
        let requests = &limits.requests;
        let place = match requests.try_take() {
            Some(place) => place,
            None => wait(limits, backend).await?,
        };
        Ok(Self {
            place: Some(place),
            requests: requests.clone(),
            adaptive: limits.adaptive.clone(),
            since: Instant::now(),
        })
    }

    /// When it was let in.
    pub(crate) const fn since(&self) -> Instant {
        self.since
    }

    /// The place of a request whose response has begun, after so many attempts.
    pub(crate) fn answered(mut self, answered: &Answered, attempts: u32) -> Option<Place> {
        // What is refused at once, by a backend that has enough to do, or was tried again, says nothing of how fast it is.
        let status = answered.response.status();
        let refused = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        if let Some(adaptive) = self.adaptive.as_ref().filter(|_| attempts == 1 && !refused) {
            let now = Instant::now();
            let latency = now.saturating_duration_since(self.since);
            self.resize(adaptive.answered(latency, self.requests.taken(), now));
        }
        self.place.take()
    }

    /// Gives the place of a request back that got no response.
    pub(crate) fn failed(mut self, error: &Error) {
        if error.reason != Reason::HttpResponseTimeout {
            // It is not that it took long.
            self.adaptive = None;
        }
    }

    fn resize(&self, allowed: Option<u32>) {
        if let Some(allowed) = allowed {
            self.requests.resize(allowed);
        }
    }
}

/// Nobody has waited for the response to its end: what counts is how long that was.
impl Drop for Admitted {
    fn drop(&mut self) {
        if self.place.is_some()
            && let Some(adaptive) = &self.adaptive
        {
            let now = Instant::now();
            let waited = now.saturating_duration_since(self.since);
            self.resize(adaptive.abandoned(waited, self.requests.taken(), now));
        }
    }
}

async fn wait(limits: &Limits, backend: &str) -> Result<Place, Error> {
    let requests = &limits.requests;
    let full = |what: &str| {
        let size = requests.size();
        let how = if limits.adaptive.is_some() { "as it answers in time" } else { "as it may" };
        let details = format!("backend {backend} has as many requests in flight {how}, {size}{what}");
        Error::unsent(Reason::HttpRequestLimitReached, details)
    };
    let Some(_waiting) = limits.queue.join() else {
        return Err(full(if limits.queue.is_closed() { "" } else { ", and as many wait as may" }));
    };
    let patience = limits.queue.patience();
    let place = tokio::time::timeout(patience, requests.take()).await;
    place.map_err(|_| full(&format!(", and none ended within the wait timeout of {patience:?}")))
}

//! What a rule says of time and of sending again.

use std::time;

use outrigger_config::Duration;
use outrigger_config::route::{GrpcStatus, Retry, Timeouts};

/// How much of a request's body is kept, so that it can be sent again, where the route does not say.
const DEFAULT_KEPT_BODY: usize = 64 * 1024;
/// How many times the least wait the longest is, where the route does not say.
const DEFAULT_GROWTH: u32 = 10;

/// What a rule says of time and of sending again.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// From the request's head until the response is complete.
    pub request_timeout: Option<time::Duration>,
    /// For one attempt, until the response's head.
    pub attempt_timeout: Option<time::Duration>,
    /// Whether and when a request is sent again.
    pub retry: Option<Retrying>,
}

/// Whether and when a request is sent again.
#[derive(Debug, Clone)]
pub struct Retrying {
    /// How often.
    pub attempts: u32,
    /// After which statuses.
    pub codes: Box<[u16]>,
    /// After which statuses of gRPC.
    pub grpc_statuses: GrpcStatuses,
    /// The least wait.
    pub backoff: time::Duration,
    /// The longest wait.
    pub max_backoff: time::Duration,
    /// After how long without an answer it is sent a second time elsewhere.
    pub hedge_delay: Option<time::Duration>,
    /// How much of a body is kept for it.
    pub kept_body: usize,
}

/// A set of statuses of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GrpcStatuses(u32);

impl GrpcStatuses {
    /// Whether there is none in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is in it, by its number.
    pub const fn contains(self, status: u16) -> bool {
        status < u32::BITS as u16 && self.0 >> status & 1 == 1
    }
}

impl FromIterator<GrpcStatus> for GrpcStatuses {
    fn from_iter<I: IntoIterator<Item = GrpcStatus>>(statuses: I) -> Self {
        Self(statuses.into_iter().fold(0, |set, status| set | 1 << status as u32))
    }
}

impl Policy {
    /// The policy of a rule. A timeout of 0 is none (Gateway API).
    pub fn new(timeouts: &Timeouts, retry: Option<&Retry>) -> Self {
        Self {
            request_timeout: timeouts.request.and_then(Duration::limit),
            attempt_timeout: timeouts.backend_request.and_then(Duration::limit),
            retry: retry.map(Retrying::new),
        }
    }

    /// How many bytes of a request's body are kept, so that it can be sent again.
    pub fn kept_body(&self) -> usize {
        self.retry.as_ref().map_or(DEFAULT_KEPT_BODY, |retry| retry.kept_body)
    }
}

impl Retrying {
    fn new(retry: &Retry) -> Self {
        let backoff = retry.backoff().get();
        let growth = backoff.saturating_mul(DEFAULT_GROWTH);
        Self {
            attempts: retry.attempts,
            codes: retry.codes.clone().into(),
            grpc_statuses: retry.grpc_statuses.iter().copied().collect(),
            backoff,
            max_backoff: retry.max_backoff.map_or(growth, Duration::get),
            hedge_delay: retry.hedge_delay.map(Duration::get),
            kept_body: retry.max_body_bytes.map_or(DEFAULT_KEPT_BODY, |bytes| bytes as usize),
        }
    }
}

//! How much may be under way at a backend at a time, and how long its connections may take and last.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::Duration;

/// How much may be under way at a backend at a time, over all workers. What is beyond it is refused at once with 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BackendLimits {
    /// Connections open. Absent: without limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub connections: Option<u32>,
    /// Requests in flight. Absent: without limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests: Option<u32>,
    /// Requests that wait for their turn where one of the above is reached: so many for a connection, and so many again to
    /// be in flight. 0 where it is absent: none waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
    /// How long such a request waits at most, for each of the two. 1 s where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_timeout: Option<Duration>,
    /// Retries under way, their wait included. Absent: only the budget limits them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Finds by itself how many requests may be in flight, by how the latency grows with them. Absent: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<AdaptiveConcurrency>,
}

/// Finds by itself how many requests may be in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AdaptiveConcurrency {
    /// The fewest that are allowed. 4 where it is absent.
    #[schemars(range(min = 1))]
    pub min: u32,
    /// The most that are allowed. 1000 where it is absent.
    #[schemars(range(min = 1))]
    pub max: u32,
    /// How much slower than without load answers may be before fewer requests are allowed, in per cent. 150 where it is
    /// absent: one and a half times as slow.
    #[schemars(range(min = 101, max = 1000))]
    pub tolerance_percent: u32,
}

impl Default for AdaptiveConcurrency {
    fn default() -> Self {
        Self { min: 4, max: 1000, tolerance_percent: 150 }
    }
}

/// How long connections to a backend may take and last. `0s`: without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BackendTimeouts {
    /// For the TLS handshake, as a part of `connectTimeout`. Absent: all that is left of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_handshake: Option<Duration>,
    /// How long a connection is kept that nobody uses. 50 s where it is absent; less where the endpoint is seen to close
    /// its connections earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_connection: Option<Duration>,
    /// After how long a connection gets no more requests, a tenth of it left to chance. Absent: without limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connection_age: Option<Duration>,
}

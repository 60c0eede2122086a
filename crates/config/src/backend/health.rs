//! Whether an endpoint is well: by asking it, and by what it answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::Duration;

/// Asks each endpoint, now and then, whether it is well, over a connection of its own: but not the node's own instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// How it is asked.
    #[serde(rename = "type")]
    pub kind: HealthCheckKind,
    /// The target of the GET, with `HTTP`. `/` where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What `Host` or `:authority` says; the endpoint's address where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The service asked about, with `GRPC` (grpc.health.v1). Absent: the server as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The statuses, 100 to 599, that say that it is well, with `HTTP`. Absent: 200 to 299.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(range(min = 100, max = 599)))]
    pub statuses: Vec<u16>,
    /// Another port than the endpoint's own. Such a check goes without the mesh's TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Between two checks. 10 s where it is absent.
    #[serde(default = "interval")]
    pub interval: Duration,
    /// How much of the interval, in per cent, is left to chance, so that not all ask at once. 10 where it is absent.
    #[serde(default = "jitter")]
    #[schemars(range(max = 100))]
    pub jitter: u32,
    /// How long an answer may take. 1 s where it is absent.
    #[serde(default = "timeout")]
    pub timeout: Duration,
    /// After how many good answers in a row one that was ill is well again. 2 where it is absent. The first answer of an
    /// endpoint counts at once.
    #[serde(default = "healthy_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub healthy_threshold: u32,
    /// After how many bad answers in a row one that was well is ill. 3 where it is absent.
    #[serde(default = "unhealthy_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_threshold: u32,
}

const fn interval() -> Duration {
    Duration::from_secs(10)
}

const fn jitter() -> u32 {
    10
}

const fn timeout() -> Duration {
    Duration::from_secs(1)
}

const fn healthy_threshold() -> u32 {
    2
}

const fn unhealthy_threshold() -> u32 {
    3
}

/// How an endpoint is asked whether it is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum HealthCheckKind {
    /// By a GET.
    #[serde(rename = "HTTP")]
    Http,
    /// By a connection.
    #[serde(rename = "TCP")]
    Tcp,
    /// By a call of `grpc.health.v1.Health/Check`.
    #[serde(rename = "GRPC")]
    Grpc,
}

/// Keeps requests away from an endpoint whose answers show that it is not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OutlierDetection {
    /// After how many failures in a row it is ejected: answers of 500 to 599, gRPC statuses that mean the same, connections
    /// that break, attempts that time out. 0: never. 5 where it is absent.
    pub consecutive_failures: u32,
    /// After how many connections in a row that could not be made it is ejected, told apart from answers; one such
    /// connection keeps requests away for a second anyway. 5 where it is absent. 0: never.
    pub consecutive_connect_failures: u32,
    /// Ejects an endpoint whose share of successes is far below the others'. Absent: none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<SuccessRate>,
    /// Ejects an endpoint that is far slower than the others. Absent: none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyOutlier>,
    /// How often shares and latencies are compared. 10 s where it is absent.
    pub interval: Duration,
    /// How long it is ejected the first time; each time in a row twice as long. 30 s where it is absent.
    pub base_ejection_time: Duration,
    /// The longest that it is ejected. 5 minutes where it is absent.
    pub max_ejection_time: Duration,
    /// How many of the endpoints may be ejected at a time, in per cent, but one always may unless it is the only one. 50 where
    /// it is absent.
    #[schemars(range(max = 100))]
    pub max_ejection_percent: u32,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            consecutive_connect_failures: 5,
            success_rate: None,
            latency: None,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 50,
        }
    }
}

/// Ejects an endpoint whose share of successes is far below the others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SuccessRate {
    /// An endpoint with fewer requests within the interval is not judged. 100 where it is absent.
    pub min_requests: u32,
    /// With fewer endpoints to compare, none is judged. 5 where it is absent.
    pub min_endpoints: u32,
    /// How far below the mean it must be, in thousandths of a standard deviation. 1900 where it is absent.
    pub stdev_factor: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { min_requests: 100, min_endpoints: 5, stdev_factor: 1900 }
    }
}

/// Ejects an endpoint that is far slower than the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LatencyOutlier {
    /// An endpoint with fewer answers within the interval is not judged. 100 where it is absent.
    pub min_requests: u32,
    /// With fewer endpoints to compare, none is judged. 3 where it is absent.
    pub min_endpoints: u32,
    /// How many times the median of the others' mean latency its own must be, in per cent. 300 where it is absent.
    #[schemars(range(min = 101))]
    pub factor_percent: u32,
}

impl Default for LatencyOutlier {
    fn default() -> Self {
        Self { min_requests: 100, min_endpoints: 3, factor_percent: 300 }
    }
}

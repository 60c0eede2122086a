//! How many of a backend's requests may be retries.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::Duration;

/// How many of a backend's requests may be retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryConstraint {
    /// The share of requests within an interval that may be retries.
    #[serde(default)]
    pub budget: RetryBudget,
    /// What may be retried however few requests there are.
    #[serde(default)]
    pub min_retry_rate: RetryRate,
}

/// The share of requests within an interval that may be retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetryBudget {
    /// Per cent of the requests. 20 where it is absent.
    #[schemars(range(min = 0, max = 100))]
    pub percent: u32,
    /// The time over which they are counted. 10 s where it is absent.
    pub interval: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: 20, interval: Duration::from_secs(10) }
    }
}

/// A number of retries in a length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RetryRate {
    /// How many. 10 where it is absent.
    pub count: u32,
    /// In how long. 1 s where it is absent.
    pub interval: Duration,
}

impl Default for RetryRate {
    fn default() -> Self {
        Self { count: 10, interval: Duration::from_secs(1) }
    }
}

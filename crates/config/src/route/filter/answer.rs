//! Answers that a rule gives itself, and failures that it makes on purpose.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fraction, HeaderField};
use crate::route::HeaderMatch;
use crate::scalar::{Duration, HeaderValue};

/// Answers every request with the same response, without a backend. Ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FixedResponse {
    /// The response's status. 200 where it is absent.
    #[serde(default = "ok")]
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// Its body; empty where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub body: Option<Box<str>>,
    /// What its body is. `text/plain; charset=utf-8` where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<HeaderValue>,
    /// Its other headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HeaderField>,
}

const fn ok() -> u16 {
    200
}

/// Delays requests, or fails them, on purpose: to see how callers take it. May be given more than once. Ours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Only requests with all of these headers; every request where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HeaderMatch>,
    /// Holds requests back before they are sent on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Fails requests in place of sending them on, after the delay if both are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
}

/// Holds requests back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delay {
    /// For how long.
    pub duration: Duration,
    /// The share of the requests, of 100; all where neither it nor `fraction` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub percent: Option<u32>,
    /// The same as a fraction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<Fraction>,
}

/// Fails requests. One of `status` and `grpcStatus` is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Abort {
    /// The status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub status: Option<u16>,
    /// The status of gRPC in the answer, whose HTTP status is 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub grpc_status: Option<u16>,
    /// The share of the requests, of 100; all where neither it nor `fraction` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub percent: Option<u32>,
    /// The same as a fraction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<Fraction>,
}

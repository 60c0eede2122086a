//! Routes: which requests and connections go where, and under which policy. The shape of a rule is the Gateway API's,
//! field for field.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::backend::one;
use crate::listener::is_default;
use crate::scalar::{Duration, Hostname, Name, Timestamp};

mod backend_ref;
mod body;
mod filter;
mod grpc;
mod matches;
mod session;
mod tls;

pub(crate) use backend_ref::BackendObject;
pub use backend_ref::{BackendRef, BackendRefKind, FilterBackend, TcpBackendRef};
pub use body::{BodyLimit, Buffer, Coding, Compression, Decompression, GrpcWeb};
pub(crate) use filter::check_path;
pub use filter::{
    Abort, AuthProtocol, Cors, Delay, ExternalAuth, Fault, FixedResponse, Fraction, HeaderField,
    HeaderModifier, HttpAuth, HttpFilter, PathModifier, Portion, RequestMirror, RequestRedirect, UrlRewrite,
};
pub use grpc::{GrpcCall, GrpcMatch, GrpcMethodMatch, GrpcRoute, GrpcRule};
pub use matches::{HeaderMatch, HttpMatch, PathMatch, QueryMatch, ValueMatch};
pub use session::{CookieConfig, CookieLifetime, SessionKind, SessionPersistence};
pub use tls::TlsRoute;

/// Maps requests to backends (Gateway API, `HTTPRoute`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRoute {
    /// The listeners it is attached to, by name.
    #[schemars(length(min = 1))]
    pub listeners: Vec<Name>,
    /// The hosts it answers to; any host where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<Hostname>,
    /// When it was made: of two routes that match a request equally well, the older takes it, and one with a time comes
    /// before one without. The control API sets it on a route that does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
    /// Its rules.
    #[schemars(length(min = 1, max = 64))]
    pub rules: Vec<HttpRule>,
}

/// What a route does with the requests that match (Gateway API, `HTTPRouteRule`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRule {
    /// The rule's name, for logs and metrics; its place in the route where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// A request matches the rule if it matches one of these; every request where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub matches: Vec<HttpMatch>,
    /// What is changed on the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub filters: Vec<HttpFilter>,
    /// Where requests go, in proportion to the weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub backend_refs: Vec<BackendRef>,
    /// How long it may take.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,
    /// Whether and when a request is sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// Whether the requests of one session go to one endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// How long a request may take (Gateway API, `HTTPRouteTimeouts`). `0s`, or absent: without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timeouts {
    /// From the request's head until the response is complete, all attempts together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Duration>,
    /// For one attempt, until the response's head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Duration>,
}

/// Whether and when a request is sent again (Gateway API, `HTTPRouteRetry`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// How often it may be sent again. 1 where it is absent.
    #[serde(default = "one")]
    #[schemars(range(max = 100))]
    pub attempts: u32,
    /// The response statuses, 400 to 599, after which it is, if its method is idempotent (RFC 9110, section 9.2.2).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(range(min = 400, max = 599)))]
    pub codes: Vec<u16>,
    /// The least wait before a retry. A random part is added: up to as much again before the first, and with each one after
    /// up to twice as much, within `maxBackoff`. 25 ms where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Duration>,
    /// How many bytes of a request's body are kept so that it can be sent again. 64 KiB where it is absent. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 16_777_216))]
    pub max_body_bytes: Option<u32>,
    /// The gRPC statuses after which a call is sent again, whatever its method, if its answer has nothing but its trailers. Of
    /// a call that was lost they say nothing. Ours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grpc_statuses: Vec<GrpcStatus>,
    /// The longest wait before a retry, which a `Retry-After` of the backend is held against as well: one that asks for
    /// more is passed on instead. Ten times `backoff` where it is absent. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_backoff: Option<Duration>,
    /// After how long without an answer a request is sent a second time elsewhere, if its method is idempotent; the first
    /// good answer counts, and the other attempt is given up. Each is one of the `attempts`, and of the backend's budget; a
    /// request whose body has not come yet, or is not kept, has none. Absent: only after a failure. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge_delay: Option<Duration>,
}

impl Retry {
    /// The least wait between two attempts.
    pub fn backoff(&self) -> Duration {
        self.backoff.unwrap_or(Duration::from_millis(25))
    }
}

impl std::fmt::Display for GrpcStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// A gRPC status that is not OK (<https://grpc.io/docs/guides/status-codes/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GrpcStatus {
    /// 1.
    Cancelled = 1,
    /// 2.
    Unknown = 2,
    /// 3.
    InvalidArgument = 3,
    /// 4.
    DeadlineExceeded = 4,
    /// 5.
    NotFound = 5,
    /// 6.
    AlreadyExists = 6,
    /// 7.
    PermissionDenied = 7,
    /// 8.
    ResourceExhausted = 8,
    /// 9.
    FailedPrecondition = 9,
    /// 10.
    Aborted = 10,
    /// 11.
    OutOfRange = 11,
    /// 12.
    Unimplemented = 12,
    /// 13.
    Internal = 13,
    /// 14.
    Unavailable = 14,
    /// 15.
    DataLoss = 15,
    /// 16.
    Unauthenticated = 16,
}

/// Maps connections to backends (Gateway API, `TCPRoute`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRoute {
    /// The listeners it is attached to, by name.
    #[schemars(length(min = 1))]
    pub listeners: Vec<Name>,
    /// When it was made: of two routes at a listener, the older takes its connections, and one with a time comes before
    /// one without. The control API sets it on a route that does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
    /// Its one rule.
    #[schemars(length(min = 1, max = 1))]
    pub rules: Vec<TcpRule>,
}

/// What a route does with connections (Gateway API, `TCPRouteRule`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRule {
    /// The rule's name, for logs and metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Where connections go, in proportion to the weights.
    #[schemars(length(min = 1, max = 16))]
    pub backend_refs: Vec<TcpBackendRef>,
}

//! Backends: named services, and how to reach, balance and secure them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::listener::is_default;
use crate::scalar::{Duration, HostPort, Name, SpiffeId};

mod balance;
mod health;
mod limits;
mod retry;

pub use balance::{Balance, BalanceKind, HashKey, HashKind, Locality};
pub use health::{HealthCheck, HealthCheckKind, LatencyOutlier, OutlierDetection, SuccessRate};
pub use limits::{AdaptiveConcurrency, BackendLimits, BackendTimeouts};
pub use retry::{RetryBudget, RetryConstraint, RetryRate};

/// A named service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backend {
    /// Where it is. May be empty: the backend is then known, and answers 503.
    #[serde(default)]
    pub endpoints: Vec<Endpoint>,
    /// A folder whose files are served, in place of endpoints: by path, `index.html` for a folder, without names that
    /// begin with a dot. A relative path is taken from the configuration file's folder. In a file alone: a control API
    /// cannot have a node's files served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub folder: Option<std::path::PathBuf>,
    /// Whether a browser that asks for a page gets one that says so while the backend cannot be connected to, and that
    /// loads the real one once it can. Others get the plain 503. For people at work on the application.
    #[serde(default, skip_serializing_if = "is_default")]
    pub waiting_page: bool,
    /// What it speaks: HTTP/1.1, or HTTP/2 by prior knowledge (by ALPN over TLS). Absent: what the route calls for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<BackendProtocol>,
    /// Which endpoint takes a request.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balance: Balance,
    /// TLS to a service outside the mesh. Endpoints with an `identity` use the mesh's mutual TLS instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
    /// How long a connection may take to be made, TLS included. 5 s where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Duration>,
    /// How long its connections may take and last.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: BackendTimeouts,
    /// How many of the requests may be retries (Gateway API, `BackendTrafficPolicy`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry_constraint: RetryConstraint,
    /// How much may be under way there at a time. What is beyond it is refused at once, or waits where it may.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: BackendLimits,
    /// Asks each endpoint, now and then, whether it is well. Absent: nobody is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// Keeps requests away from an endpoint whose answers show that it is not well. Absent: only one that cannot be
    /// connected to, or is another than expected, is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
}

impl Backend {
    /// How long a connection may take to be made, TLS included.
    pub fn connect_timeout(&self) -> std::time::Duration {
        self.connect_timeout.unwrap_or(Duration::from_secs(5)).get()
    }
}

/// One address of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// An address and port, or a name and port: a name is resolved, and followed by its TTL.
    pub address: HostPort,
    /// The SPIFFE ID that must answer there; mutual TLS is used to reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<SpiffeId>,
    /// The zone it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Name>,
    /// Its share among the endpoints of the backend, 1 to 1000. 1 where it is absent.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: u32,
    /// Endpoints of a higher number take requests only as far as those of lower ones are not well, 0 to 15. 0
    /// where it is absent.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(max = 15))]
    pub priority: u32,
    /// The node that it belongs to. A node's requests to its own instance do not leave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Name>,
}

pub(crate) const fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) const fn is_one(weight: &u32) -> bool {
    *weight == 1
}

/// What a backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum BackendProtocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 by prior knowledge.
    H2c,
}

/// TLS to a service outside the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendTls {
    /// The name asked for (SNI), and expected in the certificate.
    pub hostname: Name,
    /// Who may vouch for it: `System`, or a file of PEM certificates.
    #[serde(default)]
    pub ca_certificates: CaCertificates,
}

/// Who may vouch for a service outside the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(from = "String", into = "String")]
pub enum CaCertificates {
    /// The system's trust store.
    #[default]
    System,
    /// A file of PEM certificates. A relative path is taken from the configuration file's folder.
    File(std::path::PathBuf),
}

impl From<String> for CaCertificates {
    fn from(text: String) -> Self {
        if text == "System" { Self::System } else { Self::File(text.into()) }
    }
}

impl From<CaCertificates> for String {
    fn from(certificates: CaCertificates) -> Self {
        match certificates {
            CaCertificates::System => "System".into(),
            CaCertificates::File(path) => path.to_string_lossy().into_owned(),
        }
    }
}

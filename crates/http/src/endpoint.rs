//! Backends and endpoints as the data plane sees them: plain values, made from a snapshot, shared by all workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use outrigger_balance::{Balancer, Budget, Limits, Load, Member, Outliers};
use outrigger_config::SpiffeId;
use outrigger_config::backend::{Balance, RetryConstraint};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::DuplexStream;

use crate::idle::IdleTime;
use crate::room::Connections;

/// One address of a backend. Carried over from one configuration to the next while it is equal, and with it its load
/// and the connections to it.
#[derive(Debug)]
pub struct Endpoint {
    /// Tells this endpoint from every other one of the process, for as long as it runs.
    id: u64,
    /// Where it is.
    pub address: SocketAddr,
    /// How a connection to it is secured.
    pub security: Security,
    /// What is under way there, and how quick it is.
    pub load: Arc<Load>,
    /// After how long it closes connections that nobody uses.
    pub idle: IdleTime,
}

impl Endpoint {
    /// A new endpoint, without connections.
    pub fn new(address: SocketAddr, security: Security, load: Arc<Load>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), address, security, load, idle: IdleTime::default() }
    }

    /// What tells it from every other endpoint of the process.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Whether it is an application behind a sidecar of its own.
    pub(crate) const fn is_in_mesh(&self) -> bool {
        matches!(self.security, Security::Mesh { .. })
    }

    /// The identity expected there.
    pub const fn identity(&self) -> Option<&SpiffeId> {
        match &self.security {
            Security::Mesh { expected } => Some(expected),
            Security::Plain | Security::Own | Security::Tls(_) | Security::Inside(_) => None,
        }
    }
}

/// How a connection to an endpoint is secured.
#[derive(Debug, Clone)]
pub enum Security {
    /// Not at all.
    Plain,
    /// Not at all: it is the application beside this proxy.
    Own,
    /// Mutual TLS of the mesh.
    Mesh {
        /// The identity that must answer.
        expected: SpiffeId,
    },
    /// TLS to a service outside the mesh.
    Tls(Origin),
    /// Not at all: this process answers itself, as with files. The endpoint has no address.
    Inside(Arc<dyn Inside>),
}

/// An application within this process, which speaks HTTP/1.1.
pub trait Inside: std::fmt::Debug + Send + Sync {
    /// A connection to it, served by tasks of the current thread.
    fn open(&self) -> DuplexStream;
}

/// TLS to a service outside the mesh.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The name asked for and expected in the certificate.
    pub name: ServerName<'static>,
    /// Offers HTTP/1.1 alone.
    pub http1: Arc<ClientConfig>,
    /// Offers HTTP/2 alone.
    pub http2: Arc<ClientConfig>,
}

/// A backend: its endpoints, and how one is chosen.
#[derive(Debug)]
pub struct Backend {
    /// Its name; empty where it is an address outside the configuration.
    pub name: Arc<str>,
    /// Its endpoints.
    pub endpoints: Box<[Arc<Endpoint>]>,
    /// Their loads, in the same order.
    pub loads: Box<[Arc<Load>]>,
    /// Chooses among them.
    pub balancer: Arc<Balancer>,
    /// Keeps out endpoints whose answers show that they are not well; `None` where nobody looks.
    pub outliers: Option<Arc<Outliers>>,
    /// How many of its requests may be retries.
    pub budget: Arc<Budget>,
    /// How much may be under way there, where that is limited.
    pub limits: Option<Arc<Limits>>,
    /// How long a connection may take to be made, TLS included.
    pub connect_timeout: Duration,
    /// How many connections it may have, where that is limited.
    pub connections: Option<Arc<Connections>>,
    /// Why there is no endpoint, where there is none.
    pub empty: Option<Empty>,
}

/// Why a backend has no endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Empty {
    /// None is configured.
    Unset,
    /// Its TLS cannot be set up.
    Insecure,
    /// Its names do not resolve.
    Unresolved(Arc<str>),
}

impl Backend {
    /// A backend that is one endpoint, for traffic that was addressed to just that.
    pub fn of_one(name: Arc<str>, endpoint: Arc<Endpoint>, connect_timeout: Duration) -> Self {
        Self {
            name,
            loads: Box::new([endpoint.load.clone()]),
            balancer: Arc::new(Balancer::new(&Balance::default(), &[Member::new(1)], Instant::now())),
            outliers: None,
            budget: Arc::new(Budget::new(&RetryConstraint::default(), Instant::now())),
            endpoints: Box::new([endpoint]),
            limits: None,
            connect_timeout,
            connections: None,
            empty: None,
        }
    }
}

//! What stands between callers and the application: nothing, bytes being copied, Outrigger, or another proxy.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{load::Traffic, process::Process};

/// What stands between callers and the application.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing: what the others are compared with.
    Direct,
    /// A process that copies bytes and knows no protocol: the floor that any proxy stands on.
    Forwarder,
    /// Outrigger.
    Outrigger,
    /// Another proxy, by its name: `nginx`, `haproxy`, `envoy`, `linkerd`, or one that the user has named.
    Peer(String),
}

/// How many proxies stand there, and what is between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hops {
    /// One, without TLS towards the application.
    One,
    /// Two, with mutual TLS between them.
    Two,
}

/// What a subject is to be started for, and with what switched on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setup {
    /// One proxy, or two.
    pub hops: Hops,
    /// What callers and the application speak.
    pub traffic: Traffic,
    /// Whether callers speak TLS to it.
    pub tls: bool,
    /// Workers of each proxy.
    pub workers: u32,
    /// Routes, the last of which takes the load; the others are like it but for their hosts and paths.
    pub routes: u32,
    /// Whether each request leaves a line in an access log.
    pub access_log: bool,
    /// Whether each request is traced (all of them sampled).
    pub tracing: bool,
}

/// A subject that has been started. Dropping it ends its processes.
#[derive(Debug)]
pub struct Subject {
    /// Where callers connect.
    pub address: SocketAddr,
    /// Its processes; none of [`Kind::Direct`].
    pub processes: Vec<Process>,
    /// The certificate that callers trust, in PEM, where they speak TLS to it.
    pub trust: Option<String>,
    /// Where Outrigger's administration listens, for each process.
    pub admin: Vec<SocketAddr>,
    /// What it says that it is (`nginx/1.22.1`).
    pub version: String,
    /// The files that it was started from: name and text, without keys.
    pub configuration: Vec<(String, String)>,
}

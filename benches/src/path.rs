//! The paths from callers to the application, and what is started for each.

use std::{fmt, net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    caller::Protocol,
    cpus::Cpus,
    nginx, outrigger,
    process::{Process, Usage},
};

/// A way from callers to the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// No proxy: what the others are compared with.
    Direct,
    /// Through one proxy, without TLS.
    Proxy,
    /// Through two sidecars, with mutual TLS between them.
    Sidecars,
    /// Through nginx, without TLS.
    Nginx,
}

impl Path {
    /// As the table and the JSON call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Proxy => "proxy",
            Self::Sidecars => "sidecars",
            Self::Nginx => "nginx",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What every path is given.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Where the application listens.
    pub application: SocketAddr,
    /// What callers and the application speak.
    pub protocol: Protocol,
    /// The `outrigger` binary, if not the one beside this program.
    pub outrigger: Option<PathBuf>,
    /// Further arguments for each `outrigger run`.
    pub proxy_args: Vec<String>,
    /// Where the proxies run.
    pub cpus: Option<Cpus>,
}

/// A path that has been started: where callers connect, and the proxies on the way.
#[derive(Debug)]
pub struct Subject {
    /// Where callers connect.
    pub address: SocketAddr,
    /// The proxies, none for the direct path.
    pub processes: Vec<Process>,
}

impl Subject {
    /// Starts what `path` needs, its files in `dir`. On return it accepts.
    ///
    /// # Errors
    ///
    /// If a proxy cannot be started, with what it had to say.
    pub async fn start(path: Path, environment: &Environment, dir: &std::path::Path) -> Result<Self> {
        let started = match path {
            Path::Direct => Ok(Self { address: environment.application, processes: Vec::new() }),
            Path::Proxy => outrigger::proxy(environment, dir).await,
            Path::Sidecars => outrigger::sidecars(environment, dir).await,
            Path::Nginx => nginx::start(environment, dir).await,
        };
        started.with_context(|| format!("the path {path} cannot be measured"))
    }

    /// CPU time of the proxies so far, together.
    ///
    /// # Errors
    ///
    /// If one has ended.
    pub fn usage(&self) -> Result<Usage> {
        let mut sum = Usage::default();
        for process in &self.processes {
            let usage = process.usage()?;
            sum.cpu += usage.cpu;
            sum.user += usage.user;
            sum.system += usage.system;
        }
        Ok(sum)
    }

    /// Resident memory of the proxies in KiB, together.
    ///
    /// # Errors
    ///
    /// If one has ended.
    pub fn resident_kib(&self) -> Result<u64> {
        self.processes.iter().map(Process::resident_kib).sum()
    }
}

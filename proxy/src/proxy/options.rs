//! What a proxy is started with, and why it cannot be.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outrigger_config::Name;
use outrigger_net::activation::Activated;
use outrigger_net::listen;
use outrigger_telemetry::{AccessLog, LogControl};

use crate::director::{Captured, Tell};
use crate::memory::MemoryLimit;
use crate::takeover::UpgradeError;

/// Where a proxy gets its configuration from.
#[derive(Debug)]
pub enum Source {
    /// A file, followed as it changes.
    File(PathBuf),
    /// What would be in a file, and does not change. The files that it names are followed.
    Text(String),
    /// The control API.
    Control(outrigger_control::Options),
}

/// How a proxy is run.
pub struct Options {
    /// Where its configuration comes from.
    pub source: Source,
    /// How many workers; `None`: as many as the processors that it may use.
    pub workers: Option<usize>,
    /// Where the admin interface listens, which must be loopback; `None`: as the file says, else 127.0.0.1:15000.
    pub admin: Option<SocketAddr>,
    /// Where Prometheus finds the metrics, and nothing else.
    pub metrics: Option<SocketAddr>,
    /// Where the kubelet finds `/healthz/ready`, and nothing else.
    pub ready: Option<SocketAddr>,
    /// Where captured traffic arrives.
    pub captured: Option<Captured>,
    /// The zone that this node is in; `None`: that of its own endpoints.
    pub zone: Option<Name>,
    /// How long connections are still accepted after the end was announced.
    pub drain_delay: Duration,
    /// How long what is under way may take after that, and the application, for which outbound listeners stay open.
    pub drain_grace: Duration,
    /// How much memory it may use.
    pub memory: MemoryLimit,
    /// How long the application must have had no connection open before it is taken to be gone; `None`: outbound
    /// listeners close with the others.
    pub drain_quiet: Option<Duration>,
    /// A Unix socket: the listening sockets of the proxy that is found there are taken over, and the next one finds this
    /// proxy there. For a proxy from a file.
    pub upgrade: Option<PathBuf>,
    /// Listening sockets that were opened for this process.
    pub activated: Vec<Activated>,
    /// Where requests are logged.
    pub access_log: AccessLog,
    /// The level of the diagnostics, read and set by the admin interface.
    pub log: LogControl,
    /// Told, line by line, where the proxy listens.
    pub announce: Tell,
    /// Told, line by line, what is wrong.
    pub complain: Tell,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Options {
    /// A proxy within a process: any port for the admin interface, one worker, no limit of memory, no access log, no word to
    /// anybody.
    pub fn quiet(source: Source) -> Self {
        Self {
            source,
            workers: Some(1),
            admin: Some((Ipv4Addr::LOCALHOST, 0).into()),
            metrics: None,
            ready: None,
            captured: None,
            zone: None,
            drain_delay: Duration::ZERO,
            drain_grace: Duration::from_secs(10),
            memory: MemoryLimit::Off,
            drain_quiet: None,
            upgrade: None,
            activated: Vec::new(),
            access_log: AccessLog::off(),
            log: LogControl::detached(),
            announce: Arc::new(|_| ()),
            complain: Arc::new(|_| ()),
        }
    }
}

/// Why a proxy could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The configuration file is not YAML, or not a configuration at all.
    #[error("{}:{line}:{column}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Where in it, from 1.
        line: u32,
        /// Where in the line, from 1.
        column: u32,
        /// What is wrong.
        reason: String,
    },
    /// An address of the proxy's own cannot be listened on.
    #[error("{what}: {source}{hint}")]
    Listen {
        /// What was to listen there.
        what: &'static str,
        /// Why not.
        source: listen::BindError,
        /// What to do.
        hint: &'static str,
    },
    /// The admin interface may only be reached from this machine: it is not authenticated.
    #[error(
        "the admin interface is not authenticated, and listens on loopback alone: {0} is not; use 127.0.0.1"
    )]
    ExposedAdmin(SocketAddr),
    /// None of the listeners could be opened.
    #[error("none of the listeners could be opened:\n{0}")]
    Deaf(String),
    /// Nobody wanted it any more before it began to accept.
    #[error("ended before it had started")]
    Unwanted,
    /// The running proxy could not be replaced.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// The system refuses a thread or a runtime.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

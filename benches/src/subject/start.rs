//! What starting any subject takes: files, ports, processes.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{Environment, Setup};
use crate::process::Process;

/// One subject's start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start<'a> {
    pub(super) setup: &'a Setup,
    pub(super) environment: &'a Environment,
    /// Its folder.
    pub(super) dir: &'a Path,
}

impl Start<'_> {
    /// Writes a file of its configuration. Returns where it is, and its name and text for the results.
    pub(super) fn write(&self, name: &str, text: String) -> Result<(PathBuf, (String, String))> {
        let path = self.dir.join(name);
        fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok((path, (name.to_owned(), text)))
    }

    /// Starts a process on the proxies' cores.
    pub(super) fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        Process::spawn(name, command, self.dir, |command| match &self.environment.cpus {
            Some(cpus) => cpus.on_proxies(self.setup.workers, || command.spawn()),
            None => command.spawn(),
        })
    }
}

/// A port of this host that nobody listens on, for a proxy that cannot tell which one the system chose for it.
pub(super) fn free() -> Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).context("no port is free")
}

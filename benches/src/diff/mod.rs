//! What a proxy changes: a corpus of exchanges, each sent straight to an application and through the proxy, and both
//! compared. What may differ stands in one list, [`RULES`].
//!
//! An exchange is a script for each end, in bytes of HTTP/1 and in places to wait, never in times. It is
//! played over HTTP/1 as it stands, and over HTTP/2 where HTTP/2 can say the same. What each end receives is read by a
//! parser of its own and compared message by message: start line, fields with their case, order and repetitions, body,
//! trailers, interim responses, how it ended. How bytes are grouped is not: it means nothing.

mod allowed;
mod application;
mod caller;
mod compare;
mod corpus;
mod exchange;
mod files;
mod harness;
mod http1;
mod http2;
mod message;
mod parser;
mod play;
mod proxies;
mod raw;
mod report;
mod runner;

use std::{fmt, fmt::Write, net::SocketAddr, sync::Arc};

use anyhow::{Result, ensure};

pub use allowed::{INTERIM, RESENT, RULES, Rule, UNNOTICED};
pub use exchange::Speaks;
pub use harness::Harness;
pub use report::{Mode, Outcome, Report};

/// What stands between caller and application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Nothing: shows that the exchanges themselves are right.
    Direct,
    /// One proxy, at the edge.
    Proxy,
    /// Two sidecars, with mutual TLS between them.
    Sidecars,
    /// A proxy that somebody else runs.
    Through {
        /// Where it accepts.
        proxy: SocketAddr,
        /// Where it forwards to, and where the application is made to listen.
        application: SocketAddr,
    },
}

impl Path {
    /// As reports call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Proxy => "proxy",
            Self::Sidecars => "sidecars",
            Self::Through { .. } => "through",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Told of each mode once it is done.
pub type Progress = Arc<dyn Fn(&Mode, &[Outcome]) + Send + Sync>;

/// What to run.
#[derive(Clone)]
pub struct Settings {
    /// Over which paths.
    pub paths: Vec<Path>,
    /// What callers speak.
    pub callers: Vec<Speaks>,
    /// What the application speaks.
    pub applications: Vec<Speaks>,
    /// Which exchanges: a name in which `*` stands for anything.
    pub only: Option<String>,
    /// Told of each mode once it is done.
    pub progress: Progress,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("paths", &self.paths)
            .field("only", &self.only)
            .finish_non_exhaustive()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            paths: vec![Path::Direct, Path::Proxy, Path::Sidecars],
            callers: vec![Speaks::Http1, Speaks::Http2],
            applications: vec![Speaks::Http1, Speaks::Http2],
            only: None,
            progress: Arc::new(|_, _| ()),
        }
    }
}

/// Runs the corpus.
///
/// # Errors
///
/// If no exchange is left, the system refuses something, or a proxy does not start.
pub async fn run(settings: &Settings) -> Result<Report> {
    let mut corpus = corpus::exchanges();
    if let Some(only) = &settings.only {
        corpus.retain(|exchange| matches(only, &exchange.name));
        ensure!(!corpus.is_empty(), "no exchange is called {only}; --list names them");
    }
    runner::run(settings, corpus).await
}

/// All that is allowed to differ.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    RULES.iter().chain([&INTERIM, &RESENT, &UNNOTICED])
}

/// The differences that are allowed, as a table in Markdown.
pub fn table() -> String {
    let mut table =
        String::from("| name | what may differ | why | where it says so |\n| --- | --- | --- | --- |\n");
    for rule in rules() {
        let Rule { id, difference, reason, section, .. } = rule;
        let _ = writeln!(table, "| {id} | {difference} | {reason} | {section} |");
    }
    table
}

/// The name and the section of each exchange.
pub fn list() -> Vec<(String, String)> {
    corpus::exchanges().into_iter().map(|exchange| (exchange.name, exchange.section)).collect()
}

/// Whether a name fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|rest| matches(after, rest)))
        }),
    }
}

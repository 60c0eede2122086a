//! Diagnostics: what the proxy tells its operator on standard error, and how much of it.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, fmt, reload};

/// The levels, by name, from the quietest.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// A level that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a log level: use off, error, warn, info, debug or trace")]
pub struct UnknownLevel(String);

/// The level of that name, in letters of either case.
pub fn level(name: &str) -> Result<LevelFilter, UnknownLevel> {
    LEVELS
        .into_iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name.trim()))
        .map(|(_, level)| level)
        .ok_or_else(|| UnknownLevel(name.into()))
}

/// Reads and sets the level of the diagnostics while the proxy runs. Clones control the same.
#[derive(Clone)]
pub struct LogControl {
    level: Arc<Mutex<LevelFilter>>,
    filter: Option<reload::Handle<LevelFilter, Registry>>,
}

impl LogControl {
    /// A control of no diagnostics, for a proxy inside another program, which installs its own or none. It remembers
    /// the level that was set, `info` at first.
    pub fn detached() -> Self {
        Self { level: Arc::new(Mutex::new(LevelFilter::INFO)), filter: None }
    }

    /// The name of the level.
    pub fn level(&self) -> String {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).to_string()
    }

    /// Sets the level, at once, by its name: `off`, `error`, `warn`, `info`, `debug` or `trace`.
    pub fn set(&self, name: &str) -> Result<(), UnknownLevel> {
        let new = level(name)?;
        let mut current = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        *current = new;
        if let Some(filter) = &self.filter
            && let Err(error) = filter.reload(new)
        {
            tracing::error!(%error, "the log level cannot be set");
        }
        Ok(())
    }
}

/// Diagnostics to standard error, coloured where `ansi`, and their control. Only a binary's `main` installs them, with
/// `tracing::subscriber::set_global_default`.
pub fn diagnostics(level: LevelFilter, ansi: bool) -> (impl Subscriber + Send + Sync, LogControl) {
    diagnostics_to(std::io::stderr, level, ansi)
}

fn diagnostics_to<W>(writer: W, level: LevelFilter, ansi: bool) -> (impl Subscriber + Send + Sync, LogControl)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(level);
    let subscriber = Registry::default()
        .with(filter)
        .with(fmt::layer().with_writer(writer).with_ansi(ansi).with_target(true));
    (subscriber, LogControl { level: Arc::new(Mutex::new(level)), filter: Some(handle) })
}

#[cfg(test)]
mod tests;

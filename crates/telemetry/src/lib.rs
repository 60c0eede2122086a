//! What happened: metrics, the access log, and diagnostics.
//!
//! Nothing here is global: each proxy of a process has its own [`Metrics`] and [`AccessLog`]. Nothing a request
//! touches locks, looks up a label or waits: series are bound when the live table is built, each worker counts in
//! cells that only it writes, and log lines go through a buffer of the worker to one thread that writes.

mod access_log;
mod cells;
mod collect;
mod diagnostics;
mod entry;
mod json;
mod metrics;
mod process;
mod series;
mod text;
mod worker;

pub use access_log::{AccessLog, LogBuffer};
pub use diagnostics::{LogControl, UnknownLevel, diagnostics, level};
pub use entry::{Entry, TcpEntry};
pub use metrics::Metrics;
pub use prometheus;
pub use series::{BackendSeries, ConnectionSeries, MAX_SERIES, RequestLabels, Series, TcpLabels, TcpSeries};
pub use tracing::level_filters::LevelFilter;
pub use worker::{CallerTimeout, ConnectResult, MirrorResult, RequestEnd, Worker};

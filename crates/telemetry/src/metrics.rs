//! The metrics of one proxy.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::access_log::AccessLog;
use crate::cells::Block;
use crate::collect::WorkerCollector;
use crate::process::ProcessCollector;
use crate::series::{BackendSeries, ConnectionSeries, Index, RequestLabels, Series, TcpLabels, TcpSeries};
use crate::worker::Worker;

/// The metrics of one proxy. Clones are the same metrics.
///
/// What a request or connection counts goes through a [`Worker`], by series that are bound beforehand. What changes
/// rarely is a gauge to set, each a field of this struct; more can be added to the [`registry`](Self::registry).
#[derive(Clone)]
pub struct Metrics {
    /// `outrigger_ready`: 1 while the proxy is ready, else 0.
    pub ready: IntGauge,
    /// `outrigger_config_revision`: the revision of the live configuration.
    pub config_revision: IntGauge,
    /// `outrigger_config_rejected`: how many resources of the newest configuration were refused.
    pub config_rejected: IntGauge,
    /// `outrigger_config_applied_timestamp_seconds`: when the live configuration went live, in Unix time.
    pub config_applied: IntGauge,
    /// `outrigger_control_connected`: 1 while there is a stream from the control API, else 0.
    pub control_connected: IntGauge,
    /// `outrigger_certificate_expiry_timestamp_seconds{certificate}`: when a certificate ends, in Unix time.
    pub certificate_expiry: IntGaugeVec,
    registry: Registry,
    workers: Arc<Workers>,
}

/// The series, and the cells of all workers.
pub(crate) struct Workers {
    pub(crate) requests: Index,
    pub(crate) tcp: Index,
    pub(crate) connections: Index,
    pub(crate) backends: Index,
    pub(crate) blocks: Mutex<Vec<Arc<Block>>>,
}

impl Metrics {
    /// The metrics of a proxy with so many workers.
    pub fn new(workers: usize) -> Self {
        let registry = Registry::new();
        let overflow = IntCounter::new(
            "outrigger_metrics_series_overflow_total",
            "Bindings of label values beyond the most series, which count as `other`.",
        );
        let overflow = added(&registry, overflow);
        let workers = Arc::new(Workers {
            requests: Index::new(&["direction", "listener", "route", "rule", "backend"], &overflow),
            tcp: Index::new(&["direction", "listener", "route", "backend"], &overflow),
            connections: Index::new(&["direction", "listener"], &overflow),
            backends: Index::new(&["backend"], &overflow),
            blocks: Mutex::new((0..workers).map(|_| Arc::default()).collect()),
        });
        add(&registry, WorkerCollector::new(Arc::clone(&workers)));
        add(&registry, ProcessCollector::new());
        let build = IntGauge::with_opts(
            Opts::new("outrigger_build_info", "1, labelled with the version that runs.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        );
        added(&registry, build).set(1);
        let gauge = |name, help| added(&registry, IntGauge::new(name, help));
        Self {
            ready: gauge("outrigger_ready", "1 while the proxy is ready, else 0."),
            config_revision: gauge("outrigger_config_revision", "The revision of the live configuration."),
            config_rejected: gauge(
                "outrigger_config_rejected",
                "How many resources of the newest configuration were refused.",
            ),
            config_applied: gauge(
                "outrigger_config_applied_timestamp_seconds",
                "When the live configuration went live, in Unix time.",
            ),
            control_connected: gauge(
                "outrigger_control_connected",
                "1 while there is a stream from the control API, else 0.",
            ),
            certificate_expiry: added(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "outrigger_certificate_expiry_timestamp_seconds",
                        "When a certificate ends, in Unix time.",
                    ),
                    &["certificate"],
                ),
            ),
            registry,
            workers,
        }
    }

    /// The registry, for metrics that change rarely.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All metrics in Prometheus's text format, version 0.0.4.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            // What was encoded up to there is still worth reading; a line that begins with # is a comment.
            tracing::error!(%error, "the metrics cannot be encoded to their end");
            text.push_str("# the metrics end here because of an error\n");
        }
        text
    }

    /// Adds `outrigger_access_log_dropped_total`, the lines that the log could not take.
    pub fn show_access_log(&self, log: &AccessLog) {
        add(&self.registry, log.dropped_counter());
    }

    /// Where a worker counts; to be called on the worker's thread, and cloned there.
    ///
    /// A worker whose `index` is taken by one that lives counts in cells of its own, so that no count is lost.
    pub fn worker(&self, index: usize) -> Worker {
        let mut blocks = self.workers.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        // A block that only this list holds has no worker, and `get_mut` synchronises with the one that it had.
        let free = std::iter::once(index)
            .chain(0..blocks.len())
            .find(|&at| blocks.get_mut(at).is_some_and(|block| Arc::get_mut(block).is_some()));
        if let Some(block) = free.and_then(|at| blocks.get(at)) {
            return Worker::new(Arc::clone(block));
        }
        let block = Arc::<Block>::default();
        blocks.push(Arc::clone(&block));
        Worker::new(block)
    }

    /// Binds the series of some requests. The same labels give the same series.
    pub fn request_series(&self, labels: &RequestLabels<'_>) -> Series {
        let RequestLabels { direction, listener, route, rule, backend } = *labels;
        Series(self.workers.requests.bind(&[direction, listener, route, rule, backend]))
    }

    /// Binds the series of some connections that are not HTTP. The same labels give the same series.
    pub fn tcp_series(&self, labels: &TcpLabels<'_>) -> TcpSeries {
        let TcpLabels { direction, listener, route, backend } = *labels;
        TcpSeries(self.workers.tcp.bind(&[direction, listener, route, backend]))
    }

    /// Binds the series of the connections that a listener accepts.
    pub fn connection_series(&self, direction: &str, listener: &str) -> ConnectionSeries {
        ConnectionSeries(self.workers.connections.bind(&[direction, listener]))
    }

    /// Binds the series of the connections to a backend.
    pub fn backend_series(&self, backend: &str) -> BackendSeries {
        BackendSeries(self.workers.backends.bind(&[backend]))
    }
}

/// Registers a metric whose name and labels are constants of this crate.
fn added<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<C>,
) -> C {
    #[expect(clippy::expect_used, reason = "names are constants, and every test makes all of them")]
    let metric = metric.expect("a metric of this crate has a valid name");
    add(registry, metric.clone());
    metric
}

/// Registers a metric; one that is there already stays.
fn add(registry: &Registry, metric: impl prometheus::core::Collector + 'static) {
    if let Err(error) = registry.register(Box::new(metric)) {
        tracing::warn!(%error, "a metric is left out");
    }
}

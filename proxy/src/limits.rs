//! How full what is limited is, for those who watch over the proxy: as metrics, and beside the endpoints.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use outrigger_telemetry::Metrics;
use outrigger_telemetry::prometheus::core::{Collector, Desc};
use outrigger_telemetry::prometheus::proto::MetricFamily;
use outrigger_telemetry::prometheus::{self, IntGaugeVec, Opts};
use serde_json::{Value, json};

use crate::director::Published;
use crate::state::{LiveBackend, LiveListener};

/// A limit that is set: what it is of, how much of it is taken, and how much may be.
type Limited = (&'static str, u32, u32);

/// What is limited of a backend.
fn of_backend(live: &LiveBackend) -> impl Iterator<Item = Limited> {
    let backend = &live.backend;
    let (limits, connections) = (backend.limits.as_deref(), backend.connections.as_deref());
    let requests = limits.map(|it| ("requests", it.requests.taken(), it.requests.size()));
    let waiting = limits.map(|it| ("waiting_requests", it.queue.waiting(), it.queue.most()));
    let open = connections.map(|it| ("connections", it.open(), it.most()));
    let queued = connections.map(|it| {
        let (waiting, most) = it.waiting();
        ("waiting_for_connection", waiting, most)
    });
    let retries = backend.budget.under_way().map(|(used, most)| ("retries", used, most));
    [requests, waiting, open, queued, retries].into_iter().flatten()
}

/// What is limited of a listener.
fn of_listener(live: &LiveListener) -> impl Iterator<Item = Limited> {
    let connections = live.most.map(|most| ("connections", live.open.load(Relaxed), most));
    let requests = live.requests.as_ref().map(|limit| ("requests", limit.taken(), limit.size()));
    [connections, requests].into_iter().flatten()
}

/// What is limited of a backend, by what it is of; `None` where nothing is.
pub(crate) fn shown(live: &LiveBackend) -> Option<Value> {
    let limits: serde_json::Map<_, _> = of_backend(live)
        .map(|(of, used, most)| (of.to_owned(), json!({ "used": used, "limit": most })))
        .collect();
    (!limits.is_empty()).then(|| limits.into())
}

/// `outrigger_backend_limit{backend,of}`, `outrigger_backend_limit_used{backend,of}`, and the same of listeners, made of
/// what is live when they are read.
pub(crate) struct Collect {
    published: Published,
    backends: Pair,
    listeners: Pair,
}

/// How much may be taken, and how much is.
struct Pair {
    most: IntGaugeVec,
    used: IntGaugeVec,
}

impl Pair {
    fn new(most: (&str, &str), used: (&str, &str), whose: &str) -> prometheus::Result<Self> {
        let gauge = |(name, help): (&str, &str)| IntGaugeVec::new(Opts::new(name, help), &[whose, "of"]);
        Ok(Self { most: gauge(most)?, used: gauge(used)? })
    }

    fn show(&self, name: &str, limits: impl Iterator<Item = Limited>) {
        for (of, used, most) in limits {
            self.most.with_label_values(&[name, of]).set(most.into());
            self.used.with_label_values(&[name, of]).set(used.into());
        }
    }

    fn reset(&self) {
        self.most.reset();
        self.used.reset();
    }

    const fn each(&self) -> [&IntGaugeVec; 2] {
        [&self.most, &self.used]
    }
}

impl Collect {
    /// Adds them to the metrics.
    pub(crate) fn add(metrics: &Metrics, published: &Published) {
        let collect = Self::new(published.clone());
        if let Err(error) = collect.and_then(|collect| metrics.registry().register(Box::new(collect))) {
            tracing::warn!(%error, "the metrics of limits are left out");
        }
    }

    fn new(published: Published) -> prometheus::Result<Self> {
        Ok(Self {
            published,
            backends: Pair::new(
                ("outrigger_backend_limit", "How many there may be at a backend, where that is limited."),
                ("outrigger_backend_limit_used", "How many there are at a backend of what is limited."),
                "backend",
            )?,
            listeners: Pair::new(
                ("outrigger_listener_limit", "How many there may be at a listener, where that is limited."),
                ("outrigger_listener_limit_used", "How many there are at a listener of what is limited."),
                "listener",
            )?,
        })
    }

    fn gauges(&self) -> impl Iterator<Item = &IntGaugeVec> {
        [&self.backends, &self.listeners].into_iter().flat_map(Pair::each)
    }
}

impl Collector for Collect {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Held to the end, so that two who read at a time do not mix what they see.
        let live = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        self.backends.reset();
        self.listeners.reset();
        for live in live.iter() {
            for backend in &live.backends {
                self.backends.show(&backend.backend.name, of_backend(backend));
            }
            for listener in &live.listeners {
                self.listeners.show(listener.name.as_str(), of_listener(listener));
            }
        }
        self.gauges().flat_map(Collector::collect).collect()
    }
}

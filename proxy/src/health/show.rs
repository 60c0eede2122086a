//! How endpoints stand, for those who watch over the proxy: as metrics, and one by one.

use std::collections::BTreeMap;
use std::time::Instant;

use outrigger_balance::Cause;
use outrigger_http::Endpoint;
use outrigger_telemetry::Metrics;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts};
use serde_json::{Value, json};

use super::Findings;
use super::ask::Found;
use crate::director::{Published, current};
use crate::limits;
use crate::state::LiveBackend;

/// `outrigger_backend_endpoints{backend,state}`, `outrigger_backend_ejections_total{backend,cause}`,
/// `outrigger_backend_health_checks_total{backend,result}` and `outrigger_backend_idle_timeout_seconds{backend}`, made of
/// what is live when they are read.
pub(crate) struct Collect {
    published: Published,
    findings: Findings,
    endpoints: IntGaugeVec,
    ejections: IntCounterVec,
    checks: IntCounterVec,
    idle: GaugeVec,
}

impl Collect {
    /// Adds them to the metrics.
    pub(crate) fn add(metrics: &Metrics, published: &Published, findings: &Findings) {
        let collect = Self::new(published.clone(), findings.clone());
        if let Err(error) = collect.and_then(|collect| metrics.registry().register(Box::new(collect))) {
            tracing::warn!(%error, "the metrics of endpoints are left out");
        }
    }

    fn new(published: Published, findings: Findings) -> prometheus::Result<Self> {
        let opts = Opts::new;
        Ok(Self {
            published,
            findings,
            endpoints: IntGaugeVec::new(
                opts("outrigger_backend_endpoints", "Endpoints of a backend, by how they stand."),
                &["backend", "state"],
            )?,
            ejections: IntCounterVec::new(
                opts("outrigger_backend_ejections_total", "Ejections by outlier detection, by cause."),
                &["backend", "cause"],
            )?,
            checks: IntCounterVec::new(
                opts("outrigger_backend_health_checks_total", "Health checks of endpoints, by result."),
                &["backend", "result"],
            )?,
            idle: GaugeVec::new(
                opts(
                    "outrigger_backend_idle_timeout_seconds",
                    "After how long an endpoint closes idle connections, as it says or shows; the shortest of a backend.",
                ),
                &["backend"],
            )?,
        })
    }

    fn backend(&self, backend: &LiveBackend, now: Instant) {
        let (name, backend) = (&*backend.backend.name, &backend.backend);
        let mut states = BTreeMap::from([("well", 0)]);
        for load in &backend.loads {
            *states.entry(load.standing(now).state.as_str()).or_default() += 1;
        }
        for (state, count) in states {
            self.endpoints.with_label_values(&[name, state]).set(count);
        }
        for (outliers, cause) in backend.outliers.iter().flat_map(|o| Cause::ALL.map(|cause| (o, cause))) {
            let counter = self.ejections.with_label_values(&[name, cause.as_str()]);
            counter.inc_by(outliers.ejections(cause));
        }
        if let Some(idle) = backend.endpoints.iter().filter_map(|endpoint| endpoint.idle.known()).min() {
            self.idle.with_label_values(&[name]).set(idle.as_secs_f64());
        }
    }
}

impl Collector for Collect {
    fn desc(&self) -> Vec<&Desc> {
        [self.endpoints.desc(), self.ejections.desc(), self.checks.desc(), self.idle.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let live = current(&self.published);
        // Held so that two who read at a time do not mix what they see.
        let kept = self.findings.kept();
        self.endpoints.reset();
        self.ejections.reset();
        self.checks.reset();
        self.idle.reset();
        let now = Instant::now();
        for backend in live.iter().flat_map(|live| &live.backends) {
            self.backend(backend, now);
        }
        for (name, counts) in &kept.counts {
            for (result, count) in Found::NAMES.into_iter().zip(counts) {
                self.checks.with_label_values(&[name, result]).inc_by(*count);
            }
        }
        [self.endpoints.collect(), self.ejections.collect(), self.checks.collect(), self.idle.collect()]
            .concat()
    }
}

/// Every endpoint of what is live: how it stands, why, for how long, and what it has to do.
pub(crate) fn endpoints(published: &Published, findings: &Findings) -> Value {
    let live = current(published);
    let now = Instant::now();
    let kept = findings.kept();
    let backends = live.iter().flat_map(|live| &live.backends).map(|backend| {
        let specs = backend.specs().map(Some).chain(std::iter::repeat(None));
        let endpoints = backend.backend.endpoints.iter().zip(specs).map(|(endpoint, spec)| {
            let mut shown = show(endpoint, kept.last.get(&endpoint.id()), now);
            if let Some(zone) = spec.and_then(|spec| spec.zone.as_ref()) {
                shown["zone"] = zone.as_str().into();
            }
            if let Some(priority) = spec.map(|spec| spec.priority).filter(|priority| *priority > 0) {
                shown["priority"] = priority.into();
            }
            shown
        });
        let endpoints: Vec<_> = endpoints.collect();
        let mut shown = json!({ "name": &*backend.backend.name, "endpoints": endpoints });
        if let Some(zone) = backend.zone() {
            shown["nodeZone"] = zone.as_str().into();
        }
        if let Some(limits) = limits::shown(backend) {
            shown["limits"] = limits;
        }
        shown
    });
    json!({ "backends": backends.collect::<Vec<_>>() })
}

fn show(endpoint: &Endpoint, check: Option<&Found>, now: Instant) -> Value {
    let standing = endpoint.load.standing(now);
    let mut shown = json!({
        "address": endpoint.address,
        "state": standing.state.as_str(),
        "why": standing.state.why(),
        "forSeconds": standing.since.as_secs(),
        "inFlight": endpoint.load.in_flight(),
        "latencySeconds": endpoint.load.latency(now).as_secs_f64(),
        "weight": endpoint.load.weight(),
    });
    if let Some(idle) = endpoint.idle.known() {
        shown["idleTimeoutSeconds"] = idle.as_secs_f64().into();
    }
    if let Some(identity) = endpoint.identity() {
        shown["identity"] = identity.as_str().into();
    }
    if let Some(left) = standing.left {
        shown["stillSeconds"] = left.as_secs_f64().into();
    }
    if let Some(check) = check {
        shown["lastCheck"] = check.words().into();
    }
    shown
}

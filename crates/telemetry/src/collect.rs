//! What the workers counted, summed when the metrics are read.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::cells::{Block, CONNECTION_BOUNDS, Cell, Durations, REQUEST_BOUNDS};
use crate::metrics::Workers;
use crate::series::Index;
use crate::worker::{CallerTimeout, ConnectResult, MirrorResult};

/// Every metric made here: its name, its help, its type, in the order of [`Family`].
const FAMILIES: [(&str, &str, MetricType); 20] = {
    use MetricType::{COUNTER, GAUGE, HISTOGRAM};
    [
        (
            "outrigger_requests_total",
            "Finished requests, by status; code 0: the caller left before.",
            COUNTER,
        ),
        (
            "outrigger_responses_by_proxy_total",
            "Answers that the proxy itself made, by their reason.",
            COUNTER,
        ),
        ("outrigger_request_duration_seconds", "From a request's head to its response's end.", HISTOGRAM),
        ("outrigger_requests_in_flight", "Requests that began and are not over.", GAUGE),
        ("outrigger_request_bytes_total", "Bytes of the bodies of requests.", COUNTER),
        ("outrigger_response_bytes_total", "Bytes of the bodies of responses.", COUNTER),
        ("outrigger_retries_total", "Attempts beyond the first.", COUNTER),
        ("outrigger_retries_refused_total", "Retries that the backend's budget refused.", COUNTER),
        ("outrigger_tcp_connections_total", "Connections that are not HTTP.", COUNTER),
        ("outrigger_tcp_connections_open", "Connections that are not HTTP and not over.", GAUGE),
        ("outrigger_tcp_connections_failed_total", "Connections, not HTTP, that ended in an error.", COUNTER),
        ("outrigger_tcp_connection_duration_seconds", "How long connections, not HTTP, lasted.", HISTOGRAM),
        ("outrigger_tcp_bytes_total", "Bytes sent to and received from backends, not HTTP.", COUNTER),
        ("outrigger_connections_total", "Connections that a listener accepted.", COUNTER),
        ("outrigger_connections_open", "Connections that a listener accepted, still open.", GAUGE),
        (
            "outrigger_connections_timed_out_total",
            "Connections that a listener accepted and a timeout ended.",
            COUNTER,
        ),
        ("outrigger_backend_connections_total", "Attempts to connect to a backend, by result.", COUNTER),
        ("outrigger_backend_connections_open", "Connections to a backend, still open.", GAUGE),
        (
            "outrigger_mirrored_requests_total",
            "Copies of requests for a backend, by what became of them.",
            COUNTER,
        ),
        (
            "outrigger_backend_panic_requests_total",
            "Requests while so few endpoints of the backend are well that all are used.",
            COUNTER,
        ),
    ]
};

/// The index of each metric in [`FAMILIES`].
#[derive(Clone, Copy)]
enum Family {
    Requests,
    ResponsesByProxy,
    RequestDuration,
    RequestsInFlight,
    RequestBytes,
    ResponseBytes,
    Retries,
    RetriesRefused,
    TcpConnections,
    TcpConnectionsOpen,
    TcpConnectionsFailed,
    TcpConnectionDuration,
    TcpBytes,
    Connections,
    ConnectionsOpen,
    ConnectionsTimedOut,
    BackendConnections,
    BackendConnectionsOpen,
    MirroredRequests,
    BackendPanicRequests,
}

/// Sums the cells of all workers.
pub(crate) struct WorkerCollector {
    workers: Arc<Workers>,
    descriptions: Vec<Desc>,
}

impl WorkerCollector {
    pub(crate) fn new(workers: Arc<Workers>) -> Self {
        let descriptions = FAMILIES
            .iter()
            .filter_map(|(name, help, _)| {
                Desc::new((*name).into(), (*help).into(), Vec::new(), HashMap::new()).ok()
            })
            .collect();
        Self { workers, descriptions }
    }
}

impl Collector for WorkerCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let workers = &*self.workers;
        let blocks = workers.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut families = Families::default();
        families.requests(&workers.requests, &blocks);
        families.tcp(&workers.tcp, &blocks);
        families.connections(&workers.connections, &blocks);
        families.backends(&workers.backends, &blocks);
        families.finish()
    }
}

/// The sums, as they are put together.
#[derive(Default)]
struct Families {
    metrics: [Vec<Metric>; FAMILIES.len()],
}

impl Families {
    fn requests(&mut self, index: &Index, blocks: &[Arc<Block>]) {
        let mut by_reason = BTreeMap::new();
        let cells = by_series(blocks, |block| block.requests.iter());
        for (labels, cells) in labelled(index, &cells) {
            let mut by_code = BTreeMap::<_, u64>::new();
            for cell in cells {
                for (code, count) in cell.codes() {
                    *by_code.entry((code, None)).or_default() += count;
                }
                for answer in cell.answers() {
                    *by_code.entry((answer.status, Some(answer.reason))).or_default() += answer.count.get();
                    *by_reason.entry(answer.reason).or_default() += answer.count.get();
                }
            }
            for ((code, reason), count) in by_code {
                let code = Some(label("code", &code.to_string()));
                let extra = code.into_iter().chain(reason.map(|reason| label("reason", reason)));
                self.counter(Family::Requests, labels.iter().cloned().chain(extra).collect(), count);
            }
            let sum =
                |part: fn(&crate::cells::RequestCell) -> &Cell| total(cells.iter().map(|cell| part(cell)));
            self.histogram(
                Family::RequestDuration,
                labels.clone(),
                &REQUEST_BOUNDS,
                cells.iter().map(|cell| &cell.durations),
            );
            self.gauge(Family::RequestsInFlight, labels.clone(), sum(|cell| &cell.in_flight));
            self.counter(Family::RequestBytes, labels.clone(), sum(|cell| &cell.request_bytes));
            self.counter(Family::ResponseBytes, labels.clone(), sum(|cell| &cell.response_bytes));
            self.counter(Family::Retries, labels.clone(), sum(|cell| &cell.retries));
            self.counter(Family::RetriesRefused, labels, sum(|cell| &cell.retries_refused));
        }
        for (reason, count) in by_reason {
            self.counter(Family::ResponsesByProxy, vec![label("reason", reason)], count);
        }
    }

    fn tcp(&mut self, index: &Index, blocks: &[Arc<Block>]) {
        let cells = by_series(blocks, |block| block.tcp.iter());
        for (labels, cells) in labelled(index, &cells) {
            let sum = |part: fn(&crate::cells::TcpCell) -> &Cell| total(cells.iter().map(|cell| part(cell)));
            let (opened, closed) = (sum(|cell| &cell.opened), sum(|cell| &cell.closed));
            self.counter(Family::TcpConnections, labels.clone(), opened);
            self.gauge(Family::TcpConnectionsOpen, labels.clone(), opened.wrapping_sub(closed));
            self.counter(Family::TcpConnectionsFailed, labels.clone(), sum(|cell| &cell.failed));
            self.histogram(
                Family::TcpConnectionDuration,
                labels.clone(),
                &CONNECTION_BOUNDS,
                cells.iter().map(|cell| &cell.durations),
            );
            for (way, bytes) in [("sent", sum(|cell| &cell.sent)), ("received", sum(|cell| &cell.received))] {
                self.counter(Family::TcpBytes, with(&labels, "way", way), bytes);
            }
        }
    }

    fn connections(&mut self, index: &Index, blocks: &[Arc<Block>]) {
        let cells = by_series(blocks, |block| block.connections.iter());
        for (labels, cells) in labelled(index, &cells) {
            let opened = total(cells.iter().map(|cell| &cell.opened));
            let closed = total(cells.iter().map(|cell| &cell.closed));
            self.counter(Family::Connections, labels.clone(), opened);
            for timeout in CallerTimeout::ALL {
                let count = total(cells.iter().map(|cell| &cell.timed_out[timeout as usize]));
                if count > 0 {
                    let labels = with(&labels, "timeout", timeout.as_str());
                    self.counter(Family::ConnectionsTimedOut, labels, count);
                }
            }
            self.gauge(Family::ConnectionsOpen, labels, opened.wrapping_sub(closed));
        }
    }

    fn backends(&mut self, index: &Index, blocks: &[Arc<Block>]) {
        let cells = by_series(blocks, |block| block.backends.iter());
        for (labels, cells) in labelled(index, &cells) {
            let attempts = |result| total(cells.iter().map(|cell| &cell.attempts[result as usize]));
            for result in ConnectResult::ALL {
                let count = attempts(result);
                if count > 0 {
                    let labels = with(&labels, "result", result.as_str());
                    self.counter(Family::BackendConnections, labels, count);
                }
            }
            let closed = total(cells.iter().map(|cell| &cell.closed));
            let open = attempts(ConnectResult::Ok).wrapping_sub(closed);
            for result in MirrorResult::ALL {
                let count = total(cells.iter().map(|cell| &cell.mirrored[result as usize]));
                if count > 0 {
                    self.counter(Family::MirroredRequests, with(&labels, "result", result.as_str()), count);
                }
            }
            let panicked = total(cells.iter().map(|cell| &cell.panicked));
            if panicked > 0 {
                self.counter(Family::BackendPanicRequests, labels.clone(), panicked);
            }
            self.gauge(Family::BackendConnectionsOpen, labels, open);
        }
    }

    fn counter(&mut self, family: Family, labels: Vec<LabelPair>, value: u64) {
        let mut counter = Counter::default();
        counter.set_value(value as f64);
        let mut metric = Metric::from_label(labels);
        metric.set_counter(counter);
        self.metrics[family as usize].push(metric);
    }

    /// Adds a gauge, whose value may have wrapped below zero while cells were read one by one.
    fn gauge(&mut self, family: Family, labels: Vec<LabelPair>, value: u64) {
        let mut gauge = Gauge::default();
        gauge.set_value((value as i64).max(0) as f64);
        let mut metric = Metric::from_label(labels);
        metric.set_gauge(gauge);
        self.metrics[family as usize].push(metric);
    }

    fn histogram<'a>(
        &mut self,
        family: Family,
        labels: Vec<LabelPair>,
        bounds: &[u64],
        durations: impl Iterator<Item = &'a Durations> + Clone,
    ) {
        let in_bucket = |index: usize| total(durations.clone().map(|cell| &cell.buckets[index]));
        let mut count = 0;
        let mut buckets = Vec::with_capacity(bounds.len());
        for (index, &bound) in bounds.iter().enumerate() {
            count += in_bucket(index);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound as f64 / 1e9);
            bucket.set_cumulative_count(count);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_sample_count(count + in_bucket(bounds.len()));
        histogram.set_sample_sum(total(durations.clone().map(|cell| &cell.sum)) as f64 / 1e9);
        histogram.set_bucket(buckets);
        let mut metric = Metric::from_label(labels);
        metric.set_histogram(histogram);
        self.metrics[family as usize].push(metric);
    }

    fn finish(self) -> Vec<MetricFamily> {
        let families = FAMILIES.iter().zip(self.metrics).filter(|(_, metrics)| !metrics.is_empty());
        families
            .map(|((name, help, kind), metrics)| {
                let mut family = MetricFamily::default();
                family.set_name((*name).into());
                family.set_help((*help).into());
                family.set_field_type(*kind);
                family.set_metric(metrics);
                family
            })
            .collect()
    }
}

/// The cells of all workers, by the number of their series.
fn by_series<'a, C: 'a, I: Iterator<Item = (usize, &'a C)>>(
    blocks: &'a [Arc<Block>],
    cells: impl Fn(&'a Block) -> I,
) -> BTreeMap<usize, Vec<&'a C>> {
    let mut series = BTreeMap::<_, Vec<_>>::new();
    for (number, cell) in blocks.iter().flat_map(|block| cells(block)) {
        series.entry(number).or_default().push(cell);
    }
    series
}

/// The labels of each series that has cells, with the cells.
fn labelled<'a, C>(
    index: &Index,
    cells: &'a BTreeMap<usize, Vec<&'a C>>,
) -> impl Iterator<Item = (Vec<LabelPair>, &'a [&'a C])> {
    let (names, values) = (index.names(), index.values());
    cells.iter().filter_map(move |(&number, cells)| {
        let values = values.get(number)?;
        let labels = names.iter().zip(values).map(|(name, value)| label(name, value)).collect();
        Some((labels, cells.as_slice()))
    })
}

fn total<'a>(cells: impl Iterator<Item = &'a Cell>) -> u64 {
    cells.fold(0, |sum, cell| sum.wrapping_add(cell.get()))
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.into());
    pair.set_value(value.into());
    pair
}

fn with(labels: &[LabelPair], name: &str, value: &str) -> Vec<LabelPair> {
    labels.iter().cloned().chain([label(name, value)]).collect()
}

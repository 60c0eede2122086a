//! What the process takes, under the names that Prometheus's clients agreed on. Read from `/proc` when the metrics
//! are read; what cannot be read is left out.

use std::collections::HashMap;
use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};

const METRICS: [(&str, &str, MetricType); 5] = [
    ("process_cpu_seconds_total", "Processor time taken, in user and kernel space.", MetricType::COUNTER),
    ("process_resident_memory_bytes", "Memory that is resident.", MetricType::GAUGE),
    ("process_open_fds", "Open file descriptors.", MetricType::GAUGE),
    ("process_threads", "Threads.", MetricType::GAUGE),
    ("process_start_time_seconds", "When the process started, in Unix time.", MetricType::GAUGE),
];

pub(crate) struct ProcessCollector {
    descriptions: Vec<Desc>,
    started: Option<f64>,
}

impl ProcessCollector {
    pub(crate) fn new() -> Self {
        let describe =
            |name: &str, help: &str| Desc::new(name.into(), help.into(), Vec::new(), HashMap::new());
        Self {
            descriptions: METRICS.iter().filter_map(|(name, help, _)| describe(name, help).ok()).collect(),
            started: started(),
        }
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let values = [
            Some(processor_seconds()),
            field(&status, "VmRSS:").map(|kibibytes| kibibytes * 1024.0),
            fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as f64),
            field(&status, "Threads:"),
            self.started,
        ];
        let found = METRICS.iter().zip(values).filter_map(|(metric, value)| Some((metric, value?)));
        found.map(|(&(name, help, kind), value)| family(name, help, kind, value)).collect()
    }
}

fn family(name: &str, help: &str, kind: MetricType, value: f64) -> MetricFamily {
    let mut metric = Metric::default();
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}

/// Finer than the ticks of `/proc/self/stat`, so that the cost of a single request can be read.
fn processor_seconds() -> f64 {
    let taken = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    taken.tv_sec as f64 + taken.tv_nsec as f64 / 1e9
}

/// A number out of `/proc/self/status` (proc_pid_status(5)).
fn field(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// When the process started: field 22 of its `stat`, in clock ticks since the boot (proc_pid_stat(5)).
fn started() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses, which may itself contain any character.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: f64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot + ticks / rustix::param::clock_ticks_per_second() as f64)
}

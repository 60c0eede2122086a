//! What was measured, as the JSON file has it. All times in it are microseconds.

use serde::{Deserialize, Serialize};

use crate::{caller::Protocol, cpus::Cpus, generator::Measured, path::Path};

/// The version of this schema; it grows when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Outrigger's version.
    pub version: String,
    /// Where it ran.
    pub machine: Machine,
    /// With what.
    pub settings: Settings,
    /// One for each kind of load.
    pub sections: Vec<Section>,
}

/// Where it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// The processor's name.
    pub processor: Option<String>,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// Who ran on which core; absent if there was only one.
    pub pinned: Option<Cpus>,
    /// Whether this program (and so, presumably, the proxy beside it) was built with optimisation.
    pub optimised: bool,
}

impl Machine {
    /// This machine.
    pub fn this(pinned: Option<Cpus>) -> Self {
        let processor = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|info| {
            let line = info.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(": ")?.1.to_owned())
        });
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        let kernel = kernel.map(|release| release.trim().to_owned());
        Self { processor, kernel, pinned, optimised: !cfg!(debug_assertions) }
    }
}

/// What every path was measured with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// What callers and the application speak.
    pub protocol: Protocol,
    /// Connections of the load.
    pub connections: usize,
    /// Bytes of each request's body; the answer has as many, or 2 if this is 0.
    pub body: usize,
    /// Length of a round in seconds.
    pub seconds: f64,
    /// Length of the warm-up before each round in seconds, which is not counted.
    pub warmup: f64,
}

/// How the load comes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Load {
    /// At a constant rate, whether answers come or not; latency counts from when a request was due.
    Open {
        /// Requests in a second.
        rate: u32,
    },
    /// Each connection sends its next request when it has the last answer.
    Saturated,
}

/// All paths under one kind of load, measured in turn in each round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Section {
    /// The load.
    pub load: Load,
    /// The paths, in the order in which they were measured.
    pub paths: Vec<PathReport>,
    /// The path `proxy`'s CPU per request divided by nginx's (medians), if both are there.
    pub cpu_ratio_to_nginx: Option<f64>,
}

impl Section {
    /// Puts the paths together: what each adds to `direct`, and the ratio to nginx.
    pub fn new(load: Load, mut paths: Vec<PathReport>) -> Self {
        let of = |wanted| paths.iter().find(|report| report.path == wanted);
        let direct = of(Path::Direct).map(|report| report.latency);
        let cpu = |wanted| of(wanted).and_then(|report| report.cpu_per_request.as_ref()).map(|cpu| cpu.total);
        let cpu_ratio_to_nginx = cpu(Path::Proxy)
            .zip(cpu(Path::Nginx))
            .and_then(|(proxy, nginx)| (nginx > 0.0).then_some(proxy / nginx));
        // When each path goes as fast as it can, the loads differ, and so a difference of latencies says nothing.
        if let (Load::Open { .. }, Some(direct)) = (load, direct) {
            for report in paths.iter_mut().filter(|report| report.path != Path::Direct) {
                report.added = Some(report.latency.minus(direct));
            }
        }
        Self { load, paths, cpu_ratio_to_nginx }
    }
}

/// One path under one kind of load, all rounds together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathReport {
    /// Which.
    pub path: Path,
    /// Requests that were answered with 200.
    pub requests: u64,
    /// Requests that were not.
    pub errors: u64,
    /// What went wrong first.
    pub first_error: Option<String>,
    /// Requests answered in a second.
    pub per_second: f64,
    /// How long answers took.
    pub latency: Quantiles,
    /// `latency` less that of the direct path, quantile by quantile; only at a constant rate.
    pub added: Option<Quantiles>,
    /// What the proxies spent; absent where there is none.
    pub cpu_per_request: Option<Cpu>,
    /// What the proxies hold; absent where there is none.
    pub resident_kib: Option<Resident>,
}

/// Latency, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quantiles {
    /// Half of the requests took no longer.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// All.
    pub max: f64,
}

impl Quantiles {
    /// Of what was measured.
    pub fn of(measured: &Measured) -> Self {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        let at = |quantile| micros(measured.latency.value_at_quantile(quantile));
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: micros(measured.latency.max()) }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            p50: self.p50 - other.p50,
            p99: self.p99 - other.p99,
            p999: self.p999 - other.p999,
            max: self.max - other.max,
        }
    }
}

/// CPU time of all proxies of a path for each request, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cpu {
    /// User and system together: the median of the rounds.
    pub total: f64,
    /// The share of `total` in user space (by clock ticks, so coarser than `total`).
    pub user: f64,
    /// The share of `total` in the kernel.
    pub system: f64,
    /// `total`, round by round.
    pub rounds: Vec<f64>,
}

/// Resident memory of all proxies of a path, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resident {
    /// Before the first connection.
    pub idle: u64,
    /// After the last round, its connections still open.
    pub after: u64,
}

/// The middle one, or the mean of the middle two; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    f64::midpoint(at(sorted.len() / 2), at(sorted.len().saturating_sub(1) / 2))
}

#[cfg(test)]
mod tests;

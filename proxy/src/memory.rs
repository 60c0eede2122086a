//! The memory that this process may use, and what it uses: found in its cgroup, and followed for the budget of
//! [`outrigger_http::memory`].

mod cgroup;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_http::memory::{Budget, Kind, Level};
use outrigger_telemetry::{Metrics, prometheus};
use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts};
use tracing::warn;

use self::cgroup::Cgroup;

/// How often what is used is looked at while there is plenty of memory, and while there is not.
const CALM: Duration = Duration::from_secs(1);
const BRISK: Duration = Duration::from_millis(100);
/// The least time between two looks, however fast more is taken.
const BREATH: Duration = Duration::from_millis(2);
/// How often at most the allocator is asked to give back what it keeps: all threads wait for it meanwhile.
const TRIM_EVERY: Duration = Duration::from_secs(1);
/// How often once it is not any more: what was held is given back bit by bit.
const TRIMS_AFTER: u32 = 3;
/// The least limit that leaves room for anything beside the proxy itself.
const LEAST: u64 = 32 * 1024 * 1024;

/// How much memory a proxy may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryLimit {
    /// As much as its cgroup, or one around it, allows; as much as there is where none has a limit.
    #[default]
    Cgroup,
    /// So many bytes.
    Bytes(u64),
    /// As much as there is.
    Off,
}

impl std::str::FromStr for MemoryLimit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "write bytes, as 67108864, 64Mi or 1Gi, at least 32Mi; or `off`";
        if text == "off" {
            return Ok(Self::Off);
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit {
            "" => 1,
            "k" => 1000,
            "M" => 1000 * 1000,
            "G" => 1000 * 1000 * 1000,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            _ => return Err(WRONG),
        };
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        bytes.filter(|bytes| *bytes >= LEAST).map(Self::Bytes).ok_or(WRONG)
    }
}

/// The budget of a proxy, if it has one, and what there is to follow for it.
pub(crate) struct Memory {
    pub(crate) budget: Option<Arc<Budget>>,
    cgroup: Option<Cgroup>,
    /// Whose limit it is, which may change while the proxy runs.
    limited_by: Option<Cgroup>,
}

impl Memory {
    /// Finds out.
    pub(crate) fn find(limit: MemoryLimit, workers: usize) -> Self {
        let cgroup = if limit == MemoryLimit::Off { None } else { Cgroup::of_this_process() };
        let bytes = match limit {
            MemoryLimit::Off => None,
            MemoryLimit::Bytes(bytes) => Some(bytes),
            MemoryLimit::Cgroup => cgroup.as_ref().and_then(Cgroup::limit),
        };
        if let Some(bytes) = bytes.filter(|bytes| *bytes < LEAST) {
            warn!(
                "the cgroup's memory limit of {bytes} bytes leaves hardly any room: give it 32 MiB or more"
            );
        }
        let limited_by = cgroup.clone().filter(|_| limit == MemoryLimit::Cgroup);
        // One without a limit of its own is shared with others: what the kernel keeps there is not this process's.
        let cgroup = cgroup.filter(Cgroup::is_limited);
        Self { budget: bytes.map(|bytes| Budget::new(bytes, workers)), cgroup, limited_by }
    }

    /// Keeps the budget and the metrics true, for as long as the proxy runs.
    pub(crate) async fn follow(self, metrics: Metrics) {
        let Some(budget) = self.budget else { return };
        let shown = match Shown::new(&metrics) {
            Ok(shown) => shown,
            Err(error) => return warn!(%error, "memory is not followed"),
        };
        let (mut trimmed, mut owed) = (None::<Instant>, 0_u32);
        loop {
            if let Some(bytes) = self.limited_by.as_ref().and_then(Cgroup::limit) {
                budget.resize(bytes);
            }
            if let Some(used) = used(self.cgroup.as_ref()) {
                budget.measured(used);
                shown.show(&budget, used);
            }
            let scarce = budget.level() > Level::Plenty;
            if scarce {
                owed = TRIMS_AFTER + 1;
            }
            // What was given back would be taken for used for ever.
            if owed > 0 && trimmed.is_none_or(|at| at.elapsed() >= TRIM_EVERY) {
                outrigger_net::heap::trim();
                (trimmed, owed) = (Some(Instant::now()), owed - 1);
            }
            tokio::time::sleep(BREATH).await;
            tokio::select! {
                () = budget.grown() => {}
                () = tokio::time::sleep(if scarce { BRISK } else { CALM }) => {}
            }
        }
    }
}

/// What this process uses and cannot be taken from it, in bytes: its own memory, and what the kernel keeps for it, sockets'
/// buffers first of all. Files that the kernel has in memory are left out: it lets go of them.
fn used(cgroup: Option<&Cgroup>) -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split_whitespace().skip(1).map_while(|pages| pages.parse::<u64>().ok());
    let (resident, shared) = (pages.next()?, pages.next()?);
    let own = resident.saturating_sub(shared) * rustix::param::page_size() as u64;
    Some(own + cgroup.and_then(Cgroup::kernel).unwrap_or(0))
}

/// What the metrics say of it.
struct Shown {
    limit: IntGauge,
    used: IntGauge,
    buffered: IntGaugeVec,
    turned_away: IntCounter,
}

impl Shown {
    fn new(metrics: &Metrics) -> prometheus::Result<Self> {
        let limit = IntGauge::new("outrigger_memory_limit_bytes", "How much memory the proxy may use.")?;
        let used = IntGauge::new(
            "outrigger_memory_used_bytes",
            "How much it uses, by the system's account: its own, and the kernel's for it.",
        )?;
        let buffered = IntGaugeVec::new(
            Opts::new("outrigger_memory_buffered_bytes", "How much it holds for others, at most, by what."),
            &["of"],
        )?;
        let turned_away = IntCounter::new(
            "outrigger_memory_connections_refused_total",
            "Connections closed as they came, because no memory was left even for a refusal.",
        )?;
        let registry = metrics.registry();
        registry.register(Box::new(limit.clone()))?;
        registry.register(Box::new(used.clone()))?;
        registry.register(Box::new(buffered.clone()))?;
        registry.register(Box::new(turned_away.clone()))?;
        Ok(Self { limit, used, buffered, turned_away })
    }

    fn show(&self, budget: &Budget, used: u64) {
        self.limit.set(budget.limit().cast_signed());
        self.used.set(used.cast_signed());
        for kind in Kind::ALL {
            self.buffered.with_label_values(&[kind.as_str()]).set(budget.of(kind).cast_signed());
        }
        self.turned_away.inc_by(budget.connections_turned_away().saturating_sub(self.turned_away.get()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_written_as_kubernetes_writes_it() {
        let mib = 1024 * 1024;
        for (text, bytes) in
            [("67108864", 64 * mib), ("64Mi", 64 * mib), ("1Gi", 1024 * mib), ("100M", 100_000_000)]
        {
            assert_eq!(text.parse(), Ok(MemoryLimit::Bytes(bytes)), "{text}");
        }
        assert_eq!("off".parse(), Ok(MemoryLimit::Off));
        for text in ["", "Mi", "64MB", "-1", "31Mi", "99999999999999999999", "18446744073709551615Gi"] {
            assert!(text.parse::<MemoryLimit>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_this_process_uses_is_found_and_grows_with_what_it_holds() {
        let before = used(None).unwrap_or_default();
        let held = std::hint::black_box(vec![1_u8; 64 * 1024 * 1024]);
        let after = used(None).unwrap_or_default();
        assert!(before > 0 && after > before + 32 * 1024 * 1024, "{before} {after}");
        drop(held);
    }
}

//! Every figure that a run is for, with what it is to be, in one table.

use super::Name;
use crate::result::Target;

/// What a figure is to be, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// Unique and stable. Its first word (up to `.` or `-`) is the scenario.
    pub id: &'static str,
    /// What it says.
    pub title: &'static str,
    /// What it is to be; `None`: it says something, but there is nothing to be met.
    pub target: Option<Target>,
    /// Where it comes from.
    pub source: Source,
}

/// Where a figure comes from: parts and subjects by their names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Source {
    /// CPU per request of one subject divided by that of another; of several others, the one that spends least.
    Cpu {
        /// The part.
        part: &'static str,
        /// Whose.
        of: &'static str,
        /// Divided by whose.
        to: &'static [&'static str],
    },
    /// Answers in a second of one subject divided by those of another.
    Throughput {
        /// The part.
        part: &'static str,
        /// Whose.
        of: &'static str,
        /// Divided by whose.
        to: &'static str,
    },
    /// A quantile of a subject's latency less that of `direct`, in µs.
    Added {
        /// The part.
        part: &'static str,
        /// Whose.
        of: &'static str,
        /// Which.
        quantile: f64,
    },
    /// Resident memory in MiB.
    Resident {
        /// The part.
        part: &'static str,
        /// Whose.
        of: &'static str,
    },
    /// Resident memory of `of` in `part` less that in `idle`, for each connection, in KiB.
    PerConnection {
        /// The part with the connections.
        part: &'static str,
        /// The part without.
        idle: &'static str,
        /// Whose.
        of: &'static str,
    },
    /// How long samples took, in ms; the median of them.
    Time {
        /// The part.
        part: &'static str,
        /// Whose.
        of: &'static str,
    },
    /// Requests that were not answered as they should be.
    Errors {
        /// The part.
        part: &'static str,
        /// Whose.
        of: &'static str,
    },
    /// The proxy's binary without symbols, in MiB.
    Binary,
    /// Requests over 1 ms late for each change of the configuration, less those in as much time without one.
    Late,
}

impl Source {
    /// The unit of what comes from it.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Cpu { .. } | Self::Throughput { .. } => "×",
            Self::Added { .. } => "µs",
            Self::Resident { .. } | Self::Binary => "MiB",
            Self::PerConnection { .. } => "KiB",
            Self::Time { .. } => "ms",
            Self::Errors { .. } => "errors",
            Self::Late => "requests",
        }
    }
}

impl Goal {
    /// The scenario that it comes from.
    pub fn scenario(&self) -> Option<Name> {
        use clap::ValueEnum;
        let first = self.id.split(['.', '-']).next()?;
        Name::value_variants().iter().copied().find(|name| name.as_str() == first)
    }
}

const fn cpu(
    id: &'static str,
    title: &'static str,
    limit: f64,
    part: &'static str,
    of: &'static str,
    to: &'static [&'static str],
) -> Goal {
    Goal { id, title, target: Some(Target::AtMost(limit)), source: Source::Cpu { part, of, to } }
}

const fn at_most(id: &'static str, title: &'static str, limit: f64, source: Source) -> Goal {
    Goal { id, title, target: Some(Target::AtMost(limit)), source }
}

const fn told(id: &'static str, title: &'static str, source: Source) -> Goal {
    Goal { id, title, target: None, source }
}

const fn added(of: &'static str, quantile: f64) -> Source {
    Source::Added { part: "latency", of, quantile }
}

const fn errors(of: &'static str) -> Source {
    Source::Errors { part: "faults", of }
}

const fn resident(part: &'static str, of: &'static str) -> Source {
    Source::Resident { part, of }
}

/// All of them. What other subjects were measured beside, without a target, is added by
/// [`figures`](super::outcome::figures).
pub const GOALS: &[Goal] = &[
    cpu(
        "plain.cpu.forwarder",
        "HTTP/1.1, 64 B: CPU per request to the byte forwarder's",
        1.25,
        "plain",
        "outrigger",
        &["forwarder"],
    ),
    cpu(
        "plain.cpu.nginx",
        "HTTP/1.1, 64 B: CPU per request to nginx's",
        1.0,
        "plain",
        "outrigger",
        &["nginx"],
    ),
    cpu(
        "plain.cpu.haproxy",
        "HTTP/1.1, 64 B: CPU per request to HAProxy's",
        1.0,
        "plain",
        "outrigger",
        &["haproxy"],
    ),
    cpu(
        "plain-1k.cpu.forwarder",
        "HTTP/1.1, 1 KiB: CPU per request to the byte forwarder's",
        1.25,
        "plain-1k",
        "outrigger",
        &["forwarder"],
    ),
    cpu(
        "plain-1k.cpu.nginx",
        "HTTP/1.1, 1 KiB: CPU per request to nginx's",
        1.0,
        "plain-1k",
        "outrigger",
        &["nginx"],
    ),
    cpu(
        "plain-1k.cpu.haproxy",
        "HTTP/1.1, 1 KiB: CPU per request to HAProxy's",
        1.0,
        "plain-1k",
        "outrigger",
        &["haproxy"],
    ),
    cpu("http2.cpu.envoy", "HTTP/2: CPU per request to Envoy's", 0.5, "http2", "outrigger", &["envoy"]),
    cpu("grpc.cpu.envoy", "gRPC: CPU per request to Envoy's", 0.5, "grpc", "outrigger", &["envoy"]),
    cpu(
        "grpc.cpu.nginx",
        "gRPC: CPU per request to that of nginx's grpc_pass",
        1.0,
        "grpc",
        "outrigger",
        &["nginx"],
    ),
    cpu(
        "mesh.cpu.peers",
        "Two hops, mutual TLS: CPU per request to the lesser of nginx's and HAProxy's pairs",
        0.75,
        "mesh",
        "sidecars",
        &["nginx pair", "haproxy pair"],
    ),
    cpu(
        "mesh.cpu.envoy",
        "Two hops, mutual TLS: CPU per request to that of Envoy's pair",
        0.6,
        "mesh",
        "sidecars",
        &["envoy pair"],
    ),
    at_most("latency.one.p50", "One hop adds, at the median", 30.0, added("outrigger", 0.5)),
    at_most("latency.one.p99", "One hop adds, at the 99th percentile", 150.0, added("outrigger", 0.99)),
    at_most("latency.two.p50", "Two hops with mutual TLS add, at the median", 80.0, added("sidecars", 0.5)),
    at_most(
        "latency.two.p99",
        "Two hops with mutual TLS add, at the 99th percentile",
        300.0,
        added("sidecars", 0.99),
    ),
    at_most("memory.idle", "Resident memory, idle", 10.0, resident("memory-idle", "outrigger")),
    at_most(
        "memory.1000",
        "Resident memory with 1,000 connections at 1,000 requests a second",
        24.0,
        resident("memory-1000", "outrigger"),
    ),
    at_most(
        "memory.perconnection",
        "Resident memory of each of 10,000 idle connections",
        12.0,
        Source::PerConnection { part: "memory-10000", idle: "memory-idle", of: "outrigger" },
    ),
    told("memory.routes", "Resident memory with 10,000 routes", resident("memory-routes", "10,000 routes")),
    at_most(
        "start.first",
        "From start to the first answer",
        20.0,
        Source::Time { part: "start", of: "outrigger" },
    ),
    at_most("start.binary", "The binary, without symbols", 20.0, Source::Binary),
    at_most(
        "config.live",
        "10,000 routes and 10,000 endpoints go live after",
        50.0,
        Source::Time { part: "config", of: "live" },
    ),
    at_most("config.late", "Requests over 1 ms late because of that, for each time", 0.0, Source::Late),
    Goal {
        id: "workers.throughput",
        title: "Two workers answer, of what one does",
        target: Some(Target::AtLeast(1.8)),
        source: Source::Throughput { part: "workers", of: "2 workers", to: "1 worker" },
    },
    cpu(
        "workers.cpu",
        "Two workers' CPU per request to that of one",
        1.1,
        "workers",
        "2 workers",
        &["1 worker"],
    ),
    at_most("faults.routes", "Requests that fail while routes change", 0.0, errors("routes")),
    at_most("faults.endpoints", "Requests that fail while endpoints come and go", 0.0, errors("endpoints")),
    at_most(
        "faults.certificates",
        "Requests that fail while certificates rotate",
        0.0,
        errors("certificates"),
    ),
    at_most("faults.drain", "Requests that fail while the proxy is replaced", 0.0, errors("drain")),
    told(
        "features.access-log",
        "Access log: CPU per request to that without",
        Source::Cpu { part: "features", of: "access log", to: &["outrigger"] },
    ),
    told(
        "features.tracing",
        "Tracing: CPU per request to that without",
        Source::Cpu { part: "features", of: "tracing", to: &["outrigger"] },
    ),
    told(
        "features.routes.100",
        "100 routes: CPU per request to that with one",
        Source::Cpu { part: "features", of: "100 routes", to: &["outrigger"] },
    ),
    told(
        "features.routes.10000",
        "10,000 routes: CPU per request to that with one",
        Source::Cpu { part: "features", of: "10,000 routes", to: &["outrigger"] },
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Wanted, Work, parts};

    #[test]
    fn figures_come_from_parts_and_subjects_that_there_are() {
        let peers = ["nginx", "haproxy", "envoy"].map(ToOwned::to_owned).into();
        let wanted = Wanted { peers, ..Wanted::default() };
        let exists = |part: &str, who: &str| {
            let parts =
                wanted.scenarios.iter().chain([&Name::Features]).flat_map(|name| parts::of(*name, &wanted));
            let found = parts.into_iter().find(|known| known.name == part);
            match found.unwrap_or_else(|| panic!("no part {part}")).work {
                Work::Turns(turns) => turns.contenders.iter().any(|contender| contender.name == who),
                Work::Memory(memory) => memory.contenders.iter().any(|contender| contender.name == who),
                _ => true,
            }
        };
        for goal in GOALS {
            let pairs = match goal.source {
                Source::Cpu { part, of, to } => to.iter().map(|to| (part, *to)).chain([(part, of)]).collect(),
                Source::Throughput { part, of, to } => vec![(part, of), (part, to)],
                Source::PerConnection { part, idle, of } => vec![(part, of), (idle, of)],
                Source::Added { part, of, .. } => vec![(part, of), (part, "direct")],
                Source::Resident { part, of } | Source::Time { part, of } | Source::Errors { part, of } => {
                    vec![(part, of)]
                }
                Source::Binary | Source::Late => vec![],
            };
            for (part, who) in pairs {
                assert!(exists(part, who), "{}: no {who} in {part}", goal.id);
                assert!(part.starts_with(goal.scenario().unwrap().as_str()), "{}", goal.id);
            }
        }
    }

    #[test]
    fn ids_are_unique() {
        let mut ids: Vec<_> = GOALS.iter().map(|goal| goal.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), GOALS.len());
    }
}

//! What is measured, and in which order: scenarios, their plan, and the figures that come out.

mod ask;
pub mod book;
mod config;
mod faults;
pub mod figures;
mod memory;
pub mod order;
pub mod outcome;
pub mod parts;
pub mod plan;
pub mod progress;
pub mod run;
mod start;
mod turns;

use std::{fmt, net::SocketAddr, time::Duration};

use clap::ValueEnum;

use crate::{
    load::{Arrivals, Connect, Load, Tls, Traffic},
    subject::{Kind, Setup},
};

/// What can be asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum Name {
    /// CPU per request of plain HTTP/1.1, saturated
    Plain,
    /// CPU per request of HTTP/2, saturated
    Http2,
    /// CPU per request of unary gRPC, saturated
    Grpc,
    /// CPU per request of two proxies with mutual TLS between them, saturated
    Mesh,
    /// latency that one proxy and two sidecars add at a constant rate
    Latency,
    /// latency against load, up to the knee
    Curve,
    /// resident memory: idle, at work, with many connections, with many routes
    Memory,
    /// from start to first answer, and the size of the binary
    Start,
    /// how long a large configuration takes to go live, and which requests are late because of it
    Config,
    /// two workers beside one
    Workers,
    /// what access log, tracing and many routes cost
    Features,
    /// the other kinds of traffic: streams, WebSocket, TCP, large payloads, new connections, TLS
    Protocols,
    /// requests that fail while routes, endpoints, certificates or the proxy itself change
    Faults,
    /// the load and the subjects that the options describe
    Custom,
}

impl Name {
    /// As the command line has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Mesh => "mesh",
            Self::Latency => "latency",
            Self::Curve => "curve",
            Self::Memory => "memory",
            Self::Start => "start",
            Self::Config => "config",
            Self::Workers => "workers",
            Self::Features => "features",
            Self::Protocols => "protocols",
            Self::Faults => "faults",
            Self::Custom => "custom",
        }
    }

    /// Whether it is run when nothing is named: what figures with targets come from, and the curve.
    pub fn by_default(self) -> bool {
        !matches!(self, Self::Features | Self::Protocols | Self::Custom)
    }

    /// What it shows.
    pub fn about(self) -> String {
        let help = self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
        help.unwrap_or_default()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What somebody wants measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The scenarios, in this order.
    pub scenarios: Vec<Name>,
    /// The other proxies to compare with.
    pub peers: Vec<String>,
    /// Fewer and shorter samples.
    pub quick: bool,
    /// Length of a sample, where it is not to be as the scenario has it.
    pub duration: Option<Duration>,
    /// How often each subject is measured, likewise.
    pub repetitions: Option<u32>,
    /// What is to be different about the load.
    pub load: Overrides,
    /// What [`Name::Custom`] measures.
    pub subjects: Vec<Contestant>,
    /// Workers of each proxy.
    pub workers: u32,
    /// A proxy that runs already.
    pub through: Option<SocketAddr>,
    /// The cores that this program may use.
    pub cores: usize,
    /// Whether the application is one that the user has named.
    pub foreign: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            scenarios: Name::value_variants().iter().copied().filter(|name| name.by_default()).collect(),
            peers: Vec::new(),
            quick: false,
            duration: None,
            repetitions: None,
            load: Overrides::default(),
            subjects: Vec::new(),
            workers: 1,
            through: None,
            cores: 2,
            foreign: false,
        }
    }
}

/// What [`Name::Custom`] can measure, besides the peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Contestant {
    /// nothing between callers and application
    Direct,
    /// a process that copies bytes
    Forwarder,
    /// one proxy
    #[value(alias = "proxy")]
    Outrigger,
    /// two proxies with mutual TLS between them
    Sidecars,
}

/// What is to be different about a load.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Overrides {
    /// What is spoken.
    pub traffic: Option<Traffic>,
    /// Requests in a second.
    pub rate: Option<f64>,
    /// How they come.
    pub arrivals: Option<Pattern>,
    /// Connections.
    pub connections: Option<u32>,
    /// Requests at a time on each.
    pub streams: Option<u32>,
    /// Bytes of each request's content.
    pub request_bytes: Option<usize>,
    /// Bytes of each response's content.
    pub response_bytes: Option<usize>,
    /// Which connection a request is sent on.
    pub connect: Option<Connect>,
    /// TLS between callers and what they speak to.
    pub tls: Option<Tls>,
}

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pattern {
    /// independently of each other
    Poisson,
    /// at equal distances
    Fixed,
    /// each when the last on its connection has its answer
    Saturated,
}

impl Overrides {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The load with what is to be different. Naming a rate for a load that had none makes its arrivals Poisson.
    pub fn apply(&self, mut load: Load) -> Load {
        let rate = match load.arrivals {
            Arrivals::Poisson { rate } | Arrivals::Fixed { rate } => Some(rate),
            Arrivals::Saturated => None,
        };
        let pattern = self.arrivals.or(match (load.arrivals, self.rate) {
            (Arrivals::Fixed { .. }, _) => Some(Pattern::Fixed),
            (Arrivals::Saturated, None) => Some(Pattern::Saturated),
            _ => Some(Pattern::Poisson),
        });
        let rate = self.rate.or(rate).unwrap_or(parts::RATE);
        load.arrivals = match pattern {
            Some(Pattern::Saturated) => Arrivals::Saturated,
            Some(Pattern::Fixed) => Arrivals::Fixed { rate },
            _ => Arrivals::Poisson { rate },
        };
        if let Some(traffic) = self.traffic {
            load.traffic = traffic;
            if !matches!(traffic, Traffic::Http2 | Traffic::Grpc | Traffic::GrpcStream) {
                load.streams = 1;
            }
        }
        load.connections = self.connections.unwrap_or(load.connections);
        load.streams = self.streams.unwrap_or(load.streams);
        load.request_bytes = self.request_bytes.unwrap_or(load.request_bytes);
        load.response_bytes = self.response_bytes.unwrap_or(load.response_bytes);
        load.connect = self.connect.unwrap_or(load.connect);
        load.tls = self.tls.unwrap_or(load.tls);
        load
    }
}

/// Some work, all of whose results stand together.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The scenario that it belongs to.
    pub scenario: Name,
    /// Its own name: the scenario's, or that with something after a `-`.
    pub name: String,
    /// What it shows, in a sentence.
    pub title: String,
    /// What is done.
    pub work: Work,
}

/// What is done.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Some subjects under the same loads, in turn.
    Turns(Turns),
    /// Some subjects, each started by itself: idle, and with connections on which nothing is sent.
    Memory(Memory),
    /// Some subjects, each started again and again.
    Start {
        /// Who.
        contenders: Vec<Contender>,
        /// How often.
        times: u32,
    },
    /// A large configuration under load.
    Config(Config),
    /// Changes under load.
    Faults {
        /// How long each is looked at.
        time: Duration,
    },
}

/// Some subjects under the same loads, in turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Turns {
    /// The loads. More than one is a sweep, which a subject leaves at the first that it cannot take.
    pub loads: Vec<Load>,
    /// Who.
    pub contenders: Vec<Contender>,
    /// How long, how often.
    pub timing: Timing,
}

/// How long and how often each subject is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Before each sample: the same load, which is not counted.
    pub warm_up: Duration,
    /// A sample.
    pub sample: Duration,
    /// Whether each repetition goes there and back, so that each subject has two samples in it.
    pub back: bool,
    /// How often all of it is done. The statistics speak of these.
    pub repetitions: u32,
}

/// Resident memory of subjects.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    /// Who.
    pub contenders: Vec<Contender>,
    /// Connections that are held, each after one request; 0: none, and none is made.
    pub connections: u32,
    /// How often each is started.
    pub times: u32,
}

/// A large configuration under load.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Routes that come, and as many backends with an endpoint each.
    pub routes: u32,
    /// The load meanwhile.
    pub load: Load,
    /// How often.
    pub times: u32,
    /// How long each time is looked at.
    pub window: Duration,
}

/// A subject by the name that it has in its part.
#[derive(Debug, Clone, PartialEq)]
pub struct Contender {
    /// Unique within the part: `direct`, `outrigger`, `outrigger (again)`, `sidecars`, `nginx`, `nginx pair`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// How it is started.
    pub setup: Setup,
    /// Where it is, if it runs already.
    pub at: Option<SocketAddr>,
}

/// What stands behind the name of a subject that is measured a second time, to see what is noise.
pub const AGAIN: &str = " (again)";

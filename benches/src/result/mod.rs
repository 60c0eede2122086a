//! What was measured, as the JSON file has it, and what follows from it. Times are microseconds unless a name says otherwise.

use serde::{Deserialize, Serialize};

mod figure;
mod file;
mod log;
mod series;
pub mod stats;

pub use file::{RESULTS, Saved};
pub use log::{Interval, Log};
pub use series::Series;

use crate::load::Load;
use crate::subject::{Kind, Setup};

/// The version of this schema; it grows when a field changes its meaning or goes.
pub const SCHEMA: u32 = 2;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When it began, in RFC 3339.
    pub began: String,
    /// How long it took in seconds.
    pub seconds: f64,
    /// Whether it was ended before all was measured.
    pub interrupted: bool,
    /// The command line.
    pub command: Vec<String>,
    /// Where it ran.
    pub host: Host,
    /// What was measured, scenario by scenario.
    pub scenarios: Vec<Scenario>,
    /// What follows: each figure, with its target where there is one.
    pub figures: Vec<Figure>,
    /// What was not measured, and why: peers that are missing, scenarios that this machine cannot run.
    pub skipped: Vec<Skipped>,
}

/// Where it ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// Outrigger's version.
    pub version: String,
    /// The commit it was built from, where that is known.
    pub commit: Option<String>,
    /// Whether this program was built with optimisation.
    pub optimised: bool,
    /// The kernel's release.
    pub kernel: Option<String>,
    /// The processor's name.
    pub processor: Option<String>,
    /// How many cores this program may use.
    pub cores: usize,
    /// The cores of the proxies and of the load; absent where there is only one, or they are not pinned.
    pub pinned: Option<Pinned>,
    /// The frequency governor of the proxies' core.
    pub governor: Option<String>,
    /// The hypervisor, if it is seen.
    pub hypervisor: Option<String>,
    /// What the kernel does against the processor's weaknesses: name and state.
    pub mitigations: Vec<(String, String)>,
    /// Memory in MiB.
    pub memory_mib: u64,
}

/// Who ran on which cores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pinned {
    /// The proxies'.
    pub proxies: Vec<usize>,
    /// The load's and the application's.
    pub load: Vec<usize>,
}

/// Some subjects under the same load, measured in turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scenario {
    /// Its name on the command line.
    pub name: String,
    /// What it shows, in a sentence.
    pub title: String,
    /// The load; in a sweep, of its first step.
    pub load: Option<Load>,
    /// The subjects.
    pub subjects: Vec<SubjectResult>,
}

/// One subject in one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubjectResult {
    /// How the report calls it: `direct`, `forwarder`, `outrigger`, `outrigger (again)` of an A/A run, `nginx`; within a scenario
    /// the names are unique.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// How it was started; absent where the scenario has no proxy.
    pub setup: Option<Setup>,
    /// What it says that it is.
    pub version: String,
    /// The files it was started from: name and text.
    pub configuration: Vec<(String, String)>,
    /// What was seen, sample by sample, in the order of time.
    pub samples: Vec<Sample>,
    /// Of all samples that count, merged; `None` where no latency was measured, and in a sweep, where it would mix rates.
    pub latency: Option<Quantiles>,
    /// In a sweep, rate by rate from the lowest; empty otherwise.
    pub steps: Vec<Step>,
    /// The raw histograms in the run's folder: one HdrHistogram log per subject, an interval per sample.
    pub log: Option<String>,
}

/// One rate of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Requests in a second that were asked for.
    pub asked_rate: f64,
    /// Those that were answered: the mean of the samples that `latency` is of.
    pub rate: f64,
    /// Of all its samples that count, merged; if none does, of all.
    pub latency: Option<Quantiles>,
    /// Why none of its samples counts, if so: it lies beyond the knee.
    pub rejected: Option<String>,
}

/// One load on one subject for some seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Which repetition of the scenario it belongs to, from 0.
    pub repetition: u32,
    /// When it began, in seconds since the run did.
    pub at: f64,
    /// How long it took in seconds.
    pub seconds: f64,
    /// Requests in a second that were asked for; absent where it was saturated.
    pub asked_rate: Option<f64>,
    /// Requests in a second that were answered.
    pub rate: f64,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that were not.
    pub errors: u64,
    /// What went wrong first.
    pub first_error: Option<String>,
    /// How long answers took.
    pub latency: Option<Quantiles>,
    /// How late the generator was.
    pub lag: Option<Quantiles>,
    /// What the subject's processes spent; absent where there are none.
    pub spent: Option<Spent>,
    /// Resident memory of its processes at the sample's end in KiB.
    pub resident_kib: Option<u64>,
    /// Why it does not count, if it does not.
    pub rejected: Option<String>,
}

/// Latency in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quantiles {
    /// Half took no longer.
    pub p50: f64,
    /// 9 of 10.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// All.
    pub max: f64,
}

/// What processes spent for each answered request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spent {
    /// CPU time in microseconds.
    pub cpu: f64,
    /// The part of it in user space.
    pub user: f64,
    /// The part of it in the kernel.
    pub system: f64,
    /// How often it went to sleep.
    pub voluntary_switches: f64,
    /// How often it was made to wait for others.
    pub involuntary_switches: f64,
    /// System calls; absent where the kernel does not let this program count them.
    pub syscalls: Option<f64>,
}

/// One number that the run is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    /// Unique and stable: what `compare` goes by (`plain.cpu.nginx`).
    pub id: String,
    /// What it says, in words.
    pub title: String,
    /// `×`, `µs`, `MiB`, `KiB`, `ms`, `%`, `errors`.
    pub unit: String,
    /// The number; absent where it could not be measured.
    pub value: Option<f64>,
    /// The 95% interval of confidence over the repetitions (percentile bootstrap, see [`stats`]); absent with fewer than
    /// three of them.
    pub interval: Option<(f64, f64)>,
    /// The same figure where both sides are the same subject (A/A): what lies within it is noise.
    pub noise: Option<(f64, f64)>,
    /// What it is to be.
    pub target: Option<Target>,
    /// Whether it is.
    pub verdict: Verdict,
    /// Where it comes from: which samples, and how they were put together.
    pub basis: String,
}

/// What a figure is to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Target {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

/// Whether a figure is what it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    Missed,
    /// It could not be measured here.
    Unknown,
    /// It has no target.
    Informative,
}

/// Something that was not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Skipped {
    /// What.
    pub what: String,
    /// Why, and what to do to have it.
    pub why: String,
}

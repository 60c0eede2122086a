//! What a page says, before it is known whether Markdown or HTML says it.

use std::collections::BTreeMap;

use super::{
    plot::{self, Colours, Plot},
    table::{Cell, NOTHING, Table, Tone},
    tables,
    words::{self, count, tally},
};
use crate::result::{Run, Saved};

/// A piece of a page.
#[derive(Debug)]
pub(super) enum Block {
    Heading(String),
    Text(String),
    /// What must not be overlooked.
    Warning(String),
    List(Vec<String>),
    Table(Table),
    /// The figures; beside each, where there is room for pictures, its picture.
    Figures(Table, Vec<Option<String>>),
    Plots(Vec<Plot>),
    /// Shown when asked for.
    Details(String, Vec<Block>),
    /// A file, as it is.
    Code(String),
}

pub(super) const TITLE: &str = "What it costs";

const METHOD: [&str; 5] = [
    "Callers, the application and what stands between them run on one machine and speak over loopback, unless an address \
     was named. All proxies are started alike, with the same number of workers, pinned to the same cores; callers and \
     application have cores of their own, where there are enough.",
    "At a given rate, requests are sent when they are due, whether or not earlier answers have come (an open loop), and \
     latency counts from when a request was due until its whole answer was there: a stall shows in every request that it \
     delayed. How late the generator itself was is recorded beside it. A sample is rejected, and does not count, if requests \
     failed, if its rate missed the asked one by more than 1%, or if more than half of the latency, at the median or at the \
     99th percentile, was the generator's own.",
    "The subjects of a scenario are measured in turn, there and back again (A B B A), several times over; what drifts on \
     the machine drifts under all of them. Two subjects are compared within each repetition, and a ratio, a difference or a \
     level is the median over the repetitions. Latency comes from the histograms of all repetitions merged; percentiles are \
     never averaged.",
    "The 95% interval is a percentile bootstrap over the repetitions, widened for few of them (Hesterberg 2015). It cannot \
     reach beyond what was seen: with three repetitions it holds the truth three times out of four, with four seven times out \
     of eight, and six are needed for 95%. The noise is the same figure of a subject against itself (A/A): a difference within \
     it is none.",
    "CPU time is that of all processes of a subject, divided by the requests that were answered. The raw histograms lie \
     beside this page, one HdrHistogram log for each subject and scenario, with an interval for each sample.",
];

const NOT_CLAIMED: [&str; 6] = [
    "Nothing about a network: loopback has no distance, no loss and no card; what is said of latency is what the subjects add.",
    "Nothing about other machines: ratios within one run carry over better than absolute numbers, which belong to this machine \
     and this hour; on a virtual machine, neighbours show in them too.",
    "Nothing about other traffic: requests are of one size, callers and application do nothing else.",
    "Nothing about what callers would see of a subject that is saturated; only CPU per request and throughput are read there.",
    "Nothing about the best that a peer could do: its configuration is below, written as its documentation advises for speed; \
     whoever knows better may change it and run this again.",
    "An interval speaks of this run: the same processes, measured again and again. How much two processes of one program \
     differ is what the noise shows.",
];

/// The page of a run.
pub(super) fn document(saved: &Saved) -> Vec<Block> {
    let run = &saved.run;
    let mut blocks = opening(run);
    if !run.figures.is_empty() {
        let pictures = run.figures.iter().map(plot::beside_target).collect();
        blocks.push(Block::Heading("Figures".into()));
        blocks.push(Block::Figures(tables::figures(&run.figures), pictures));
        blocks.push(Block::Text(
            "A question mark: the interval reaches over the target. Noise: the same figure of a subject against itself.".into(),
        ));
        blocks.push(Block::Details("Where each figure comes from".into(), vec![Block::Table(bases(run))]));
    }
    let colours = Colours::of(&run.scenarios);
    for scenario in &run.scenarios {
        blocks.push(Block::Heading(format!("{}: {}", scenario.name, scenario.title)));
        blocks.extend(words::scenario(scenario).map(Block::Text));
        let table = Block::Table(tables::subjects(scenario));
        let plots = Block::Plots(plot::of_scenario(saved, scenario, &colours));
        let sweep = scenario.subjects.iter().any(|subject| !subject.steps.is_empty());
        // The plot of a sweep says at once what its table says in many rows.
        blocks.extend(if sweep {
            [plots, Block::Details("Step by step".into(), vec![table])]
        } else {
            [table, plots]
        });
    }
    for (title, list) in
        [("What does not count, or failed", tables::troubles(run)), ("Not measured", tables::missing(run))]
    {
        if !list.is_empty() {
            blocks.push(Block::Heading(title.into()));
            blocks.push(Block::List(list));
        }
    }
    blocks.push(Block::Heading("Method".into()));
    blocks.extend(METHOD.map(|text| Block::Text(text.into())));
    blocks.push(Block::Heading("What is not claimed".into()));
    blocks.push(Block::List(NOT_CLAIMED.map(str::to_owned).into()));
    blocks.push(Block::Heading("The machine".into()));
    blocks.push(Block::Table(host(run)));
    blocks.push(Block::Heading("Versions and configurations".into()));
    blocks.extend(configurations(run));
    blocks
}

fn opening(run: &Run) -> Vec<Block> {
    let host = &run.host;
    let processor = host.processor.as_deref().unwrap_or("an unknown processor");
    let cores = if host.cores == 1 { "1 core".into() } else { format!("{} cores", host.cores) };
    let kernel = host.kernel.as_ref().map_or("Linux".into(), |release| format!("Linux {release}"));
    let (version, began, took) = (&host.version, &run.began, minutes(run.seconds));
    let text = format!("Outrigger {version} on {processor}, {cores}, {kernel}; began {began}, took {took}.");
    let mut blocks = vec![Block::Text(text)];
    if !run.figures.is_empty() {
        blocks.push(Block::Text(format!("{}.", tally(run))));
    }
    if run.interrupted {
        blocks.push(Block::Warning("Interrupted: this is what was measured until then.".into()));
    }
    if !host.optimised {
        blocks.push(Block::Warning("Built without optimisation: the figures mean little.".into()));
    }
    if host.pinned.is_none() {
        blocks.push(Block::Warning(
            "Proxies and load were not pinned to cores of their own: they took each other's time.".into(),
        ));
    }
    blocks
}

fn minutes(seconds: f64) -> String {
    let seconds = seconds.round().max(0.0);
    format!("{} min {:02} s", (seconds / 60.0).floor(), seconds % 60.0)
}

fn bases(run: &Run) -> Table {
    let mut table = Table::new(&["<", "<figure", "<where it comes from"]);
    let rows = run.figures.iter().map(|figure| {
        vec![Cell::of(&figure.id, Tone::Faint), figure.title.clone().into(), figure.basis.clone().into()]
    });
    table.rows.extend(rows);
    table
}

fn host(run: &Run) -> Table {
    let host = &run.host;
    let cores = |cores: &[usize]| cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    let commit = host.commit.as_ref().map_or(String::new(), |commit| format!(" at commit {commit}"));
    let built = if host.optimised { "" } else { ", built without optimisation" };
    let pinned = host.pinned.as_ref().map_or("nothing is pinned".into(), |pinned| {
        format!("proxies on {}, load and application on {}", cores(&pinned.proxies), cores(&pinned.load))
    });
    let mitigations: Vec<String> =
        host.mitigations.iter().map(|(name, state)| format!("{name}: {state}")).collect();
    let or_unknown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
    let rows = [
        ("Outrigger", format!("{}{commit}{built}", host.version)),
        ("command", run.command.join(" ")),
        ("began", run.began.clone()),
        ("took", minutes(run.seconds)),
        ("kernel", or_unknown(&host.kernel)),
        ("processor", or_unknown(&host.processor)),
        ("cores", format!("{}; {pinned}", host.cores)),
        ("governor", or_unknown(&host.governor)),
        ("hypervisor", host.hypervisor.clone().unwrap_or_else(|| "none seen".into())),
        ("memory", format!("{} MiB", count(host.memory_mib))),
        ("mitigations", if mitigations.is_empty() { NOTHING.into() } else { mitigations.join("; ") }),
    ];
    let mut table = Table::new(&["<", "<"]);
    table.rows.extend(rows.map(|(name, value)| vec![Cell::of(name, Tone::Faint), value.into()]));
    table
}

/// Each subject's version and files once, with the scenarios that it was started for so.
fn configurations(run: &Run) -> Vec<Block> {
    let mut started = BTreeMap::<_, Vec<&str>>::new();
    for scenario in &run.scenarios {
        for subject in &scenario.subjects {
            let key = (&subject.name, &subject.version, &subject.configuration);
            started.entry(key).or_default().push(&scenario.name);
        }
    }
    let details = started.into_iter().map(|((name, version, files), scenarios)| {
        let mut blocks = Vec::new();
        for (file, text) in files {
            blocks.push(Block::Text(file.clone()));
            blocks.push(Block::Code(text.clone()));
        }
        if blocks.is_empty() {
            blocks.push(Block::Text("Started without any file.".into()));
        }
        let version = if version.is_empty() { String::new() } else { format!(", {version}") };
        Block::Details(format!("{name}{version} ({})", scenarios.join(", ")), blocks)
    });
    details.collect()
}

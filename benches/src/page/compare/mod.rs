//! `outrigger-bench compare`: what changed between two runs.
//!
//! Two runs are less alike than two subjects in one run: the processes are others, and so is the hour. Figures that are ratios
//! within a run have most of that taken out; absolute ones are only comparable on one machine. So whatever differs between
//! the runs beside Outrigger is said first.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::{Look, say, tables, words};
use crate::{
    load::Arrivals,
    result::{Figure, Run, Sample, Saved, Scenario, SubjectResult, Target, stats, stats::Estimate},
};

mod text;

/// What `outrigger-bench compare` takes.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// The folder or results.json of the earlier run.
    #[arg(value_name = "A.json")]
    pub a: PathBuf,
    /// That of the later one.
    #[arg(value_name = "B.json")]
    pub b: PathBuf,
    /// Prints the comparison as JSON.
    #[arg(long)]
    pub json: bool,
    /// Exits with 1 if a figure got worse by more than that, and by more than noise.
    #[arg(long, value_name = "5%", value_parser = percent)]
    pub fail_above: Option<f64>,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim().parse::<f64>() {
        Ok(percent) if percent >= 0.0 && percent.is_finite() => Ok(percent),
        _ => Err("not a percentage from 0, like 5%".into()),
    }
}

/// Two runs beside each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Comparison {
    a: Side,
    b: Side,
    /// What differs between the machines.
    machines: Vec<Difference>,
    /// Figures that at least one run has.
    figures: Vec<Change>,
    /// Scenarios that both have.
    scenarios: Vec<Compared>,
    /// Scenarios and subjects that only one has.
    unmatched: Vec<String>,
}

/// One of the runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Side {
    file: String,
    began: String,
    version: String,
    commit: Option<String>,
}

/// Something that is not alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    what: String,
    a: String,
    b: String,
}

/// One scenario in both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Compared {
    name: String,
    title: String,
    /// What differs in how it was measured.
    differences: Vec<Difference>,
    changes: Vec<Change>,
}

/// One number in both runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    /// A figure's id, or a subject and what is measured of it.
    id: String,
    title: String,
    unit: String,
    a: Option<f64>,
    b: Option<f64>,
    /// `b` less `a`.
    by: Option<f64>,
    /// Its 95% interval, from those of both runs.
    interval: Option<(f64, f64)>,
    /// The change in percent of `a`; absent where that is 0.
    percent: Option<f64>,
    outcome: Outcome,
}

/// What a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Outcome {
    Better,
    Worse,
    /// Its interval has 0 in it, or the A/A run of either side differs from itself by as much.
    WithinNoise,
    /// It is better, but how surely is not known.
    BetterUnjudged,
    /// It is worse, but how surely is not known.
    WorseUnjudged,
    /// The same number.
    Same,
    /// B should have it as A has, but could not measure it.
    Lost,
    /// Not both runs have it.
    Missing,
}

/// Compares two runs, and prints what changed; false if `--fail-above` is exceeded.
///
/// # Errors
///
/// If a run cannot be read.
pub fn compare(args: &CompareArgs) -> Result<bool> {
    let (a, b) = (Saved::read(&args.a)?, Saved::read(&args.b)?);
    let comparison = Comparison::of(&a, &b);
    if comparison.figures.is_empty() && comparison.scenarios.is_empty() {
        bail!("the two runs have no scenario and no figure in common: run the same scenarios twice");
    }
    say(&if args.json {
        serde_json::to_string_pretty(&comparison)? + "\n"
    } else {
        text::text(&comparison, Look::of_stdout())
    })?;
    let Some(limit) = args.fail_above else { return Ok(true) };
    let exceeded = comparison.exceeding(limit);
    for change in &exceeded {
        let what = if change.outcome == Outcome::Lost { "could not be measured" } else { "is worse" };
        eprintln!("outrigger-bench: {} {what}, the limit is {limit}%", change.id);
    }
    Ok(exceeded.is_empty())
}

impl Comparison {
    pub(super) fn of(a: &Saved, b: &Saved) -> Self {
        let figure = |run: &Run, id: &str| run.figures.iter().find(|figure| figure.id == id).cloned();
        let both = a.run.figures.iter().chain(&b.run.figures).map(|figure| &figure.id);
        let mut ids: Vec<&String> = Vec::new();
        both.for_each(|id| {
            if !ids.contains(&id) {
                ids.push(id);
            }
        });
        let figures =
            ids.into_iter().filter_map(|id| Change::of_figures(figure(&a.run, id), figure(&b.run, id)));
        let mut unmatched = Vec::new();
        let mut scenarios = Vec::new();
        for scenario in &a.run.scenarios {
            match b.run.scenarios.iter().find(|other| other.name == scenario.name) {
                Some(other) => scenarios.push(Compared::of((a, scenario), (b, other), &mut unmatched)),
                None => unmatched.push(format!("{} (only in A)", scenario.name)),
            }
        }
        let only_b =
            b.run.scenarios.iter().filter(|other| a.run.scenarios.iter().all(|it| it.name != other.name));
        unmatched.extend(only_b.map(|scenario| format!("{} (only in B)", scenario.name)));
        Self {
            a: Side::of(a),
            b: Side::of(b),
            machines: machines(&a.run, &b.run),
            figures: figures.collect(),
            scenarios,
            unmatched,
        }
    }

    /// The figures that got worse by more than `limit` percent and more than noise, and those of which nobody knows because B
    /// could not measure them.
    fn exceeding(&self, limit: f64) -> Vec<&Change> {
        let exceeds = |change: &&Change| match change.outcome {
            Outcome::Worse | Outcome::WorseUnjudged => {
                change.percent.is_none_or(|percent| percent.abs() > limit)
            }
            _ => false,
        };
        self.figures.iter().filter(exceeds).collect()
    }
}

impl Side {
    fn of(saved: &Saved) -> Self {
        Self {
            file: saved.path.display().to_string(),
            began: saved.run.began.clone(),
            version: saved.run.host.version.clone(),
            commit: saved.run.host.commit.clone(),
        }
    }
}

impl Change {
    fn of_figures(a: Option<Figure>, b: Option<Figure>) -> Option<Self> {
        let estimate = |figure: &Figure| {
            Some(Estimate { value: figure.value?, interval: figure.interval, repetitions: 0 })
        };
        let either = b.as_ref().or(a.as_ref())?;
        let higher_is_better = matches!(either.target, Some(Target::AtLeast(_)));
        let (id, title, unit) = (either.id.clone(), either.title.clone(), either.unit.clone());
        // How far the A/A runs stray from what they should be; of a ratio, relative to it.
        let stray = |figure: &Figure| {
            let (low, high) = figure.noise?;
            let factor = if figure.neutral() == 0.0 { 1.0 } else { figure.value? };
            Some((low - figure.neutral()).abs().max((high - figure.neutral()).abs()) * factor)
        };
        let noise = [&a, &b].into_iter().flatten().filter_map(stray).reduce(f64::max);
        let in_both = a.is_some() && b.is_some();
        let (a, b) = (a.as_ref().and_then(estimate), b.as_ref().and_then(estimate));
        let change = Self::of(id, title, unit, (a, b), noise, higher_is_better);
        let lost = in_both && a.is_some() && b.is_none();
        Some(if lost { Self { outcome: Outcome::Lost, ..change } } else { change })
    }

    fn of(
        id: String,
        title: String,
        unit: String,
        (a, b): (Option<Estimate>, Option<Estimate>),
        noise: Option<f64>,
        higher_is_better: bool,
    ) -> Self {
        let change = a.zip(b).map(|(a, b)| b.minus(a));
        let percent = a.zip(change).filter(|(a, _)| a.value != 0.0);
        let percent = percent.map(|(a, change)| 100.0 * change.value / a.value.abs());
        let outcome = change.map_or(Outcome::Missing, |change| outcome(change, noise, higher_is_better));
        Self {
            id,
            title,
            unit,
            a: a.map(|a| a.value),
            b: b.map(|b| b.value),
            by: change.map(|change| change.value),
            interval: change.and_then(|change| change.interval),
            percent,
            outcome,
        }
    }
}

fn outcome(change: Estimate, noise: Option<f64>, higher_is_better: bool) -> Outcome {
    let within = change.interval.is_some_and(|(low, high)| low <= 0.0 && 0.0 <= high);
    let better = (change.value > 0.0) == higher_is_better;
    match (change.value, better) {
        (0.0, _) => Outcome::Same,
        (value, _) if within || noise.is_some_and(|noise| value.abs() <= noise) => Outcome::WithinNoise,
        (_, true) if change.interval.is_none() && noise.is_none() => Outcome::BetterUnjudged,
        (_, false) if change.interval.is_none() && noise.is_none() => Outcome::WorseUnjudged,
        (_, true) => Outcome::Better,
        (_, false) => Outcome::Worse,
    }
}

/// What differs between the machines, but for what was built there.
fn machines(a: &Run, b: &Run) -> Vec<Difference> {
    let fields = |run: &Run| match serde_json::to_value(&run.host) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let (a, b) = (fields(a), fields(b));
    let shown = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "unknown".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    let expected = |name: &str| ["version", "commit"].contains(&name);
    let different = a.iter().filter(|(name, value)| !expected(name) && b.get(*name) != Some(value));
    different
        .map(|(what, value)| Difference { what: what.clone(), a: shown(Some(value)), b: shown(b.get(what)) })
        .collect()
}

impl Compared {
    fn of(
        (a, in_a): (&Saved, &Scenario),
        (b, in_b): (&Saved, &Scenario),
        unmatched: &mut Vec<String>,
    ) -> Self {
        let mut differences = Vec::new();
        if in_a.load != in_b.load {
            let words = |scenario: &Scenario| scenario.load.as_ref().map_or("none".into(), words::load);
            differences.push(Difference { what: "load".into(), a: words(in_a), b: words(in_b) });
        }
        let mut changes = Vec::new();
        for subject in &in_a.subjects {
            let Some(other) = in_b.subjects.iter().find(|other| other.name == subject.name) else {
                unmatched.push(format!("{}, {} (only in A)", in_a.name, subject.name));
                continue;
            };
            differences.extend(subject_differences(subject, other));
            changes.extend(subject_changes(in_a, (a, subject), (b, other)));
        }
        let only_b =
            in_b.subjects.iter().filter(|other| in_a.subjects.iter().all(|it| it.name != other.name));
        unmatched.extend(only_b.map(|subject| format!("{}, {} (only in B)", in_b.name, subject.name)));
        Self { name: in_a.name.clone(), title: in_a.title.clone(), differences, changes }
    }
}

/// How a subject was started otherwise.
fn subject_differences(a: &SubjectResult, b: &SubjectResult) -> Vec<Difference> {
    let mut differences = Vec::new();
    let outrigger = a.kind == crate::subject::Kind::Outrigger;
    if a.version != b.version && !outrigger {
        let what = format!("version of {}", a.name);
        differences.push(Difference { what, a: a.version.clone(), b: b.version.clone() });
    }
    if a.setup != b.setup {
        let json = |subject: &SubjectResult| serde_json::to_string(&subject.setup).unwrap_or_default();
        differences.push(Difference { what: format!("setup of {}", a.name), a: json(a), b: json(b) });
    }
    for (file, text) in &a.configuration {
        let other = b.configuration.iter().find(|(other, _)| other == file);
        let Some((_, other)) = other else { continue };
        let lines = |text: &str| text.lines().map(without_places).collect::<Vec<_>>();
        let (text, other) = (lines(text), lines(other));
        if text != other {
            let first = text.iter().zip(&other).find(|(a, b)| a != b);
            let (a_line, b_line) = first.map_or(("…", "…"), |(a, b)| (a.trim(), b.trim()));
            let what = format!("{file} of {}", a.name);
            differences.push(Difference { what, a: a_line.into(), b: b_line.into() });
        }
    }
    differences
}

/// A line without what is different each time: ports and folders.
fn without_places(line: &str) -> String {
    let mut kept = String::new();
    let word = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    for part in line.split_inclusive(|c| !word(c)) {
        let (name, end) = part.split_at(part.trim_end_matches(|c| !word(c)).len());
        let port = name.len() >= 4 && name.bytes().all(|byte| byte.is_ascii_digit());
        kept.push_str(if port { "#" } else { name.rsplit('/').next().unwrap_or(name) });
        kept.push_str(end);
    }
    kept
}

/// What is measured of a subject, in both runs.
fn subject_changes(
    scenario: &Scenario,
    a: (&Saved, &SubjectResult),
    b: (&Saved, &SubjectResult),
) -> Vec<Change> {
    let unit = words::unit_of_work(scenario.load.as_ref());
    let saturated = scenario.load.as_ref().is_some_and(|load| load.arrivals == Arrivals::Saturated);
    let change =
        |what: &str, unit: &str, values: (Option<Estimate>, Option<Estimate>), higher_is_better: bool| {
            let name = &a.1.name;
            let (id, title) = (format!("{}.{name}.{what}", scenario.name), format!("{name}: {what}"));
            (values.0.is_some() || values.1.is_some())
                .then(|| Change::of(id, title, unit.into(), values, None, higher_is_better))
        };
    let level = |value: fn(&Sample) -> Option<f64>| (stats::level(a.1, value), stats::level(b.1, value));
    let knee = |subject: &SubjectResult| {
        let reached = subject.steps.iter().filter(|step| step.rejected.is_none()).map(|step| step.asked_rate);
        reached.reduce(f64::max).map(|value| Estimate { value, interval: None, repetitions: 0 })
    };
    let rate =
        if saturated { level(|sample| (sample.answered > 0).then_some(sample.rate)) } else { (None, None) };
    let sweep = !a.1.steps.is_empty() || saturated;
    let latency = |quantile| if sweep { (None, None) } else { (latency(a, quantile), latency(b, quantile)) };
    [
        change("throughput", &format!("{unit}/s"), rate, true),
        change("knee", &format!("{unit}/s"), (knee(a.1), knee(b.1)), true),
        change("p50", "µs", latency(0.5), false),
        change("p99", "µs", latency(0.99), false),
        change("CPU", &format!("µs/{unit}"), level(|sample| Some(sample.spent?.cpu)), false),
        change("time", "ms", level(tables::took), false),
        change("memory", "MiB", level(|sample| Some(sample.resident_kib? as f64 / 1024.0)), false),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// From the raw histograms, with an interval; without them, from the JSON file.
fn latency((saved, subject): (&Saved, &SubjectResult), quantile: f64) -> Option<Estimate> {
    if let Ok(Some(log)) = saved.log(subject) {
        return stats::latency(subject, &log, quantile);
    }
    let latency = subject.latency?;
    let value = if quantile > 0.5 { latency.p99 } else { latency.p50 };
    Some(Estimate { value, interval: None, repetitions: 0 })
}

#[cfg(test)]
mod tests;

//! The tables of a run.

use super::{
    table::{Cell, Table, Tone},
    words::{count, interval, maybe, number, target, unit_of_work, verdict, with_unit},
};
use crate::{
    load::Arrivals,
    result::{Figure, Quantiles, Run, Sample, Scenario, Spent, Step, SubjectResult, stats},
};

/// Every figure with its value, interval, noise, target, and whether it is met.
pub(super) fn figures(figures: &[Figure]) -> Table {
    let mut table = Table::new(&["<figure", "value", "95% interval", "noise (A/A)", "target", "<"]);
    table.rows.extend(figures.iter().map(|figure| {
        vec![
            figure.title.clone().into(),
            maybe(figure.value, |value| with_unit(value, &figure.unit)),
            maybe(figure.interval, |range| interval(range, &figure.unit)),
            maybe(figure.noise, |range| interval(range, &figure.unit)),
            target(figure),
            verdict(figure),
        ]
    }));
    table
}

/// The subjects of a scenario, in a sweep at each rate.
pub(super) fn subjects(scenario: &Scenario) -> Table {
    let unit = unit_of_work(scenario.load.as_ref());
    let (rate, cpu) = (format!("{unit}/s"), format!("CPU µs/{unit}"));
    let (switches, syscalls) = (format!("switches/{unit}"), format!("syscalls/{unit}"));
    let mut table = Table::new(&[
        "<", "asked/s", &rate, "failed", "p50 µs", "p90", "p99", "p99.9", "max", &cpu, "user", "system",
        &switches, &syscalls, "RSS MiB", "took ms", "samples",
    ]);
    // Latency of callers who wait for their answers is not what callers at a rate would see.
    let saturated = scenario.load.as_ref().is_some_and(|load| load.arrivals == Arrivals::Saturated);
    for subject in &scenario.subjects {
        if subject.steps.is_empty() {
            let latency = subject.latency.filter(|_| !saturated);
            table.rows.push(row(subject, latency, None));
        }
        table.rows.extend(subject.steps.iter().map(|step| row(subject, step.latency, Some(step))));
    }
    table.without_empty_columns()
}

fn row(subject: &SubjectResult, latency: Option<Quantiles>, step: Option<&Step>) -> Vec<Cell> {
    let here = |sample: &Sample| step.is_none_or(|step| sample.asked_rate == Some(step.asked_rate));
    let level = |value: &dyn Fn(&Sample) -> Option<f64>| {
        stats::level(subject, |sample| value(sample).filter(|_| here(sample))).map(|estimate| estimate.value)
    };
    let spent = |of: fn(&Spent) -> f64| level(&|sample| sample.spent.as_ref().map(of));
    let plain = |value: f64| number(value, "");
    let quantile = |of: fn(&Quantiles) -> f64| maybe(latency.as_ref().map(of), plain);
    let all = subject.samples.iter().filter(|sample| here(sample));
    let failed: u64 = all.clone().map(|sample| sample.errors).sum();
    let (taken, counted) = (all.clone().count(), all.clone().filter(|sample| sample.counts()).count());
    let answered = all.clone().any(|sample| sample.answered > 0);
    let rate = step.map(|step| step.rate).or_else(|| level(&|sample| Some(sample.rate)));
    let samples = if counted == taken {
        taken.to_string().into()
    } else {
        Cell::of(format!("{counted} of {taken}"), Tone::Bad)
    };
    vec![
        subject.name.clone().into(),
        maybe(step, |step| plain(step.asked_rate)),
        maybe(rate.filter(|_| answered), plain),
        if failed == 0 { Cell::nothing() } else { Cell::of(count(failed), Tone::Bad) },
        quantile(|latency| latency.p50),
        quantile(|latency| latency.p90),
        quantile(|latency| latency.p99),
        quantile(|latency| latency.p999),
        quantile(|latency| latency.max),
        maybe(spent(|spent| spent.cpu), plain),
        maybe(spent(|spent| spent.user), plain),
        maybe(spent(|spent| spent.system), plain),
        maybe(spent(|spent| spent.voluntary_switches + spent.involuntary_switches), plain),
        maybe(level(&|sample| sample.spent.and_then(|spent| spent.syscalls)), plain),
        maybe(level(&|sample| sample.resident_kib.map(|kib| kib as f64 / 1024.0)), plain),
        maybe(level(&took), plain),
        samples,
    ]
}

/// How many milliseconds something took, where that is all that was measured: a start, a change of the configuration.
pub(super) fn took(sample: &Sample) -> Option<f64> {
    let alone = sample.answered == 0 && sample.errors == 0 && sample.resident_kib.is_none();
    alone.then_some(sample.seconds * 1e3)
}

/// What does not count, and what failed, in words; empty if all is well.
pub(super) fn troubles(run: &Run) -> Vec<String> {
    let mut troubles = Vec::new();
    for scenario in &run.scenarios {
        for subject in &scenario.subjects {
            let whose = format!("{}, {}", scenario.name, subject.name);
            let beyond = |rate| {
                subject.steps.iter().any(|step| step.rejected.is_some() && Some(step.asked_rate) == rate)
            };
            for sample in subject.samples.iter().filter(|sample| !beyond(sample.asked_rate)) {
                let when = format!("{whose}, repetition {}", sample.repetition + 1);
                if let Some(why) = &sample.rejected {
                    troubles.push(format!("{when}: rejected: {why}"));
                } else if sample.errors > 0 {
                    let first = sample.first_error.as_deref().unwrap_or("unknown");
                    troubles.push(format!("{when}: {} failed, the first: {first}", count(sample.errors)));
                }
            }
            // Beyond the knee of a sweep nothing counts, as nobody expects it to.
            let knee = subject.steps.iter().find_map(|step| Some((step.asked_rate, step.rejected.as_ref()?)));
            troubles
                .extend(knee.map(|(rate, why)| format!("{whose}, from {}/s: {why}", number(rate, "errors"))));
        }
    }
    troubles
}

/// What was not measured, and why: figures first, then what was skipped.
pub(super) fn missing(run: &Run) -> Vec<String> {
    let unmeasured = run.figures.iter().filter(|figure| figure.value.is_none());
    let why = |basis: &'_ str| basis.strip_prefix("not measured: ").unwrap_or(basis).to_owned();
    let figures = unmeasured.map(|figure| format!("{}: {}", figure.title, why(&figure.basis)));
    figures.chain(run.skipped.iter().map(|skipped| format!("{}: {}", skipped.what, skipped.why))).collect()
}

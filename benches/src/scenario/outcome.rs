//! The figures that follow from what was measured.

use super::{
    AGAIN, Name, Wanted,
    book::{Book, Chapter},
    config,
    figures::{GOALS, Goal, Source},
};
use crate::{
    result::{
        Figure, Sample, Series, Target,
        stats::{Estimate, added, level, ratio},
    },
    subject::Kind,
};

/// All figures of the scenarios that were wanted: those with targets, then what else was measured beside each other.
/// `binary` is the size of the proxy's binary without symbols.
pub fn figures(book: &Book, wanted: &Wanted, binary: Option<u64>) -> Vec<Figure> {
    let goals =
        GOALS.iter().filter(|goal| goal.scenario().is_some_and(|name| wanted.scenarios.contains(&name)));
    // A target is for the load that its scenario has.
    let changed = !wanted.load.is_empty() || wanted.foreign;
    let of = |goal: &Goal| figure(goal, goal.target.filter(|_| !changed), book, binary);
    let mut figures: Vec<_> = goals.map(of).collect();
    for figure in informative(book) {
        if !figures.iter().any(|known| known.id == figure.id) {
            figures.push(figure);
        }
    }
    figures
}

fn figure(goal: &Goal, target: Option<Target>, book: &Book, binary: Option<u64>) -> Figure {
    let unit = goal.source.unit();
    match measured(goal.source, book, binary) {
        Ok(Measured { estimate, noise, basis }) => {
            Figure::new(goal.id, goal.title, unit, Some(estimate), noise, target, basis)
        }
        Err(why) => Figure::unknown(goal.id, goal.title, unit, target, format!("not measured: {why}")),
    }
}

/// A figure before it is compared with its target.
struct Measured {
    estimate: Estimate,
    noise: Option<Estimate>,
    basis: String,
}

fn measured(source: Source, book: &Book, binary: Option<u64>) -> Result<Measured, String> {
    let (estimate, noise, basis) = match source {
        Source::Cpu { part, of, to } => return cpu(book, part, of, to),
        Source::Throughput { part, of, to } => {
            enough_cores(book)?;
            let (chapter, of, to) =
                (chapter(book, part)?, subject(book, part, of)?, subject(book, part, to)?);
            let rate = |sample: &Sample| Some(sample.rate);
            let noise = again(chapter, to).and_then(|again| ratio(&again.result, &to.result, rate));
            (ratio(&of.result, &to.result, rate), noise, beside(of, to))
        }
        Source::Added { part, of, quantile } => {
            let (chapter, of, direct) =
                (chapter(book, part)?, subject(book, part, of)?, subject(book, part, "direct")?);
            let noise = again(chapter, direct).and_then(|again| added(again, direct, quantile));
            let basis = format!("{} less direct, of merged histograms", counted(of));
            (added(of, direct, quantile), noise, basis)
        }
        Source::Resident { part, of } => {
            let of = subject(book, part, of)?;
            (resident(of), None, format!("VmRSS, {}", samples(of.result.samples.len(), of)))
        }
        Source::PerConnection { part, idle, of } => {
            let (held, idle) = (subject(book, part, of)?, subject(book, idle, of)?);
            let [held, idle] = [held, idle].map(resident);
            let each = held.zip(idle).map(|(held, idle)| held.minus(idle).scaled(1024.0 / 1e4));
            (each, None, "VmRSS with 10,000 connections less that without, divided by 10,000".into())
        }
        Source::Time { part, of } => {
            let of = subject(book, part, of)?;
            (
                level(&of.result, |sample| Some(sample.seconds * 1e3)),
                None,
                format!("median of {}", counted(of)),
            )
        }
        Source::Errors { part, of } => {
            let of = subject(book, part, of)?;
            let samples = &of.result.samples;
            let (errors, answered) = samples.iter().fold((0, 0), |(errors, answered), sample| {
                (errors + sample.errors, answered + sample.answered)
            });
            (Some(exactly(errors as f64)), None, format!("of {} requests", errors + answered))
        }
        Source::Binary => {
            let bytes = binary.ok_or("the size of the binary is not known")?;
            (Some(exactly(bytes as f64 / f64::from(1 << 20))), None, "the file without symbols".into())
        }
        Source::Late => return late(book),
    };
    let estimate = estimate.ok_or_else(|| "no sample of it counts".to_owned())?;
    Ok(Measured { estimate, noise, basis })
}

/// The CPU per request of `of` divided by that of whoever of `to` was measured and spends least.
fn cpu(book: &Book, part: &str, of: &str, to: &[&str]) -> Result<Measured, String> {
    let chapter = chapter(book, part)?;
    let others: Vec<_> = to.iter().map(|to| subject(book, part, to)).collect();
    let median = |series: &Series| level(&series.result, spent).map_or(f64::INFINITY, |level| level.value);
    let least = others.iter().flatten().min_by(|one, other| median(one).total_cmp(&median(other)));
    let Some(to) = least else {
        let mut why: Vec<_> = others.into_iter().filter_map(Result::err).collect();
        why.dedup();
        return Err(why.join("; "));
    };
    let of = subject(book, part, of)?;
    let noise = again(chapter, of).and_then(|again| ratio(&again.result, &of.result, spent));
    let estimate = ratio(&of.result, &to.result, spent).ok_or("no sample of it counts")?;
    Ok(Measured { estimate, noise, basis: beside(of, to) })
}

/// Requests that are late for each change, less those that are late without one.
fn late(book: &Book) -> Result<Measured, String> {
    let part = Name::Config.as_str();
    let (with, without) = (subject(book, part, config::CHANGING)?, subject(book, part, config::UNCHANGED)?);
    let late = |series: &Series| -> (u64, u64) {
        let samples = series.result.recorded(&series.log);
        samples.fold((0, 0), |(late, samples), (_, latency)| (late + config::late(latency), samples + 1))
    };
    let ((with, changes), (without, windows)) = (late(with), late(without));
    if changes == 0 || windows == 0 {
        return Err("no sample of it counts".into());
    }
    let each = with as f64 / changes as f64 - without as f64 / windows as f64;
    let basis = format!("{with} in {changes} windows with a change, {without} in {windows} without");
    Ok(Measured { estimate: exactly(each.max(0.0)), noise: None, basis })
}

/// What was measured beside what, and has no goal: other proxies, and what the user has put together.
fn informative(book: &Book) -> Vec<Figure> {
    let told = |name| {
        use Name::{Custom, Grpc, Http2, Latency, Mesh, Plain, Protocols};
        matches!(name, Plain | Http2 | Grpc | Mesh | Latency | Protocols | Custom)
    };
    let chapters = book.chapters().iter().filter(|chapter| told(chapter.scenario));
    chapters
        .flat_map(|chapter| if chapter.is_saturated() { ratios(chapter) } else { differences(chapter) })
        .collect()
}

/// The CPU per request of the first of ours to that of each other.
fn ratios(chapter: &Chapter) -> Vec<Figure> {
    let ours = chapter.series.iter().find(|series| series.result.kind == Kind::Outrigger);
    let Some(of) = ours else { return Vec::new() };
    let noise = again(chapter, of).and_then(|again| ratio(&again.result, &of.result, spent));
    let others =
        chapter.series.iter().filter(|other| !is_again(other) && other.result.name != of.result.name);
    let figure = |to: &Series| {
        let name = &to.result.name;
        let id = format!("{}.cpu.{}", chapter.name, slug(name));
        let estimate = ratio(&of.result, &to.result, spent)?;
        let title = format!("{}: CPU per request to that of {name}", chapter.name);
        Some(Figure::new(id, title, "×", Some(estimate), noise, None, beside(of, to)))
    };
    others.filter_map(figure).collect()
}

/// What each adds to the latency without any.
fn differences(chapter: &Chapter) -> Vec<Figure> {
    let Some(direct) = chapter.subject("direct") else { return Vec::new() };
    // What Outrigger adds in `latency` stands above, with its targets.
    let told = |other: &Series| match other.result.kind {
        Kind::Direct => false,
        Kind::Outrigger => chapter.scenario != Name::Latency,
        _ => true,
    };
    let others = chapter.series.iter().filter(|other| !is_again(other) && told(other));
    let quantiles = [(0.5, "p50", "at the median"), (0.99, "p99", "at the 99th percentile")];
    let figures = others.flat_map(|of| quantiles.map(|quantile| (of, quantile)));
    let figure = |(of, (quantile, suffix, words)): (&Series, (f64, &str, &str))| {
        let name = &of.result.name;
        let estimate = added(of, direct, quantile)?;
        let noise = again(chapter, direct).and_then(|again| added(again, direct, quantile));
        let id = format!("{}.{}.{suffix}", chapter.name, slug(name));
        let title = format!("{}: {name} adds, {words}", chapter.name);
        let basis = format!("{} less direct, of merged histograms", counted(of));
        Some(Figure::new(id, title, "µs", Some(estimate), noise, None, basis))
    };
    figures.filter_map(figure).collect()
}

fn chapter<'a>(book: &'a Book, part: &str) -> Result<&'a Chapter, String> {
    let chapter = book.chapters().iter().find(|chapter| chapter.name == part);
    chapter.ok_or_else(|| book.why_not(part, part).unwrap_or("the run ended before").to_owned())
}

fn subject<'a>(book: &'a Book, part: &str, name: &str) -> Result<&'a Series, String> {
    let chapter = chapter(book, part)?;
    let why = || {
        let known = book.why_not(name, part).map(ToOwned::to_owned);
        let peer = name.trim_end_matches(" pair");
        let absent = || match peer {
            "nginx" | "haproxy" | "envoy" => format!("{peer} was not asked for (--against)"),
            _ => "the run ended before".into(),
        };
        known.unwrap_or_else(absent)
    };
    chapter.subject(name).ok_or_else(why)
}

/// The second run of a subject, if there is one.
fn again<'a>(chapter: &'a Chapter, of: &Series) -> Option<&'a Series> {
    chapter.subject(&format!("{}{AGAIN}", of.result.name))
}

fn is_again(series: &Series) -> bool {
    series.result.name.ends_with(AGAIN)
}

/// Two workers beside the load.
fn enough_cores(book: &Book) -> Result<(), String> {
    let cores = book.host().cores;
    if cores < 3 {
        return Err(format!("two workers and the load need 3 cores, here are {cores}; see workers.cpu"));
    }
    Ok(())
}

fn spent(sample: &Sample) -> Option<f64> {
    sample.spent.map(|spent| spent.cpu)
}

/// In MiB. What a generator was late by says nothing against it, requests that failed do.
fn resident(of: &Series) -> Option<Estimate> {
    let samples = of.result.samples.iter().filter(|sample| sample.errors == 0);
    let mib: Vec<_> = samples.filter_map(|sample| Some(sample.resident_kib? as f64 / 1024.0)).collect();
    Estimate::of(&mib)
}

fn exactly(value: f64) -> Estimate {
    Estimate { value, interval: None, repetitions: 1 }
}

fn counted(of: &Series) -> String {
    samples(of.result.samples.iter().filter(|sample| sample.counts()).count(), of)
}

fn samples(count: usize, of: &Series) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} sample{s} of {}", of.result.name)
}

fn beside(of: &Series, to: &Series) -> String {
    format!("{} and {}, median over repetitions", counted(of), counted(to))
}

/// `nginx pair` → `nginx`, `2 workers` → `2-workers`.
fn slug(name: &str) -> String {
    name.trim_end_matches(" pair").replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{Host, Verdict};

    fn book() -> Book {
        let dir = tempfile::tempdir().unwrap();
        Book::new(Vec::new(), Host::this(None), dir.path().to_owned())
    }

    #[test]
    fn every_figure_stands_in_the_table_measured_or_not() {
        let figures = figures(&book(), &Wanted::default(), None);
        let all = GOALS.iter().filter(|goal| goal.scenario().unwrap().by_default());
        let ids: Vec<_> = all.map(|goal| goal.id).collect();
        assert_eq!(figures.iter().map(|figure| figure.id.as_str()).collect::<Vec<_>>(), ids);
        for figure in &figures {
            assert_eq!(figure.verdict, Verdict::Unknown);
            assert!(figure.basis.starts_with("not measured: "), "{figure:?}");
        }
    }

    #[test]
    fn a_figure_says_why_its_peer_is_missing() {
        let mut book = book();
        let part = &super::super::parts::of(Name::Plain, &Wanted::default())[0];
        book.begin(part, None);
        book.skip("nginx in plain", "nginx is not installed: install it");
        let figures = figures(&book, &Wanted::default(), None);
        let nginx = figures.iter().find(|figure| figure.id == "plain.cpu.nginx").unwrap();
        assert_eq!(nginx.basis, "not measured: nginx is not installed: install it");
    }

    #[test]
    fn a_target_is_for_the_load_of_its_scenario() {
        let mut wanted = Wanted { scenarios: vec![Name::Latency], ..Wanted::default() };
        let targets = |wanted: &Wanted| {
            figures(&book(), wanted, None).iter().filter(|figure| figure.target.is_some()).count()
        };
        assert_eq!(targets(&wanted), 4);
        wanted.load.rate = Some(5000.0);
        assert_eq!(targets(&wanted), 0);
    }

    #[test]
    fn names_become_parts_of_ids() {
        assert_eq!(["nginx pair", "2 workers", "mine"].map(slug), ["nginx", "2-workers", "mine"]);
    }
}

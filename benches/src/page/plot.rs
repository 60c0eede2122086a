//! The plots of a page.

use super::{
    svg::{Anchor, Scale, Svg},
    words::{number, unit_of_work},
};
use crate::{
    load::Arrivals,
    result::{
        Figure, Quantiles, Sample, Saved, Scenario, Spent, Step, SubjectResult, Target, Verdict, stats,
    },
    subject::Kind,
};

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 290.0;
/// Above and below the middle of a line of text.
const HALF_LINE: f64 = 4.0;
/// Room for the names left of bars, in characters too.
const NAMES: f64 = 150.0;
const NAME_CHARACTERS: usize = 19;
/// Peers have colours of their own, as many as the style sheet has beside the first three.
const PEER_COLOURS: usize = 5;

/// A plot with what is to be read with it.
#[derive(Debug)]
pub(super) struct Plot {
    pub(super) title: String,
    /// Name and class of each line; empty where the plot names them itself.
    pub(super) legend: Vec<(String, String)>,
    pub(super) svg: String,
    pub(super) caption: String,
}

/// The colour of each kind of subject throughout a page: classes `s0` and so on.
#[derive(Debug)]
pub(super) struct Colours {
    peers: Vec<Kind>,
}

impl Colours {
    pub(super) fn of(scenarios: &[Scenario]) -> Self {
        let mut peers = Vec::new();
        for subject in scenarios.iter().flat_map(|scenario| &scenario.subjects) {
            if matches!(subject.kind, Kind::Peer(_)) && !peers.contains(&subject.kind) {
                peers.push(subject.kind.clone());
            }
        }
        Self { peers }
    }

    fn class(&self, kind: &Kind) -> String {
        let peer = || self.peers.iter().position(|peer| peer == kind).unwrap_or(0);
        let number = match kind {
            Kind::Outrigger => 0,
            Kind::Direct => 1,
            Kind::Forwarder => 2,
            Kind::Peer(_) => 3 + peer() % PEER_COLOURS,
        };
        format!("s{number}")
    }

    /// A class for each subject's line: those of one kind have one colour, and differ in how they are dashed.
    fn lines(&self, subjects: &[SubjectResult]) -> Vec<String> {
        let dash = |index: usize, kind: &Kind| {
            subjects.iter().take(index).filter(|earlier| earlier.kind == *kind).count() % 4
        };
        let class = |(index, subject): (usize, &SubjectResult)| {
            format!("{} d{}", self.class(&subject.kind), dash(index, &subject.kind))
        };
        subjects.iter().enumerate().map(class).collect()
    }
}

/// The plots that a scenario's samples are good for.
pub(super) fn of_scenario(saved: &Saved, scenario: &Scenario, colours: &Colours) -> Vec<Plot> {
    let saturated = scenario.load.as_ref().is_some_and(|load| load.arrivals == Arrivals::Saturated);
    let sweep = scenario.subjects.iter().any(|subject| !subject.steps.is_empty());
    let latency = match (saturated, sweep) {
        (true, _) => None,
        (false, true) => against_load(scenario, colours),
        (false, false) => percentiles(saved, scenario, colours),
    };
    let cpu = if sweep { None } else { cpu(scenario, colours) };
    let memory = if sweep { None } else { memory(scenario, colours) };
    [latency, cpu, memory].into_iter().flatten().collect()
}

/// The frame of a plot with latency upwards, on a logarithmic scale.
fn latency_frame(svg: &mut Svg, range: (f64, f64)) -> Scale {
    let scale = Scale::log(range, (HEIGHT - 44.0, 22.0));
    for tick in scale.ticks(7) {
        let y = scale.at(tick);
        svg.line((58.0, y), (WIDTH - 12.0, y), "grid");
        svg.text((52.0, y + HALF_LINE), Anchor::End, &time(tick));
    }
    scale
}

fn time(micros: f64) -> String {
    let trimmed = |value: f64| {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match micros {
        micros if micros >= 1e6 => format!("{} s", trimmed(micros / 1e6)),
        micros if micros >= 1e3 => format!("{} ms", trimmed(micros / 1e3)),
        micros => format!("{} µs", trimmed(micros)),
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((f64::min(low, value), f64::max(high, value)))
    })
}

/// Latency by percentile, as HdrHistogram plots it: each nine takes as much room as the one before.
fn percentiles(saved: &Saved, scenario: &Scenario, colours: &Colours) -> Option<Plot> {
    let lines: Vec<Vec<(f64, f64)>> =
        scenario.subjects.iter().map(|subject| percentile_line(saved, subject)).collect();
    let latencies = range(lines.iter().flatten().map(|(_, micros)| *micros))?;
    let nines = range(lines.iter().flatten().map(|(nines, _)| *nines))?.1.max(2.0);
    let mut svg = Svg::new(WIDTH, HEIGHT, format!("Latency by percentile: {}", scenario.title));
    let y = latency_frame(&mut svg, latencies);
    let x = Scale::linear((0.0, nines), (58.0, WIDTH - 22.0));
    let labels = ["0%", "90%", "99%", "99.9%", "99.99%", "99.999%", "99.9999%"];
    for (at, label) in labels.iter().enumerate().take(nines as usize + 1) {
        let x = x.at(at as f64);
        svg.line((x, 22.0), (x, HEIGHT - 44.0), "grid");
        svg.text((x, HEIGHT - 27.0), Anchor::Middle, label);
    }
    svg.text((x.at(nines / 2.0), HEIGHT - 8.0), Anchor::Middle, "of requests took no longer");
    let classes = colours.lines(&scenario.subjects);
    let mut legend = Vec::new();
    for ((subject, line), class) in scenario.subjects.iter().zip(&lines).zip(classes) {
        if line.is_empty() {
            continue;
        }
        svg.path(line.iter().map(|(nines, micros)| (x.at(*nines), y.at(*micros))), &format!("line {class}"));
        legend.push((subject.name.clone(), class));
    }
    let caption =
        "From when a request was due until its whole answer was there; all repetitions merged.".into();
    Some(Plot { title: "Latency by percentile".into(), legend, svg: svg.finish(), caption })
}

/// How many nines, and the latency there, up to the slowest request: from the raw histograms where they are there.
fn percentile_line(saved: &Saved, subject: &SubjectResult) -> Vec<(f64, f64)> {
    const STEPS_IN_A_NINE: u32 = 40;
    const MOST_NINES: u32 = 6;
    let log = saved.log(subject).ok().flatten();
    let Some(merged) = log.and_then(|log| stats::merged(subject, &log)) else {
        let Some(Quantiles { p50, p90, p99, p999, .. }) = subject.latency else { return Vec::new() };
        return vec![(2_f64.log10(), p50), (1.0, p90), (2.0, p99), (3.0, p999)];
    };
    let most = (merged.len() as f64).log10();
    let at = |step: u32| f64::from(step) / f64::from(STEPS_IN_A_NINE);
    let nines = (0..=MOST_NINES * STEPS_IN_A_NINE).map(at).take_while(|nines| *nines <= most);
    let micros = |nines: f64| merged.value_at_quantile(1.0 - 10_f64.powf(-nines)) as f64 / 1e3;
    nines.map(|nines| (nines, micros(nines))).collect()
}

/// Latency against load: p50 and p99 of each subject at each rate, up to its knee.
fn against_load(scenario: &Scenario, colours: &Colours) -> Option<Plot> {
    /// Beyond the knee latency has no bound; so many times what counts is shown.
    const BEYOND: f64 = 3.0;
    let steps = || scenario.subjects.iter().flat_map(|subject| &subject.steps);
    let counted = steps().filter(|step| step.rejected.is_none()).filter_map(|step| step.latency);
    let (low, high) = range(counted.flat_map(|latency| [latency.p50, latency.p99]))?;
    let fastest = range(steps().map(|step| step.asked_rate))?.1;
    let mut svg = Svg::new(WIDTH, HEIGHT, format!("Latency against load: {}", scenario.title));
    let y = latency_frame(&mut svg, (low, high * BEYOND));
    let x = Scale::linear((0.0, fastest), (58.0, WIDTH - 22.0));
    for tick in x.ticks(6) {
        svg.line((x.at(tick), 22.0), (x.at(tick), HEIGHT - 44.0), "grid");
        svg.text((x.at(tick), HEIGHT - 27.0), Anchor::Middle, &short(tick));
    }
    let unit = unit_of_work(scenario.load.as_ref());
    svg.text(((58.0 + WIDTH - 22.0) / 2.0, HEIGHT - 8.0), Anchor::Middle, &format!("asked {unit}/s"));
    let mut legend = Vec::new();
    for (subject, class) in scenario.subjects.iter().zip(colours.lines(&scenario.subjects)) {
        for (of, weight) in [(p99 as fn(Quantiles) -> f64, "line"), (p50, "line thin")] {
            let point = |step: &Step| Some((x.at(step.asked_rate), y.at(of(step.latency?))));
            let reached = || subject.steps.iter().filter(|step| step.rejected.is_none()).filter_map(point);
            svg.path(reached(), &format!("{weight} {class}"));
            for at in reached() {
                svg.dot(at, 2.4, &format!("dot {class}"));
            }
        }
        let knee = |step: &&Step| step.rejected.is_some() && step.latency.is_some();
        if let Some(beyond) = subject.steps.iter().find(knee) {
            let point = |step: &Step| Some((x.at(step.asked_rate), y.at(p99(step.latency?))));
            let last = subject.steps.iter().take_while(|step| step.asked_rate < beyond.asked_rate).last();
            svg.path(last.into_iter().chain([beyond]).filter_map(point), &format!("line beyond {class}"));
            if let Some(at) = point(beyond) {
                svg.dot(at, 3.6, &format!("hollow {class}"));
            }
        }
        if !subject.steps.is_empty() {
            legend.push((subject.name.clone(), class));
        }
    }
    let caption = "Thick: 99 of 100 requests took no longer; thin: half of them. Hollow: beyond the knee, where the rate \
                   was not reached or requests failed; at the upper edge, what lies above.";
    Some(Plot { title: "Latency against load".into(), legend, svg: svg.finish(), caption: caption.into() })
}

fn p50(latency: Quantiles) -> f64 {
    latency.p50
}

fn p99(latency: Quantiles) -> f64 {
    latency.p99
}

fn short(rate: f64) -> String {
    if rate >= 1e3 { format!("{}k", rate / 1e3) } else { format!("{rate}") }
}

/// A row of a bar chart.
struct Bar {
    name: String,
    class: String,
    /// The first is drawn in the full colour, the second fainter beside it.
    parts: [f64; 2],
    whole: f64,
    interval: Option<(f64, f64)>,
}

fn bars(label: &str, unit: &str, rows: &[Bar]) -> String {
    const ROW: f64 = 30.0;
    let height = 12.0 + ROW * rows.len() as f64 + 40.0;
    let end = WIDTH - 56.0;
    let greatest = rows.iter().map(|row| row.interval.map_or(row.whole, |(_, high)| high.max(row.whole)));
    let x = Scale::linear((0.0, greatest.fold(0.0, f64::max)), (NAMES, end));
    let mut svg = Svg::new(WIDTH, height, label);
    let bottom = height - 40.0;
    for tick in x.ticks(5) {
        svg.line((x.at(tick), 8.0), (x.at(tick), bottom), "grid");
        svg.text((x.at(tick), bottom + 17.0), Anchor::Middle, &number_short(tick));
    }
    svg.text((f64::midpoint(NAMES, end), bottom + 35.0), Anchor::Middle, unit);
    for (index, row) in rows.iter().enumerate() {
        let middle = 12.0 + ROW * (index as f64 + 0.5) - 2.0;
        let [first, second] = row.parts;
        let (zero, between, all) = (x.at(0.0), x.at(first), x.at(first + second));
        svg.text((NAMES - 8.0, middle + HALF_LINE), Anchor::End, &shortened(&row.name));
        svg.bar((zero, middle - 9.0), between - zero, 18.0, &format!("bar {}", row.class));
        svg.bar((between, middle - 9.0), all - between, 18.0, &format!("bar faint {}", row.class));
        let mut right = x.at(row.whole);
        if let Some((low, high)) = row.interval {
            let (low, high) = (x.at(low), x.at(high));
            // Ends that lie on each other say no more than the end of the bar.
            if high - low > 1.5 {
                svg.line((low, middle), (high, middle), "whisker");
                for end in [low, high] {
                    svg.line((end, middle - 4.0), (end, middle + 4.0), "whisker");
                }
            }
            right = right.max(high);
        }
        svg.text((right + 6.0, middle + HALF_LINE), Anchor::Start, &number(row.whole, ""));
    }
    svg.finish()
}

fn work(unit: &str) -> &str {
    match unit {
        "req" => "request",
        "msg" => "message",
        unit => unit,
    }
}

fn number_short(value: f64) -> String {
    let text = number(value, "");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_CHARACTERS {
        return name.to_owned();
    }
    let kept: String = name.chars().take(NAME_CHARACTERS - 1).collect();
    format!("{}…", kept.trim_end())
}

/// CPU time for each request, in user space and in the kernel.
fn cpu(scenario: &Scenario, colours: &Colours) -> Option<Plot> {
    let row = |subject: &SubjectResult| {
        let level = |of: fn(&Spent) -> f64| stats::level(subject, |sample| sample.spent.as_ref().map(of));
        let whole = level(|spent| spent.cpu)?;
        Some(Bar {
            name: subject.name.clone(),
            class: colours.class(&subject.kind),
            parts: [level(|spent| spent.user)?.value, level(|spent| spent.system)?.value],
            whole: whole.value,
            interval: whole.interval,
        })
    };
    let rows: Vec<Bar> = scenario.subjects.iter().filter_map(row).collect();
    let unit = unit_of_work(scenario.load.as_ref());
    let svg = bars(&format!("CPU per {unit}: {}", scenario.title), &format!("CPU µs/{unit}"), &rows);
    let caption = "Full: in user space; faint: in the kernel; all processes of the subject together. The line is the 95% \
                   interval of the sum over the repetitions."
        .into();
    (!rows.is_empty()).then(|| Plot {
        title: format!("CPU per {}", work(unit)),
        legend: Vec::new(),
        svg,
        caption,
    })
}

/// Resident memory at the end of samples.
fn memory(scenario: &Scenario, colours: &Colours) -> Option<Plot> {
    let resident = |sample: &Sample| sample.resident_kib.map(|kib| kib as f64 / 1024.0);
    let row = |subject: &SubjectResult| {
        let whole = stats::level(subject, resident)?;
        Some(Bar {
            name: subject.name.clone(),
            class: colours.class(&subject.kind),
            parts: [whole.value, 0.0],
            whole: whole.value,
            interval: whole.interval,
        })
    };
    let rows: Vec<Bar> = scenario.subjects.iter().filter_map(row).collect();
    let svg = bars(&format!("Memory: {}", scenario.title), "resident MiB", &rows);
    let caption = "All processes of the subject together, at the end of each sample.".into();
    (!rows.is_empty()).then(|| Plot { title: "Memory".into(), legend: Vec::new(), svg, caption })
}

/// A figure and its interval beside its target, which is the line in the middle: left of it is better.
pub(super) fn beside_target(figure: &Figure) -> Option<String> {
    const SMALL: (f64, f64) = (150.0, 16.0);
    let (target, value) = (figure.target?, figure.value?);
    let relative = |value: f64| match target {
        Target::AtMost(most) => value / most,
        Target::AtLeast(least) => least / value,
    };
    let at = relative(value);
    if !at.is_finite() || at <= 0.0 {
        return None;
    }
    let x = Scale::log((0.35, 1.0 / 0.35), (6.0, SMALL.0 - 6.0));
    let class = if figure.verdict == Verdict::Met { "met" } else { "missed" };
    let mut svg = Svg::new(SMALL.0, SMALL.1, format!("{at:.2} of the target"));
    let middle = SMALL.1 / 2.0;
    svg.line((6.0, middle), (SMALL.0 - 6.0, middle), "grid");
    svg.line((x.at(1.0), 1.0), (x.at(1.0), SMALL.1 - 1.0), "whisker");
    if let Some((low, high)) = figure.interval {
        // What is not above 0 lies beyond the edge.
        let edge = |value: f64| x.at(relative(value).max(f64::MIN_POSITIVE));
        svg.line((edge(low), middle), (edge(high), middle), &format!("reach {class}"));
    }
    svg.dot(
        (x.at(at), middle),
        4.0,
        &format!("{} {class}", if figure.is_clear() { "mark" } else { "mark unsure" }),
    );
    Some(svg.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_names_fit() {
        assert_eq!([0.5, 50.0, 1_500.0, 2e6].map(time), ["0.5 µs", "50 µs", "1.5 ms", "2 s"]);
        assert_eq!([500.0, 2_500.0, 40_000.0].map(short), ["500", "2.5k", "40k"]);
        assert_eq!(shortened("outrigger (again)"), "outrigger (again)");
        assert_eq!(shortened("a name that nobody asked for"), "a name that nobody…");
    }
}

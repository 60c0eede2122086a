//! A comparison on the terminal.

use std::fmt::Write;

use super::{Change, Comparison, Difference, Outcome, Side};
use crate::page::{
    table::{Cell, Table, Tone},
    terminal::Look,
    words::{interval, maybe, number, signed},
};

pub(super) fn text(comparison: &Comparison, look: Look) -> String {
    let paint = |tone: Tone, words: &str| look.paint(tone, words);
    let mut text = String::new();
    for (name, side) in [("A", &comparison.a), ("B", &comparison.b)] {
        let _ = writeln!(text, "{name}: {}", described(side));
    }
    if !comparison.machines.is_empty() {
        let words = "\nNOT THE SAME MACHINE: only figures that are ratios within a run say anything.";
        let _ = writeln!(text, "{}", paint(Tone::Bad, words));
        differences(&mut text, &comparison.machines);
    }
    let measured = comparison.scenarios.iter().any(|scenario| !scenario.differences.is_empty());
    if measured {
        let _ = writeln!(
            text,
            "\n{}",
            paint(Tone::Bad, "NOT MEASURED ALIKE: what differs is not Outrigger alone.")
        );
    }
    if !comparison.figures.is_empty() {
        let _ = writeln!(text, "\n{}\n", look.title("Figures"));
        text.push_str(&table("<figure", &comparison.figures).text("", paint));
    }
    for scenario in &comparison.scenarios {
        let _ = writeln!(text, "\n{}\n", look.title(&format!("{}: {}", scenario.name, scenario.title)));
        differences(&mut text, &scenario.differences);
        text.push_str(&table("<", &scenario.changes).text("  ", paint));
    }
    if !comparison.unmatched.is_empty() {
        let _ = writeln!(text, "\n{}\n  {}", look.title("Not compared"), comparison.unmatched.join("\n  "));
    }
    text
}

fn described(side: &Side) -> String {
    let commit = side.commit.as_ref().map_or(String::new(), |commit| format!(", commit {commit}"));
    format!("{} of {}, Outrigger {}{commit}", side.file, side.began, side.version)
}

fn differences(text: &mut String, differences: &[Difference]) {
    for Difference { what, a, b } in differences {
        let _ = writeln!(text, "  {what}:\n    A: {a}\n    B: {b}");
    }
}

fn table(name: &str, changes: &[Change]) -> Table {
    let mut table = Table::new(&[name, "A", "B", "<unit", "change", "%", "95% interval", "<"]);
    table.rows.extend(changes.iter().map(|change| {
        let unit = &change.unit;
        let plain = |value: f64| number(value, unit);
        vec![
            change.title.clone().into(),
            maybe(change.a, plain),
            maybe(change.b, plain),
            Cell::of(unit, Tone::Faint),
            maybe(change.by, |value| signed(value, unit)),
            maybe(change.percent, |value| signed(value, "%")),
            maybe(change.interval, |range| interval(range, unit)),
            outcome(change.outcome),
        ]
    }));
    table
}

fn outcome(outcome: Outcome) -> Cell {
    match outcome {
        Outcome::Better => Cell::of("better", Tone::Good),
        Outcome::Worse => Cell::of("worse", Tone::Bad),
        Outcome::WithinNoise => Cell::of("within noise", Tone::Faint),
        Outcome::BetterUnjudged => Cell::of("better, without an interval", Tone::Plain),
        Outcome::WorseUnjudged => Cell::of("worse, without an interval", Tone::Plain),
        Outcome::Same => Cell::of("the same", Tone::Faint),
        Outcome::Lost => Cell::of("not measured in B", Tone::Bad),
        Outcome::Missing => Cell::of("not in both", Tone::Faint),
    }
}

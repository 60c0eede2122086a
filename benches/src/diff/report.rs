//! What a run found, for a reader and as JSON.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    sync::Arc,
};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::{
    caller::Transcript,
    compare::Verdict,
    exchange::{Exchange, Speaks},
};

/// A path and what is spoken at its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Mode {
    /// `direct`, `proxy`, `sidecars`, `through`.
    pub path: &'static str,
    /// What the caller speaks.
    pub caller: Speaks,
    /// What the application speaks.
    pub application: Speaks,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = |speaks| if speaks == Speaks::Http1 { "http1" } else { "http2" };
        write!(f, "{} {}→{}", self.path, version(self.caller), version(self.application))
    }
}

/// What became of one exchange in one mode.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The exchange.
    pub exchange: String,
    /// What it is about.
    pub section: String,
    /// Where.
    #[serde(flatten)]
    pub mode: Mode,
    /// What differs and may not; none if all is well.
    pub differences: Vec<String>,
    /// The differences that are allowed and were seen.
    pub allowed: BTreeSet<&'static str>,
    /// What both ends saw, without the proxy and with it.
    #[serde(skip)]
    transcripts: Option<Arc<(Option<Arc<Transcript>>, Transcript)>>,
}

impl Outcome {
    pub(crate) fn new(
        exchange: &Exchange,
        mode: Mode,
        verdict: Verdict,
        transcripts: (Option<Arc<Transcript>>, Transcript),
    ) -> Self {
        Self {
            exchange: exchange.name.clone(),
            section: exchange.section.clone(),
            mode,
            differences: verdict.differences,
            allowed: verdict.allowed,
            transcripts: Some(Arc::new(transcripts)),
        }
    }

    /// Something came to the application that belongs to no exchange.
    pub(crate) fn stray(mode: Mode, bytes: &str) -> Self {
        Self {
            exchange: "(none)".into(),
            section: String::new(),
            mode,
            differences: vec![format!("to the application, of no exchange: {bytes}")],
            allowed: BTreeSet::new(),
            transcripts: None,
        }
    }

    /// What both ends saw, line by line, with what differs marked.
    pub fn transcripts(&self) -> String {
        let mut text = String::new();
        let Some(transcripts) = &self.transcripts else { return text };
        let (reference, seen) = &**transcripts;
        let lines = |messages: &[super::message::Message]| {
            messages
                .iter()
                .flat_map(|m| m.to_string().lines().map(String::from).collect::<Vec<_>>())
                .collect()
        };
        for (title, of) in [
            ("the application received", (|t| &t.application) as fn(&Transcript) -> &Vec<_>),
            ("the caller received", |t| &t.caller),
        ] {
            let expected: Vec<String> = reference.as_deref().map_or_else(Vec::new, |r| lines(of(r)));
            let seen: Vec<String> = lines(of(seen));
            let _ = writeln!(text, "    {title}");
            for (mark, line) in marked(&expected, &seen) {
                let _ = writeln!(text, "    {mark} {line}");
            }
        }
        text
    }
}

/// Lines of both, each with where it is: ` ` in both, `-` without the proxy alone, `+` with it alone.
fn marked<'a>(expected: &'a [String], seen: &'a [String]) -> Vec<(char, &'a str)> {
    // The longest common subsequence: transcripts are short.
    let (rows, columns) = (expected.len(), seen.len());
    let mut longest = vec![vec![0_usize; columns + 1]; rows + 1];
    for (row, left) in expected.iter().enumerate().rev() {
        for (column, right) in seen.iter().enumerate().rev() {
            longest[row][column] = if left == right {
                longest[row + 1][column + 1] + 1
            } else {
                longest[row + 1][column].max(longest[row][column + 1])
            };
        }
    }
    let (mut row, mut column, mut lines) = (0, 0, Vec::new());
    while row < rows || column < columns {
        if row < rows && column < columns && expected[row] == seen[column] {
            lines.push((' ', &*expected[row]));
            (row, column) = (row + 1, column + 1);
        } else if row < rows && (column == columns || longest[row + 1][column] >= longest[row][column + 1]) {
            lines.push(('-', &*expected[row]));
            row += 1;
        } else {
            lines.push(('+', &*seen[column]));
            column += 1;
        }
    }
    lines
}

/// What a difference is of: of `to the caller: field added: date:Sun…` all but the date.
fn kind(line: &str) -> String {
    const WITH_NAMES: [&str; 4] = ["field added", "field missing", "trailer added", "trailer missing"];
    let parts: Vec<&str> = line.split(": ").collect();
    match parts[..] {
        [direction, what, ..] if WITH_NAMES.contains(&what) => {
            let name = line.split(": ").nth(2).and_then(|field| field.split(':').next()).unwrap_or_default();
            format!("{direction}: {what}: {name}")
        }
        [direction, what, _, ..] if direction.starts_with("to the ") => format!("{direction}: {what}"),
        _ => line.to_owned(),
    }
}

/// What a run found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// How many exchanges there are.
    pub exchanges: usize,
    /// What became of each, in each mode in which it can be said.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// What differs and may not.
    pub fn failures(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| !outcome.differences.is_empty())
    }

    /// How often each difference that is allowed was seen.
    pub fn allowed(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for rule in self.outcomes.iter().flat_map(|outcome| &outcome.allowed) {
            *counts.entry(*rule).or_default() += 1;
        }
        counts
    }

    /// What differs and may not, without the particulars, and in how many exchanges.
    pub fn kinds(&self) -> BTreeMap<String, usize> {
        let mut kinds: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for outcome in self.failures() {
            for line in &outcome.differences {
                kinds.entry(kind(line)).or_default().insert(&outcome.exchange);
            }
        }
        kinds.into_iter().map(|(kind, exchanges)| (kind, exchanges.len())).collect()
    }

    fn table(&self) -> String {
        let mut modes: BTreeMap<Mode, (usize, usize)> = BTreeMap::new();
        for outcome in &self.outcomes {
            let (same, different) = modes.entry(outcome.mode).or_default();
            *if outcome.differences.is_empty() { same } else { different } += 1;
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["", "exchanges", "as without it", "different"]);
        for (mode, (same, different)) in modes {
            let counts = [same + different, same, different].map(|count| count.to_string());
            table.add_row([vec![mode.to_string()], counts.to_vec()].concat());
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.trim_fmt()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.table())?;
        let allowed = self.allowed();
        if !allowed.is_empty() {
            let list: Vec<_> = allowed.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
            writeln!(f, "Allowed differences that were seen: {}\n", list.join(", "))?;
        }
        let mut failures: BTreeMap<_, BTreeMap<Vec<String>, Vec<Mode>>> = BTreeMap::new();
        for outcome in self.failures() {
            let modes = failures.entry((&outcome.exchange, &outcome.section)).or_default();
            modes.entry(outcome.differences.clone()).or_default().push(outcome.mode);
        }
        for ((exchange, section), found) in failures {
            writeln!(f, "{exchange}  ({section})")?;
            for (differences, modes) in found {
                let modes: Vec<_> = modes.iter().map(Mode::to_string).collect();
                writeln!(f, "  {}", modes.join(", "))?;
                for line in differences {
                    writeln!(f, "    {line}")?;
                }
            }
        }
        let mut kinds: Vec<_> = self.kinds().into_iter().collect();
        kinds.sort_by_key(|(_, exchanges)| std::cmp::Reverse(*exchanges));
        if !kinds.is_empty() {
            writeln!(f, "\nWhat differs, and in how many exchanges")?;
        }
        for (kind, exchanges) in kinds {
            writeln!(f, "{exchanges:5}  {kind}")?;
        }
        Ok(())
    }
}

//! Tables, before it is known whether a terminal, Markdown or HTML shows them.

use std::fmt::Write;

/// What stands where there is nothing.
pub(super) const NOTHING: &str = "–";

/// How many characters of the first column stand in one line of text.
const FIRST_COLUMN: usize = 60;

#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) head: Vec<Column>,
    pub(super) rows: Vec<Vec<Cell>>,
}

#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    /// As numbers are.
    pub(super) right: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tone: Tone,
}

/// How a cell, or a word, is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Bad,
    Faint,
}

impl Table {
    /// The columns whose names begin with `<` are of words, the others of numbers.
    pub(super) fn new(names: &[&str]) -> Self {
        let column =
            |name: &&str| Column { name: name.trim_start_matches('<').into(), right: !name.starts_with('<') };
        Self { head: names.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Leaves out the columns, but for the first, in which no row has anything.
    pub(super) fn without_empty_columns(mut self) -> Self {
        let kept = |index: usize| {
            index == 0 || self.rows.iter().any(|row| row.get(index).is_some_and(|cell| cell.text != NOTHING))
        };
        let kept: Vec<bool> = (0..self.head.len()).map(kept).collect();
        let mut keep = kept.iter().copied().cycle();
        self.head.retain(|_| keep.next().unwrap_or(true));
        for row in &mut self.rows {
            let mut keep = kept.iter().copied();
            row.retain(|_| keep.next().unwrap_or(true));
        }
        self
    }

    /// As lines of text whose columns are aligned; `paint` gives a cell its tone. What is long in the first column goes on
    /// in the next line.
    pub(super) fn text(&self, indent: &str, paint: impl Fn(Tone, &str) -> String) -> String {
        let head: Vec<Cell> = self.head.iter().map(|column| Cell::of(&column.name, Tone::Faint)).collect();
        let rows = std::iter::once(&head).chain(&self.rows).flat_map(|row| folded(row));
        let rows: Vec<Vec<Cell>> = rows.collect();
        let width = |index: usize| {
            let cells = rows.iter().filter_map(|row| row.get(index));
            cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for row in &rows {
            let mut line = String::from(indent);
            let mut owed = 0;
            for ((cell, column), width) in row.iter().zip(&self.head).zip(&widths) {
                let missing = width.saturating_sub(cell.text.chars().count());
                let (before, after) = if column.right { (missing, 0) } else { (0, missing) };
                let _ =
                    write!(line, "{:spaces$}{}", "", paint(cell.tone, &cell.text), spaces = owed + before);
                owed = after + 2;
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A row as the lines that its first cell takes; the other cells are in the first of them.
fn folded(row: &[Cell]) -> Vec<Vec<Cell>> {
    let Some((first, others)) = row.split_first() else { return Vec::new() };
    let mut lines = vec![String::new()];
    for word in first.text.split(' ') {
        let line = lines.last_mut().map_or(0, |line| line.chars().count());
        match lines.last_mut() {
            Some(last) if line == 0 || line + 1 + word.chars().count() <= FIRST_COLUMN => {
                last.push_str(if line == 0 { "" } else { " " });
                last.push_str(word);
            }
            _ => lines.push(format!("  {word}")),
        }
    }
    let mut rows: Vec<Vec<Cell>> = lines.into_iter().map(|line| vec![Cell::of(line, first.tone)]).collect();
    rows.iter_mut().take(1).for_each(|row| row.extend_from_slice(others));
    rows
}

impl Cell {
    pub(super) fn of(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }

    pub(super) fn nothing() -> Self {
        Self::of(NOTHING, Tone::Faint)
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::of(text, Tone::Plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["<figure", "value µs", "empty", "<verdict"]);
        table.rows.push(vec!["p50".into(), "12.3".into(), Cell::nothing(), Cell::of("met", Tone::Good)]);
        table.rows.push(vec!["p99.9".into(), "1,234".into(), Cell::nothing(), Cell::nothing()]);
        table.without_empty_columns()
    }

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        let text = table().text("  ", |_, text| text.to_owned());
        let expected =
            ["  figure  value µs  verdict", "  p50         12.3  met", "  p99.9      1,234  –", ""];
        assert_eq!(text.split('\n').collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_long_goes_on_in_the_next_line() {
        let mut table = Table::new(&["<figure", "value"]);
        table.rows.push(vec![
            "Two hops, mutual TLS: CPU per request to the lesser of both others' pairs".into(),
            "1".into(),
        ]);
        let lines: Vec<String> =
            table.text("", |_, text| text.to_owned()).lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("to the lesser of both") && lines[1].ends_with('1'), "{lines:?}");
        assert_eq!(lines[2], "  others' pairs");
    }

    #[test]
    fn colours_take_no_room() {
        let plain = table().text("", |_, text| text.to_owned());
        let painted = table().text("", |tone, text| {
            if tone == Tone::Plain { text.to_owned() } else { format!("\x1b[2m{text}\x1b[0m") }
        });
        assert_eq!(painted.replace("\x1b[2m", "").replace("\x1b[0m", ""), plain);
    }
}

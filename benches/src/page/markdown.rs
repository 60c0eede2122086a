//! A page as Markdown (CommonMark with GitHub's tables).

use std::fmt::Write;

use super::{
    document::{Block, TITLE},
    table::{Cell, Table},
};

/// The whole page.
pub(super) fn page(blocks: &[Block]) -> String {
    let mut page = format!("# {TITLE}\n\n");
    write(&mut page, blocks);
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

fn write(page: &mut String, blocks: &[Block]) {
    for block in blocks {
        let _ = match block {
            Block::Heading(text) => writeln!(page, "## {}\n", inline(text)),
            Block::Text(text) => writeln!(page, "{}\n", inline(text)),
            Block::Warning(text) => writeln!(page, "> **{}**\n", inline(text)),
            Block::List(items) => {
                for item in items {
                    let _ = writeln!(page, "- {}", inline(item));
                }
                writeln!(page)
            }
            Block::Table(shown) | Block::Figures(shown, _) => writeln!(page, "{}", table(shown)),
            // Pictures are the HTML page's.
            Block::Plots(_) => Ok(()),
            Block::Details(summary, blocks) => {
                let _ = writeln!(page, "<details><summary>{}</summary>\n", inline(summary));
                write(page, blocks);
                writeln!(page, "</details>\n")
            }
            Block::Code(text) => {
                let fence = fence(text);
                writeln!(page, "{fence}\n{}\n{fence}\n", text.trim_end())
            }
        };
    }
}

fn table(table: &Table) -> String {
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let cell = |cell: &Cell| inline(&cell.text);
    let mut text = row(table.head.iter().map(|column| inline(&column.name)).collect());
    text += &row(table.head.iter().map(|column| if column.right { "---:" } else { "---" }.into()).collect());
    for cells in &table.rows {
        text += &row(cells.iter().map(cell).collect());
    }
    text
}

/// Text that means nothing but itself, within a line.
fn inline(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' => safe.extend(['\\', c]),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// Longer than any row of backticks in the text.
fn fence(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    "`".repeat(longest.max(2) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_means_only_itself() {
        assert_eq!(inline("a|b\n<b>*x*_[y](z)"), "a\\|b &lt;b&gt;\\*x\\*\\_\\[y\\](z)");
        assert_eq!(fence("a"), "```");
        assert_eq!(fence("a ```` b"), "`````");
    }

    #[test]
    fn tables_keep_their_alignment() {
        let mut shown = Table::new(&["<name", "value"]);
        shown.rows.push(vec!["a".into(), "1".into()]);
        assert_eq!(table(&shown), "| name | value |\n| --- | ---: |\n| a | 1 |\n");
    }
}

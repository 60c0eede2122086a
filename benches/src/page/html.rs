//! A page as HTML that needs nothing else: no network, no script. It is well-formed XML too.

use std::fmt::Write;

use super::{
    document::{Block, TITLE},
    plot::Plot,
    svg::Escaped,
    table::{Cell, Column, Table, Tone},
};

/// The whole page.
pub(super) fn page(blocks: &[Block]) -> String {
    let style = include_str!("style.css");
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>{TITLE}</title>\n<style>\n{style}</style>\n\
         </head>\n<body>\n<main>\n<h1>{TITLE}</h1>\n"
    );
    write(&mut page, blocks);
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn write(page: &mut String, blocks: &[Block]) {
    for block in blocks {
        let _ = match block {
            Block::Heading(text) => writeln!(page, "<h2>{}</h2>", Escaped(text)),
            Block::Text(text) => writeln!(page, "<p>{}</p>", Escaped(text)),
            Block::Warning(text) => writeln!(page, "<p class=\"warning\">{}</p>", Escaped(text)),
            Block::List(items) => {
                let items = items.iter().map(|item| format!("<li>{}</li>\n", Escaped(item)));
                writeln!(page, "<ul>\n{}</ul>", items.collect::<String>())
            }
            Block::Table(shown) => writeln!(page, "<div class=\"wide\">{}</div>", table(shown, "", &[])),
            Block::Figures(shown, pictures) => writeln!(page, "{}", table(shown, "figures", pictures)),
            Block::Plots(plots) => {
                let plots = plots.iter().map(plot);
                writeln!(page, "<div class=\"plots\">\n{}</div>", plots.collect::<String>())
            }
            Block::Details(summary, blocks) => {
                let _ = writeln!(page, "<details>\n<summary>{}</summary>", Escaped(summary));
                write(page, blocks);
                writeln!(page, "</details>")
            }
            Block::Code(text) => writeln!(page, "<pre>{}</pre>", Escaped(text.trim_end())),
        };
    }
}

fn plot(plot: &Plot) -> String {
    let mut text = format!("<figure>\n<h3>{}</h3>\n", Escaped(&plot.title));
    if !plot.legend.is_empty() {
        let key = |(name, class): &(String, String)| {
            let line = r#"<svg viewBox="0 0 26 10" aria-hidden="true"><path d="M1 5L25 5" class="line "#;
            format!("<li>{line}{class}\"/></svg>{}</li>\n", Escaped(name))
        };
        let _ =
            writeln!(text, "<ul class=\"legend\">\n{}</ul>", plot.legend.iter().map(key).collect::<String>());
    }
    let _ = writeln!(text, "{}\n<figcaption>{}</figcaption>\n</figure>", plot.svg, Escaped(&plot.caption));
    text
}

/// A table; on a narrow screen, where each of `figures` becomes a card, cells carry the names of their columns.
fn table(table: &Table, class: &str, pictures: &[Option<String>]) -> String {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let mut text = format!("<table{class}>\n");
    if table.head.iter().any(|column| !column.name.is_empty()) {
        let names =
            table.head.iter().map(|column| format!("<th{}>{}</th>", side(column), Escaped(&column.name)));
        let picture = if pictures.is_empty() { "" } else { "<th>beside its target</th>" };
        let _ = writeln!(text, "<thead><tr>{}{picture}</tr></thead>", names.collect::<String>());
    }
    text.push_str("<tbody>\n");
    for (index, row) in table.rows.iter().enumerate() {
        let cells = row.iter().zip(&table.head).map(|(cell, column)| self::cell(cell, column));
        let picture = pictures
            .get(index)
            .map(|picture| format!("<td class=\"picture\">{}</td>", picture.as_deref().unwrap_or_default()));
        let (cells, picture) = (cells.collect::<String>(), picture.unwrap_or_default());
        let _ = writeln!(text, "<tr>{cells}{picture}</tr>");
    }
    text.push_str("</tbody>\n</table>");
    text
}

fn side(column: &Column) -> &'static str {
    if column.right { " class=\"number\"" } else { "" }
}

fn cell(cell: &Cell, column: &Column) -> String {
    let side = if column.right { "number" } else { "" };
    let tone = match cell.tone {
        Tone::Plain => "",
        Tone::Good => "good",
        Tone::Bad => "bad",
        Tone::Faint => "faint",
    };
    let classes = [side, tone].into_iter().filter(|class| !class.is_empty()).collect::<Vec<_>>().join(" ");
    let class = if classes.is_empty() { classes } else { format!(" class=\"{classes}\"") };
    format!("<td{class} data-name=\"{}\">{}</td>", Escaped(&column.name), Escaped(&cell.text))
}

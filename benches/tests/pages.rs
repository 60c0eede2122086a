//! The pages of a run that never was, through the door that `outrigger-bench report` and `compare` use.
//!
//! They are left in Cargo's `target/tmp/pages`, to be looked at.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "pages/synthetic.rs"]
mod synthetic;

use std::{
    fs,
    path::{Path, PathBuf},
};

use outrigger_benches::{
    page::{self, CompareArgs, Look, ReportArgs, terminal},
    result::{Run, Saved},
};
use roxmltree::{Document, Node, ParsingOptions};
use synthetic::NASTY;

/// A new folder that stays.
fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages").join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn pages(dir: &Path) -> (String, String) {
    page::write(&Saved::read(dir).unwrap(), dir).unwrap();
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    (read("report.html"), read("report.md"))
}

fn parse(page: &str) -> Document<'_> {
    Document::parse_with_options(page, ParsingOptions { allow_dtd: true, ..ParsingOptions::default() })
        .unwrap()
}

fn text(node: Node<'_, '_>) -> String {
    node.descendants().filter_map(|node| node.text().filter(|_| node.is_text())).collect()
}

#[test]
fn the_page_is_whole_and_needs_nothing_else() {
    let dir = folder("whole");
    let run = synthetic::write(&dir, 1, 1.0);
    let (html, _) = pages(&dir);
    let page = parse(&html);
    let all = || page.root().descendants().filter(Node::is_element);
    for node in all() {
        assert!(!["script", "link", "img", "iframe", "object", "base"].contains(&node.tag_name().name()));
        for attribute in node.attributes() {
            assert!(!["src", "href", "srcset", "style"].contains(&attribute.name()), "{attribute:?}");
            assert!(!attribute.name().starts_with("on"), "{attribute:?}");
        }
    }
    assert!(!html.contains("url(") && !html.contains("@import") && !html.contains("http://"));
    let said = text(page.root());
    for figure in &run.figures {
        assert!(said.contains(&figure.title) && said.contains(&figure.id), "{}", figure.title);
    }
    for scenario in &run.scenarios {
        assert!(said.contains(&format!("{}: {}", scenario.name, scenario.title)), "{}", scenario.name);
        scenario
            .subjects
            .iter()
            .for_each(|subject| assert!(said.contains(&subject.name), "{}", subject.name));
    }
    assert!(said.contains(NASTY), "what others said is there, as text");
    let plots: Vec<&str> =
        all().filter(|node| node.has_tag_name("h3")).filter_map(|node| node.text()).collect();
    let expected = [
        "CPU per request",
        "Memory",
        "Latency by percentile",
        "CPU per request",
        "Latency against load",
        "Memory",
    ];
    assert_eq!(plots, expected);
}

#[test]
fn nothing_that_is_drawn_lies_outside_or_on_other_words() {
    let dir = folder("drawn");
    synthetic::write(&dir, 2, 1.0);
    let (html, _) = pages(&dir);
    let page = parse(&html);
    let number =
        |node: &Node<'_, '_>, name: &str| node.attribute(name).map(|value| value.parse::<f64>().unwrap());
    for svg in page.root().descendants().filter(|node| node.has_tag_name("svg")) {
        let size: Vec<f64> =
            svg.attribute("viewBox").unwrap().split(' ').map(|number| number.parse().unwrap()).collect();
        let mut words: Vec<(f64, f64, f64, String)> = Vec::new();
        for node in svg.descendants().filter(Node::is_element) {
            for (names, most) in [(["x", "x1", "x2", "cx"], size[2]), (["y", "y1", "y2", "cy"], size[3])] {
                for value in names.iter().filter_map(|name| number(&node, name)) {
                    assert!((0.0..=most).contains(&value), "{value} of {most}: {node:?}");
                }
            }
            if node.has_tag_name("text") {
                // A character is 7 wide, generously, and a line 12 high.
                let said = text(node);
                let (x, y) = (number(&node, "x").unwrap(), number(&node, "y").unwrap());
                let width = 7.0 * said.chars().count() as f64;
                let left = match node.attribute("text-anchor").unwrap() {
                    "end" => x - width,
                    "middle" => x - width / 2.0,
                    _ => x,
                };
                assert!(left >= -8.0 && left + width <= size[2] + 8.0, "{said} does not fit");
                for (other_left, other_right, other_y, other) in &words {
                    let apart =
                        left >= *other_right || left + width <= *other_left || (y - other_y).abs() >= 12.0;
                    assert!(apart, "{said} lies on {other}");
                }
                words.push((left, left + width, y, said));
            }
        }
    }
}

#[test]
fn markdown_says_the_same() {
    let dir = folder("markdown");
    let run = synthetic::write(&dir, 3, 1.0);
    let (_, markdown) = pages(&dir);
    let (mut fence, mut outside) = (None, String::new());
    for line in markdown.lines() {
        match fence {
            Some(end) if line == end => fence = None,
            None if line.starts_with("```") => fence = Some(line),
            Some(_) => {}
            None => outside.push_str(line),
        }
    }
    assert!(
        fence.is_none() && !outside.contains("<script"),
        "files are shown as they are, all else is escaped"
    );
    for figure in &run.figures {
        assert!(
            markdown.lines().any(|line| line.starts_with(&format!("| {} |", figure.title))),
            "{}",
            figure.title
        );
    }
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    for table in markdown.split("\n\n").filter(|part| part.starts_with('|')) {
        let all = columns(table.lines().next().unwrap());
        assert!(table.lines().all(|line| columns(line) == all), "{table}");
    }
}

#[test]
fn the_terminal_has_the_figures_first_and_colour_only_when_asked() {
    let dir = folder("terminal");
    let run = synthetic::write(&dir, 4, 1.0);
    let plain = terminal::text(&run, &[dir.join("report.html")], Look::Plain);
    assert!(!plain.contains('\x1b'));
    assert!(terminal::text(&run, &[], Look::Colour).contains("\x1b[32mmet"));
    let verdicts = plain.lines().filter(|line| line.ends_with("met") || line.ends_with("met?")).count();
    assert!(plain.starts_with("Figures") && verdicts >= 3, "{plain}");
    let places: Vec<usize> =
        ["Figures", "plain: ", "What does not count", "Not measured", "Written", "report.html"]
            .iter()
            .map(|part| plain.find(part).unwrap_or_else(|| panic!("{part} is not in {plain}")))
            .collect();
    assert!(places.is_sorted(), "{plain}");
}

#[test]
fn a_run_without_its_histograms_still_has_its_page() {
    let dir = folder("without");
    synthetic::write(&dir, 5, 1.0);
    fs::remove_dir_all(dir.join("histograms")).unwrap();
    page::report(&ReportArgs { path: dir.join("results.json"), out: None, json: true }).unwrap();
    assert!(fs::read_to_string(dir.join("report.html")).unwrap().contains("Latency by percentile"));
}

#[test]
fn a_run_that_was_interrupted_at_once_has_a_page() {
    let dir = folder("empty");
    let run = synthetic::write(&folder("whole-before"), 6, 1.0);
    let run = Run { interrupted: true, scenarios: vec![], figures: vec![], skipped: vec![], ..run };
    run.write(&dir).unwrap();
    let (html, markdown) = pages(&dir);
    parse(&html);
    assert!(html.contains("Interrupted") && markdown.contains("Interrupted"));
}

#[test]
fn a_dearer_run_is_worse_and_another_of_the_same_is_not() {
    let (first, again, dearer) = (folder("first"), folder("again"), folder("dearer"));
    synthetic::write(&first, 7, 1.0);
    synthetic::write(&again, 8, 1.0);
    synthetic::write(&dearer, 9, 1.2);
    let compare = |a: &Path, b: &Path, fail_above| {
        page::compare(&CompareArgs { a: a.into(), b: b.join("results.json"), json: false, fail_above })
    };
    assert!(compare(&first, &again, Some(5.0)).unwrap());
    assert!(compare(&first, &dearer, None).unwrap(), "only a limit fails");
    assert!(!compare(&first, &dearer, Some(5.0)).unwrap());
    assert!(compare(&first, &dearer, Some(40.0)).unwrap());
    assert!(compare(&dearer, &first, Some(5.0)).unwrap(), "what is better is fine");
}

#[test]
fn what_is_written_is_read() {
    let dir = folder("read");
    let run = synthetic::write(&dir, 10, 1.0);
    let saved = Saved::read(&dir).unwrap();
    let ids = |run: &Run| run.figures.iter().map(|figure| figure.id.clone()).collect::<Vec<_>>();
    assert_eq!((&saved.run.host, ids(&saved.run)), (&run.host, ids(&run)));
    for subject in run.scenarios.iter().flat_map(|scenario| &scenario.subjects) {
        let log = saved.log(subject).unwrap();
        assert_eq!(
            log.is_some(),
            subject.samples.iter().any(|sample| sample.latency.is_some()),
            "{}",
            subject.name
        );
    }
}

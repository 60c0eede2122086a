//! Every link within the pages leads to a file that is there, and to a heading of it.

use std::collections::BTreeSet;

/// The text of a page without its blocks.
fn prose(page: &str) -> String {
    let text = std::fs::read_to_string(crate::root().join(page)).unwrap();
    text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// The headings of a page as links name them.
fn anchors(page: &str) -> BTreeSet<String> {
    let anchor = |heading: &str| -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || ['-', ' ', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    prose(page)
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')))
        .map(anchor)
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let (root, mut seen) = (crate::root().canonicalize().unwrap(), 0);
    for page in crate::PAGES {
        let text = prose(page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next()) {
            if link.starts_with("http") {
                continue;
            }
            let (file, heading) = link.split_once('#').map_or((link, None), |(f, h)| (f, Some(h)));
            let beside = root.join(page);
            let to = if file.is_empty() { beside } else { beside.parent().unwrap().join(file) };
            let to = to.canonicalize().unwrap_or_else(|_| panic!("{page}: {link} leads nowhere"));
            if let Some(heading) = heading {
                let known = anchors(to.strip_prefix(&root).unwrap().to_str().unwrap());
                assert!(known.contains(heading), "{page}: {link} is no heading: {known:?}");
            }
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}

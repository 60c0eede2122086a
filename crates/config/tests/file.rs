//! The file: what it accepts, and how it says what it does not.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use outrigger_config::{Kind, file};

const DESIGN: &str = include_str!("files/design.yaml");

#[test]
fn the_designs_example_is_right() {
    let file = file::parse(DESIGN).unwrap();
    assert_eq!(file.rejected, []);
    assert_eq!(file.warnings, []);
    assert_eq!(file.admin, Some("127.0.0.1:15000".parse().unwrap()));
    let kinds: Vec<Kind> = file.resources.iter().map(outrigger_config::Resource::kind).collect();
    let count = |kind| kinds.iter().filter(|k| **k == kind).count();
    assert_eq!(Kind::ALL.map(count), [3, 1, 1, 6, 1]);
}

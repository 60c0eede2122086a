//! The example units for systemd: they are right, and their commands are ours.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn units() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/systemd");
    let mut units: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    units.sort();
    units
}

#[test]
fn every_unit_starts_our_command_with_options_that_it_has() {
    let help = Command::new(env!("CARGO_BIN_EXE_outrigger")).args(["run", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let mut started = 0;
    for unit in units() {
        let text = std::fs::read_to_string(&unit).unwrap();
        for command in text.lines().filter_map(|line| line.strip_prefix("ExecStart=")) {
            let mut words = command.split_whitespace();
            assert_eq!((words.next(), words.next()), (Some("/usr/bin/outrigger"), Some("run")), "{unit:?}");
            for option in words.filter(|word| word.starts_with('-')) {
                let known = [" <", ", "].iter().any(|after| help.contains(&format!("{option}{after}")));
                assert!(known, "{unit:?}: {option}");
            }
            started += 1;
        }
    }
    assert_eq!(started, 2);
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("skipped: needs systemd-analyze");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut copies = Vec::new();
    for unit in units() {
        let text = std::fs::read_to_string(&unit).unwrap();
        let name = unit.file_name().unwrap().to_str().unwrap().replace("@.", "@green.");
        let copy = folder.path().join(name);
        std::fs::write(&copy, text.replace("/usr/bin/outrigger", env!("CARGO_BIN_EXE_outrigger"))).unwrap();
        copies.push(copy);
    }
    let analyzed = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&copies)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&analyzed.stderr).into_owned();
    assert!(analyzed.status.success() && !said.contains("outrigger"), "{said}");
}

//! The harness from its door, without a proxy: the application, measured directly.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::process::Command;

use outrigger_benches::{path::Path, report::Report};

fn bench(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_outrigger-bench")).arg("run").args(args).output().unwrap()
}

#[test]
fn measures_the_direct_path_and_writes_json() {
    let dir = tempfile::tempdir().unwrap();
    for protocol in ["h1", "h2"] {
        let json = dir.path().join(protocol);
        let short =
            ["--paths", "direct", "--seconds", "0.5", "--warmup", "0.1", "--rate", "200", "--body", "100"];
        let output =
            bench(&[&short[..], &["--protocol", protocol, "--json", json.to_str().unwrap()]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(table.starts_with("200 requests per second for 0.5 s"), "{table}");
        let report: Report = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
        let [section] = &report.sections[..] else { panic!("{report:?}") };
        let [direct] = &section.paths[..] else { panic!("{report:?}") };
        assert_eq!((direct.path, direct.requests, direct.errors), (Path::Direct, 100, 0));
        assert!(direct.latency.p50 > 0.0 && direct.latency.p50 <= direct.latency.max);
        assert!(direct.cpu_per_request.is_none());
    }
}

#[test]
fn says_how_to_get_what_is_missing() {
    let output = bench(&["--paths", "proxy", "--outrigger", "/nowhere/outrigger"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("there is no proxy at /nowhere/outrigger: build it with `cargo build"),
        "{errors}"
    );

    let bin = env!("CARGO_BIN_EXE_outrigger-bench");
    let arguments = ["run", "--paths", "direct", "--against", "nginx"];
    let output = Command::new(bin).args(arguments).env("PATH", "/nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("nginx is not in PATH: install it"), "{errors}");
}

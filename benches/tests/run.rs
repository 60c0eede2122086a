//! The harness from its door: the application measured directly, and through stand-ins that cost nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

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
        let report: Report = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
        let [section] = &report.sections[..] else { panic!("{report:?}") };
        let [direct] = &section.paths[..] else { panic!("{report:?}") };
        assert_eq!((direct.path, direct.requests, direct.errors), (Path::Direct, 100, 0));
        assert!(direct.latency.p50 > 0.0 && direct.latency.p50 <= direct.latency.max);
        assert!(direct.cpu_per_request.is_none());
    }
}

/// What answers `outrigger run -c FILE …` here: it sends callers straight to the endpoint that FILE names.
const STAND_IN: &str = r#"#!/bin/sh
[ "$1 $2" = "run -c" ] && [ "$4 $5 $6 $7 $8" = "--workers 1 --access-log off --extra" ] || exit 1
echo "outrigger: admin on http://127.0.0.1:1"
echo "outrigger: listener bench on $(sed -n "s/.*{ address: '\([0-9.:]*\)'.*/\1/p" "$3")"
exec sleep 600
"#;

#[test]
fn starts_proxies_and_counts_what_they_take() {
    let dir = tempfile::tempdir().unwrap();
    let (outrigger, json) = (dir.path().join("outrigger"), dir.path().join("json"));
    fs::write(&outrigger, STAND_IN).unwrap();
    fs::set_permissions(&outrigger, fs::Permissions::from_mode(0o755)).unwrap();
    let short =
        ["--saturate", "--paths", "proxy,sidecars", "--seconds", "0.1", "--warmup", "0", "--rounds", "2"];
    let files = [
        "--proxy-arg",
        "--extra",
        "--outrigger",
        outrigger.to_str().unwrap(),
        "--json",
        json.to_str().unwrap(),
    ];
    let output = bench(&[&short[..], &files].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Report = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    let paths = &report.sections[0].paths;
    assert_eq!(paths.iter().map(|path| path.path).collect::<Vec<_>>(), [Path::Proxy, Path::Sidecars]);
    for path in paths {
        assert!(path.requests > 0 && path.errors == 0);
        assert_eq!(path.cpu_per_request.as_ref().unwrap().rounds.len(), 2);
        assert!(path.resident_kib.unwrap().idle > 0);
    }
}

#[test]
fn measures_the_proxy_itself() {
    let outrigger = std::path::Path::new(env!("CARGO_BIN_EXE_outrigger-bench")).with_file_name("outrigger");
    if !outrigger.is_file() {
        println!("skipped: needs {}, which `cargo test --workspace` builds", outrigger.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for protocol in ["h1", "h2"] {
        let json = dir.path().join(protocol);
        let short = ["--paths", "proxy,sidecars", "--seconds", "0.5", "--warmup", "0.1", "--rate", "100"];
        let output =
            bench(&[&short[..], &["--protocol", protocol, "--json", json.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Report = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
        for path in &report.sections[0].paths {
            assert_eq!((path.requests, path.errors), (50, 0), "{report:?}");
            assert!(path.resident_kib.unwrap().idle > 0);
        }
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

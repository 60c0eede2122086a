//! The harness from its door: short runs of what needs nothing else, and of stand-ins that cost nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use outrigger_benches::{
    callee::Callee,
    load::{Arrivals, Connect, Load, Tls, Traffic},
    result::{Run, Saved, Verdict},
};
use rustix::process::{Pid, Signal, kill_process};

const BIN: &str = env!("CARGO_BIN_EXE_outrigger-bench");

fn bench(line: &str, files: &[&Path]) -> Output {
    let mut command = Command::new(BIN);
    command.arg("run").args(line.split_whitespace());
    for (option, file) in ["--out", "--outrigger"].into_iter().zip(files) {
        command.arg(option).arg(file);
    }
    command.output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn read(dir: &Path) -> Run {
    Saved::read(dir).unwrap().run
}

/// What answers `outrigger --version` and `outrigger run -c FILE …` here: the forwarder, from the listener of FILE to its
/// endpoint.
const STAND_IN: &str = r#"#!/bin/sh
[ "$1" = "--version" ] && echo "outrigger 0.0.0 (stand-in)" && exit
[ "$1 $2" = "run -c" ] || exit 1
listen=$(sed -n "s/.*name: bench, address: '*\([0-9.:]*\).*/\1/p" "$3")
to=$(sed -n "s/.*{ address: '\([0-9.:]*\)'.*/\1/p" "$3")
echo "outrigger: admin on http://127.0.0.1:1"
exec BIN forward --listen "$listen" --to "$to"
"#;

fn stand_in(dir: &Path) -> PathBuf {
    let path = dir.join("outrigger");
    fs::write(&path, STAND_IN.replace("BIN", BIN)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn subjects_take_turns_and_everything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("results");
    let line = "--subjects direct,forwarder --arrivals saturated --duration 50ms --repetitions 2";
    let output = bench(line, &[&out]);
    assert!(output.status.success(), "{}", errors(&output));
    let run = read(&out);
    assert!(!run.interrupted && run.skipped.iter().all(|skipped| skipped.what == "system calls"), "{run:?}");
    let [custom] = &run.scenarios[..] else { panic!("{run:?}") };
    let mut samples: Vec<_> = custom
        .subjects
        .iter()
        .flat_map(|subject| {
            subject.samples.iter().map(|sample| (sample.at, sample.repetition, &subject.name))
        })
        .collect();
    samples.sort_by(|one, other| one.0.total_cmp(&other.0));
    let order: Vec<_> = samples.iter().map(|(_, repetition, name)| (*repetition, name.as_str())).collect();
    let there_and_back = |n| [(n, "direct"), (n, "forwarder"), (n, "forwarder"), (n, "direct")];
    assert_eq!(order, [there_and_back(0), there_and_back(1)].concat());
    let [direct, forwarder] = &custom.subjects[..] else { panic!("{custom:?}") };
    assert!(direct.samples.iter().all(|sample| sample.answered > 0 && sample.spent.is_none()));
    assert!(forwarder.samples.iter().all(|sample| sample.spent.is_some_and(|spent| spent.cpu > 0.0)));
    for subject in &custom.subjects {
        assert!(out.join(subject.log.as_ref().unwrap()).is_file());
    }
    for page in ["report.md", "report.html"] {
        assert!(fs::read_to_string(out.join(page)).unwrap().contains("forwarder"), "{page}");
    }
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("forwarder") && table.contains(out.to_str().unwrap()), "{table}");

    let again = bench(line, &[&out]);
    assert_eq!(again.status.code(), Some(1));
    assert!(errors(&again).contains("there are results in"), "{}", errors(&again));
}

#[test]
fn json_goes_where_it_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let output = bench(
        "--subjects direct --arrivals saturated --duration 20ms --repetitions 1 --json -",
        &[&dir.path().join("results")],
    );
    assert!(output.status.success(), "{}", errors(&output));
    let run: Run = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(run.scenarios[0].subjects[0].name, "direct");
}

#[test]
fn figures_with_targets_come_from_subjects_of_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let (out, outrigger) = (dir.path().join("results"), stand_in(dir.path()));
    let output = bench("plain --duration 20ms --repetitions 3 --quick", &[&out, &outrigger]);
    assert!(output.status.success(), "{}", errors(&output));
    let run = read(&out);
    let figure = |id: &str| run.figures.iter().find(|figure| figure.id == id).unwrap();
    let forwarder = figure("plain.cpu.forwarder");
    assert!(forwarder.value.unwrap() > 0.0 && forwarder.interval.is_some() && forwarder.noise.is_some());
    assert!([Verdict::Met, Verdict::Missed].contains(&forwarder.verdict), "{forwarder:?}");
    let nginx = figure("plain.cpu.nginx");
    assert_eq!(nginx.verdict, Verdict::Unknown);
    assert_eq!(nginx.basis, "not measured: nginx was not asked for (--against)");
    assert!(run.figures.iter().all(|figure| figure.id.starts_with("plain")));
}

#[test]
fn what_is_missing_is_skipped_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (out, outrigger) = (dir.path().join("results"), stand_in(dir.path()));
    let mut command = Command::new(BIN);
    let line = "run plain --duration 20ms --repetitions 1 --quick --against nginx";
    command.args(line.split_whitespace()).arg("--out").arg(&out).arg("--outrigger").arg(&outrigger);
    // Where a shell is, and nothing else.
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for program in ["sh", "sed"] {
        let found = ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(program));
        let found = found.iter().find(|file| file.is_file()).unwrap();
        std::os::unix::fs::symlink(found, bin.join(program)).unwrap();
    }
    let output = command.env("PATH", &bin).output().unwrap();
    let run = read(&out);
    if run.skipped.iter().all(|skipped| !skipped.what.contains("nginx")) {
        println!("skipped: needs a system without nginx in /usr/sbin");
        return;
    }
    assert!(output.status.success(), "{}", errors(&output));
    let nginx = run.skipped.iter().find(|skipped| skipped.what.contains("nginx")).unwrap();
    assert_eq!(nginx.what, "nginx in plain, nginx in plain-1k");
    assert!(nginx.why.contains("install it"), "{nginx:?}");
    let figure = run.figures.iter().find(|figure| figure.id == "plain.cpu.nginx").unwrap();
    assert_eq!(figure.basis, format!("not measured: {}", nginx.why));
}

#[test]
fn a_proxy_that_is_missing_is_told_before_anything_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let output = bench("plain", &[&dir.path().join("results"), Path::new("/nowhere/outrigger")]);
    assert_eq!(output.status.code(), Some(1));
    let errors = errors(&output);
    assert!(
        errors.contains("there is no proxy at /nowhere/outrigger: build it with `cargo build"),
        "{errors}"
    );
}

#[test]
fn a_rate_that_cannot_be_had_is_rejected_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("results");
    let line = "--subjects direct --arrivals fixed --rate 2000000 --connections 1 --duration 10ms --repetitions 1 --quick";
    let output = bench(line, &[&out]);
    assert_eq!(output.status.code(), Some(1), "what was to be measured was not");
    let run = read(&out);
    let samples = &run.scenarios[0].subjects[0].samples;
    assert_eq!(samples.len(), 2, "it is tried once more: {samples:?}");
    for sample in samples {
        let why = sample.rejected.as_ref().unwrap();
        assert!(why.contains("not 2000000: off by more than 1%"), "{why}");
    }
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("off by more than 1%"), "{table}");
}

#[test]
fn a_signal_leaves_what_was_measured_and_no_process() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let dir = tempfile::tempdir().unwrap();
        let (out, outrigger) = (dir.path().join("results"), stand_in(dir.path()));
        let line = "run start protocols --quick --duration 20ms --repetitions 2";
        let mut child = Command::new(BIN)
            .args(line.split_whitespace())
            .arg("--out")
            .arg(&out)
            .arg("--outrigger")
            .arg(&outrigger)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        // The third part has begun, so the second is done, and has been written down.
        lines.find(|line| line.contains(" 3/")).unwrap();
        let children = children(child.id());
        kill_process(Pid::from_child(&child), signal).unwrap();
        lines.for_each(drop);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        let run = read(&out);
        assert!(run.interrupted);
        assert!(run.scenarios[1].subjects.iter().all(|subject| subject.samples.len() == 2), "{run:?}");
        assert!(fs::read_to_string(out.join("report.md")).unwrap().to_lowercase().contains("interrupted"));
        for child in children {
            let stat = fs::read_to_string(format!("/proc/{child}/stat"));
            assert!(stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z ")), "{child} still runs");
        }
    }
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.unwrap().path().join("children"));
    tasks
        .filter_map(|task| of(task).ok())
        .flat_map(|children| children.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

#[tokio::test]
async fn what_runs_already_can_be_measured() {
    let load = Load {
        traffic: Traffic::Http1,
        arrivals: Arrivals::Saturated,
        connections: 1,
        streams: 1,
        request_bytes: 0,
        response_bytes: 17,
        connect: Connect::Keep,
        tls: Tls::Off,
        seed: 1,
    };
    let application = Callee::start(&load).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("results");
    let address = application.address();
    let line = format!(
        "--to {address} --through {address} --arrivals saturated --duration 20ms --repetitions 1 --host app --path /x"
    );
    let output = tokio::task::spawn_blocking({
        let out = out.clone();
        move || bench(&line, &[&out])
    });
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    let run = read(&out);
    let subjects = &run.scenarios[0].subjects;
    assert_eq!(subjects.iter().map(|subject| &subject.name).collect::<Vec<_>>(), ["direct", "through"]);
    assert!(subjects.iter().all(|subject| subject.samples.iter().all(|sample| sample.answered > 0)));
    assert!(application.seen() > 0);
}

#[test]
fn measures_the_proxy_itself() {
    let outrigger = Path::new(BIN).with_file_name("outrigger");
    if !outrigger.is_file() {
        println!("skipped: needs {}, which `cargo test --workspace` builds", outrigger.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for traffic in ["http1", "http2", "grpc"] {
        let out = dir.path().join(traffic);
        let line = format!(
            "--subjects outrigger,sidecars --arrivals saturated --traffic {traffic} --duration 100ms --repetitions 1"
        );
        let output = bench(&line, &[&out, &outrigger]);
        assert!(output.status.success(), "{}", errors(&output));
        for subject in &read(&out).scenarios[0].subjects {
            for sample in &subject.samples {
                assert!(sample.answered > 0 && sample.errors == 0, "{subject:?}");
                assert!(sample.resident_kib.unwrap() > 0 && sample.spent.unwrap().cpu > 0.0, "{subject:?}");
            }
        }
    }
}

#[test]
fn a_scenario_that_there_is_not_is_refused_with_what_was_meant() {
    let output = bench("latncy", &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("a similar value exists: 'latency'"), "{}", errors(&output));
}

#[test]
fn lists_what_there_is_and_how_long_it_takes() {
    let output = bench("--list", &[]);
    assert!(output.status.success());
    let list = String::from_utf8(output.stdout).unwrap();
    for name in ["plain", "http2", "grpc", "mesh", "latency", "curve", "memory", "start", "config", "workers"]
    {
        assert!(list.lines().any(|line| line.starts_with(name)), "{name}: {list}");
    }
}

//! The differential runner from its door: the corpus without a proxy, through one, and through two sidecars.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{collections::BTreeSet, process::Command};

use outrigger_benches::diff::{self, Path, Settings, Speaks};

/// What stands between the ends, what they speak, and how many exchanges that makes at least.
const MODES: [(Path, Speaks, Speaks, usize); 10] = [
    (Path::Direct, Speaks::Http1, Speaks::Http1, 360),
    (Path::Direct, Speaks::Http2, Speaks::Http2, 260),
    (Path::Proxy, Speaks::Http1, Speaks::Http1, 540),
    (Path::Proxy, Speaks::Http1, Speaks::Http2, 470),
    (Path::Proxy, Speaks::Http2, Speaks::Http1, 370),
    (Path::Proxy, Speaks::Http2, Speaks::Http2, 310),
    (Path::Sidecars, Speaks::Http1, Speaks::Http1, 540),
    (Path::Sidecars, Speaks::Http1, Speaks::Http2, 470),
    (Path::Sidecars, Speaks::Http2, Speaks::Http1, 370),
    (Path::Sidecars, Speaks::Http2, Speaks::Http2, 310),
];

/// Nothing differs that may not, and whatever may, does somewhere: a rule that nothing needs would only hide something.
#[tokio::test]
async fn nothing_differs_but_what_is_allowed() {
    let mut allowed = BTreeSet::new();
    for (path, caller, application, at_least) in MODES {
        let settings = Settings {
            paths: vec![path],
            callers: vec![caller],
            applications: vec![application],
            ..Settings::default()
        };
        let report = diff::run(&settings).await.unwrap();
        let mode = format!("{path} from {caller:?} to {application:?}");
        assert!(report.outcomes.len() >= at_least, "{mode}: {} exchanges", report.outcomes.len());
        assert!(report.failures().next().is_none(), "{mode}: {report}");
        allowed.extend(report.allowed().into_keys());
    }
    let rules: BTreeSet<_> = diff::rules().map(|rule| rule.id).collect();
    assert_eq!(allowed, rules);
}

/// What is published is what is allowed.
#[test]
fn the_page_lists_the_differences() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/HTTP.md");
    let page = std::fs::read_to_string(page).unwrap();
    let section = page.split("\n## Differences\n").nth(1).expect("a section `Differences`");
    assert!(
        section.contains(&diff::table()),
        "`outrigger-bench diff --allowed` prints what must stand there"
    );
}

fn bench(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_outrigger-bench")).arg("diff").args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_names_what_it_can_do_and_what_it_did() {
    let (code, list, _) = bench(&["--list"]);
    assert_eq!(code, Some(0));
    assert!(list.lines().count() >= 500 && list.contains("\ntarget-empty-query "), "{list}");

    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("json");
    let arguments = ["--path", "direct", "--only", "target-*", "--verbose", "--json", json.to_str().unwrap()];
    let (code, shown, progress) = bench(&arguments);
    assert_eq!(code, Some(0), "{shown}{progress}");
    assert!(progress.starts_with("direct http1→http1: "), "{progress}");
    assert!(shown.contains("  GET //a///b// HTTP/1.1\n"), "{shown}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert!(json["outcomes"].as_array().unwrap().len() > 50);

    let (code, _, errors) = bench(&["--only", "nothing-*"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("no exchange is called nothing-*"), "{errors}");
}

/// Any proxy will do: here one that leaves out what it does not like, which is seen.
#[tokio::test]
async fn another_proxy_can_be_tried() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let application = free.local_addr().unwrap();
    drop(free);
    tokio::spawn(async move {
        loop {
            let (mut caller, _) = listener.accept().await.unwrap();
            let mut callee = tokio::net::TcpStream::connect(application).await.unwrap();
            tokio::spawn(async move {
                let mut request = vec![0; 64 * 1024];
                let read = caller.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..read]).replace("//", "/");
                callee.write_all(request.as_bytes()).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut caller, &mut callee).await;
            });
        }
    });
    let settings = Settings {
        paths: vec![Path::Through { proxy, application }],
        callers: vec![Speaks::Http1],
        applications: vec![Speaks::Http1],
        only: Some("target-*ty-*".into()),
        ..Settings::default()
    };
    let report = diff::run(&settings).await.unwrap();
    let failures: Vec<_> = report.failures().collect();
    let [failure] = &failures[..] else { panic!("{report}") };
    assert_eq!(failure.exchange, "target-empty-segments");
    assert_eq!(failure.differences, ["to the application: target: //a///b// → /a//b/"]);
    assert!(failure.transcripts().contains("- GET //a///b// HTTP/1.1\n    + GET /a//b/ HTTP/1.1\n"));
}

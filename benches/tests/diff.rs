//! The differential runner from its door: the corpus without a proxy, through one, and through two sidecars.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::process::Command;

use outrigger_benches::diff::{self, Path, Report, Settings, Speaks};

async fn run(path: Path, caller: Speaks, application: Speaks) -> Report {
    let settings = Settings {
        paths: vec![path],
        callers: vec![caller],
        applications: vec![application],
        ..Settings::default()
    };
    diff::run(&settings).await.unwrap()
}

/// Nothing differs, and about as many exchanges as there should be were played.
async fn same(path: Path, caller: Speaks, application: Speaks, at_least: usize) {
    let report = run(path, caller, application).await;
    assert!(report.outcomes.len() >= at_least, "{} exchanges", report.outcomes.len());
    assert!(report.failures().next().is_none(), "{report}");
}

macro_rules! modes {
    ($($(#[$ignored:meta])? $name:ident: $path:ident $caller:ident $application:ident $at_least:literal;)*) => {$(
        #[tokio::test]
        $(#[$ignored])?
        async fn $name() {
            same(Path::$path, Speaks::$caller, Speaks::$application, $at_least).await;
        }
    )*};
}

modes! {
    direct_http1: Direct Http1 Http1 350;
    direct_http2: Direct Http2 Http2 240;
    #[ignore = "differs"]
    proxy_from_http1_to_http1: Proxy Http1 Http1 500;
    #[ignore = "differs"]
    proxy_from_http1_to_http2: Proxy Http1 Http2 440;
    #[ignore = "differs"]
    proxy_from_http2_to_http1: Proxy Http2 Http1 290;
    #[ignore = "differs"]
    proxy_from_http2_to_http2: Proxy Http2 Http2 240;
    #[ignore = "differs"]
    sidecars_from_http1_to_http1: Sidecars Http1 Http1 500;
    #[ignore = "differs"]
    sidecars_from_http1_to_http2: Sidecars Http1 Http2 440;
    #[ignore = "differs"]
    sidecars_from_http2_to_http1: Sidecars Http2 Http1 290;
    #[ignore = "differs"]
    sidecars_from_http2_to_http2: Sidecars Http2 Http2 240;
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

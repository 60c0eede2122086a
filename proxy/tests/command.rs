//! The `outrigger` command, as people and scripts meet it: what it prints, where, and how it exits.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How a command ended: its exit code, standard output, standard error.
type Ended = (Option<i32>, String, String);

fn outrigger(arguments: &[&str]) -> Ended {
    ended(Command::new(env!("CARGO_BIN_EXE_outrigger")).args(arguments))
}

fn ended(command: &mut Command) -> Ended {
    let command = command.env_remove("OUTRIGGER_NODE").stdin(Stdio::null());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        // One that goes on running fails its test, by a code that no case expects, instead of holding it up.
        if waiting.recv_timeout(Duration::from_secs(20)) == Err(RecvTimeoutError::Timeout) {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    guard.join().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A folder with one file in it, and the file's path.
fn file(text: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.yaml");
    std::fs::write(&path, text).unwrap();
    (folder, path.to_str().unwrap().to_owned())
}

const GOOD: &str = "listeners:\n  - { name: web, address: 127.0.0.1:0 }\n";

#[test]
fn check_says_ok_or_what_is_wrong_and_where() {
    let (_folder, path) = file(GOOD);
    assert_eq!(outrigger(&["check", &path]), (Some(0), "ok\n".into(), String::new()));

    let (_folder, path) = file("listeners:\n  - { name: web, adress: 127.0.0.1:80 }\nhttpRoute: []\n");
    let (code, out, err) = outrigger(&["check", &path]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    let expected = format!(
        "{path}:2:18: listeners[0].adress: unknown field `adress`: did you mean `address`?\n\
         {path}:3:1: httpRoute: unknown field `httpRoute`: did you mean `httpRoutes`?\n"
    );
    assert_eq!(err, expected);

    let (_folder, path) = file("listeners: [\n");
    let (code, out, err) = outrigger(&["check", &path]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(err, format!("{path}:1:12: unclosed bracket '['\n"));

    // What is most likely not meant is said, and no error.
    let (_folder, path) = file(&format!(
        "{GOOD}httpRoutes:\n  - {{ name: r, listeners: [web], rules: [{{ backendRefs: [{{ name: nobody }}] }}] }}\n"
    ));
    let (code, out, err) = outrigger(&["check", &path]);
    assert_eq!((code, out.as_str()), (Some(0), "ok\n"));
    assert!(
        err.starts_with(&format!("{path}:4:")) && err.ends_with("(warning)\n") && err.contains("nobody"),
        "{err}"
    );

    let (code, _, err) = outrigger(&["check", "/nowhere/proxy.yaml"]);
    assert_eq!(code, Some(1));
    assert_eq!(err, "outrigger: cannot read /nowhere/proxy.yaml: No such file or directory (os error 2)\n");
}

/// The mistakes that people make: what each line of a good file becomes, where that is found, and what to do.
#[test]
fn a_mistake_in_a_file_is_said_with_what_to_do() {
    const RIGHT: &str = "\
listeners:
  - { name: web, address: 127.0.0.1:0, protocol: HTTP }
httpRoutes:
  - name: shop
    listeners: [web]
    rules:
      - matches: [{ path: { type: PathPrefix, value: /api } }]
        filters: [{ type: BodyLimit, bodyLimit: { requestBytes: 10 } }]
        backendRefs: [{ name: api }]
backends:
  - { name: api, endpoints: [{ address: 127.0.0.1:3000 }] }
";
    for (right, wrong, said) in [
        (
            "PathPrefix",
            "pathPrefix",
            "7:35: httpRoutes[0].rules[0].matches[0].path.type: unknown value `pathPrefix`: did you mean `PathPrefix`?",
        ),
        (
            "type: BodyLimit",
            "type: Body",
            "8:27: httpRoutes[0].rules[0].filters[0].type: unknown value `Body`: did you mean `BodyLimit`?",
        ),
        ("requestBytes: 10", "requestBytes: 10Mi", "expected a whole number, found text `10Mi`"),
        (
            "    rules:",
            "    filters: []\n    rules:",
            "6:5: httpRoutes[0].filters: unknown field `filters`: it belongs in one of the `rules`",
        ),
        (
            "        backendRefs",
            "         backendRefs",
            "9:10: while parsing a block mapping, did not find expected key: indent this line",
        ),
        (
            "        backendRefs",
            "       backendRefs",
            "9:8: while parsing a block collection, did not find expected '-' indicator: indent this line",
        ),
        ("        backendRefs", "\tbackendRefs", "indent with spaces"),
        (
            "name: shop",
            "name:shop",
            "5:14: mapping values are not allowed in this context: write `key: value`, with a space",
        ),
        ("    rules:", "    rules", "write `key: value`"),
        ("127.0.0.1:0", "[::]:0", "close the bracket, or put text with `{`"),
        ("name: shop", "name: 'shop", "close the quote above"),
        ("name: shop", "name: @shop", "put the text in quotes"),
    ] {
        let (_folder, path) = file(&RIGHT.replacen(right, wrong, 1));
        let (code, out, err) = outrigger(&["check", &path]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{wrong}: {err}");
        assert!(err.contains(said), "{wrong}: {err}");
    }
}

#[test]
fn a_file_for_a_cluster_is_told_from_a_mistake() {
    let (_folder, path) =
        file("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nspec: { rules: [] }\n");
    let (code, _, err) = outrigger(&["check", &path]);
    assert_eq!(code, Some(1));
    assert!(err.contains(":1:1: apiVersion: unknown field `apiVersion`: an object of Kubernetes"), "{err}");
    assert!(err.contains("httpRoutes: [{ name, listeners, hostnames, rules }]"), "{err}");
}

#[test]
fn the_schema_accepts_the_examples_and_refuses_what_check_refuses() {
    let (code, out, err) = outrigger(&["schema"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let schema: Value = serde_json::from_str(&out).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        // What is no configuration, such as units of systemd, has a folder of its own.
        if path.is_dir() {
            continue;
        }
        let value: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let wrong: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{}: {wrong:?}", path.display());
        assert_eq!(outrigger(&["check", path.to_str().unwrap()]).0, Some(0), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 7, "{seen}");
    let wrong: Value = serde_saphyr::from_str("listeners: [{ name: web, adress: 127.0.0.1:80 }]").unwrap();
    assert!(!validator.is_valid(&wrong));
}

#[test]
fn a_run_that_cannot_be_says_why_and_what_to_do() {
    let (_folder, good) = file(GOOD);
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    let (_folder, broken) = file("listeners: [\n");
    let (_folder, deaf) = file(&format!("listeners:\n  - {{ name: web, address: {taken} }}\n"));
    let (_folder, bare) = file(
        "listeners: [{ name: web, address: 127.0.0.1:0, protocol: HTTPS, tls: { certificateRefs: [{ name: shop }] } }]\n\
         certificates: [{ name: shop, chain: proxy.yaml, key: shop.key }]\n",
    );
    let cases: [(&[&str], i32, &[&str]); 17] = [
        (&[], 2, &["<--config <FILE>|--control <URL>>"]),
        (&["-c", &good, "--control", "https://localhost:1", "--node", "n"], 2, &["cannot be used with"]),
        (&["--control", "https://localhost:1"], 2, &["--node <NAME>"]),
        (&["-c", &good, "--token-file", "t"], 2, &["--token-file <FILE>", "cannot be used with"]),
        (
            &["--control", "https://localhost:1", "--node", "n", "--upgrade", "u.sock"],
            2,
            &["--upgrade <PATH>", "cannot be used with"],
        ),
        (&["-c", &good, "--upgrade", "/nowhere/u.sock"], 1, &["there is no folder /nowhere; make it"]),
        (&["-c", &good, "--zone", "us west"], 2, &["--zone <NAME>", "`us west` is not a name"]),
        (&["-c", &good, "--memory-limit", "64MB"], 2, &["--memory-limit <SIZE>", "64Mi", "at least 32Mi"]),
        (&["-c", &good, "--drain-grace", "soon"], 2, &["`soon` is not a duration", "250ms"]),
        (&["-c", &good, "--log-level", "loud"], 2, &["`loud` is not a log level", "debug"]),
        (&["-c", &good, "--admin", "localhost:15000"], 2, &["write an IP address and a port"]),
        (&["-c", "/nowhere.yaml"], 1, &["outrigger: cannot read /nowhere.yaml: No such file"]),
        (&["-c", &broken], 1, &["proxy.yaml:1:12: unclosed bracket '['"]),
        (&["-c", &good, "--admin", "0.0.0.0:0"], 1, &["0.0.0.0:0", "loopback alone", "use 127.0.0.1"]),
        (
            &["-c", &good, "--admin", &taken],
            1,
            &["admin: cannot listen on", &taken, "in use", "--admin ADDRESS"],
        ),
        (
            &["-c", &deaf, "--admin", "127.0.0.1:0"],
            1,
            &["none of the listeners could be opened; see", &taken, "in use", "choose another port"],
        ),
        (
            &["-c", &bare, "--admin", "127.0.0.1:0"],
            1,
            &[
                "Certificate shop: key: cannot read /",
                "shop.key: No such file",
                "no certificate can be used (shop)",
            ],
        ),
    ];
    for (arguments, code, said) in cases {
        let ended = outrigger(&[&["run"], arguments].concat());
        assert_eq!(ended.0, Some(code), "{arguments:?}: {ended:?}");
        for part in said {
            assert!(ended.2.contains(part), "{arguments:?}: no `{part}` in {}", ended.2);
        }
        assert!(!ended.2.contains('\u{1b}'), "no colour where nobody sees it: {}", ended.2);
    }
}

#[test]
fn a_sidecar_that_can_never_be_driven_ends_and_says_why() {
    let (folder, good) = file(GOOD);
    let state = folder.path().join("state").to_str().unwrap().to_owned();
    let missing = folder.path().join("none.token").to_str().unwrap().to_owned();
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--control", "http://localhost:1"], &["`http://localhost:1`", "write https://HOST:15012"]),
        (&["--control", "localhost:1"], &["`localhost:1`", "write https://HOST:15012"]),
        (&["--control", "https://localhost:1"], &["outrigger-control token --node shop-1"]),
        (&["--control", "https://localhost:1", "--token-file", &missing], &["none.token", "No such file"]),
        (&["--control", "https://localhost:1", "--token-file", &good], &["proxy.yaml", "is not a token"]),
        (
            &["--control", "https://localhost:1", "--state-dir", &good],
            &["cannot be kept in", "proxy.yaml", "another folder"],
        ),
    ];
    let quiet = ["--admin", "127.0.0.1:0", "--metrics", "off", "--ready", "off", "--node", "shop-1"];
    let both = ["--outbound", "off", "--inbound", "off"];
    for (arguments, said) in cases {
        let kept: &[&str] = if arguments.contains(&"--state-dir") { &[] } else { &["--state-dir", &state] };
        let ended = outrigger(&[&["run"], arguments, kept, &quiet, &both].concat());
        assert_eq!(ended.0, Some(1), "{arguments:?}: {ended:?}");
        for part in said {
            assert!(ended.2.contains(part), "{arguments:?}: no `{part}` in {}", ended.2);
        }
    }
    let control = ["run", "--control", "https://localhost:1", "--state-dir", &state];
    let (code, _, err) = outrigger(&[&control[..], &quiet, &both[..2]].concat());
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("--outbound and --inbound belong together"), "{err}");
}

#[test]
fn capture_prints_its_rules_and_needs_root_to_put_them() {
    let (code, rules, err) =
        outrigger(&["capture", "print", "--skip-outbound-ports", "5432,6379", "--uid", "1338"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for part in ["table inet outrigger", "5432", "6379", "1338", "15001", "15006"] {
        assert!(rules.contains(part), "no `{part}` in:\n{rules}");
    }
    let (code, _, err) = outrigger(&["capture", "print", "--skip-outbound-cidrs", "10.0.0.0/40"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("10.0.0.0/40"), "{err}");
    for flag in ["--outbound", "--inbound", "--skip-inbound-ports"] {
        let (code, _, err) = outrigger(&["capture", "print", flag, "0"]);
        assert_eq!(code, Some(2), "nothing listens on port 0: {err}");
    }
    if rustix::process::geteuid().is_root() {
        // Root without its powers would be another user: `operation` in namespaces shows what root does.
        println!("skipped: needs a user other than root");
        return;
    }
    for what in ["up", "down"] {
        let (code, _, err) = outrigger(&["capture", what]);
        assert_eq!(code, Some(1), "{err}");
        assert!(err.starts_with("outrigger: ") && (err.contains("root") || err.contains("nft")), "{err}");
    }
}

#[test]
fn help_and_version_are_there() {
    let (code, out, _) = outrigger(&["--version"]);
    assert_eq!((code, out), (Some(0), format!("outrigger {}\n", env!("CARGO_PKG_VERSION"))));
    for command in [
        &["--help"][..],
        &["run", "--help"],
        &["check", "--help"],
        &["capture", "up", "--help"],
        &["dev", "--help"],
    ] {
        let (code, out, err) = outrigger(command);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert!(out.lines().all(|line| line.chars().count() <= 100), "{out}");
    }
}

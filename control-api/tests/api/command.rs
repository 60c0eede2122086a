//! The command's client, as people and scripts use it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use outrigger_certs::control;
use serde_json::Value;

use crate::durability::Program;
use crate::support::{mesh, name, node, sign};

async fn run(server: &str, arguments: &[&str], input: &str) -> (bool, String, String) {
    let (server, input) = (server.to_owned(), input.to_owned());
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let output: Output = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger-control"))
            .args(arguments)
            .args(["--server", &server])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    })
    .await
    .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

const FILE: &str = "\
listeners:
  - { name: web, address: 127.0.0.1:8080 }
httpRoutes:
  - name: shop
    listeners: [web]
    rules:
      - matches: [{ path: { type: PathPrefix, value: /api } }]
        backendRefs: [{ name: api }]
        timeouts: { request: 10s }
backends:
  - { name: api, endpoints: [{ address: 127.0.0.1:3000 }] }
";

#[tokio::test]
async fn a_file_is_applied_shown_edited_and_deleted() {
    let data = tempfile::tempdir().unwrap();
    let program = Program::start(data.path());
    let server = program.server();
    let (ok, out, err) = run(&server, &["apply", "-f", "-"], FILE).await;
    assert!(ok && out.contains("HTTPRoute/shop  created"), "{out}{err}");

    let (_, out, _) = run(&server, &["get"], "").await;
    assert_eq!(out.lines().count(), 4, "{out}");
    let (_, out, _) = run(&server, &["get", "--json"], "").await;
    let list: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 3);
    let (ok, again, err) = run(&server, &["apply", "-f", "-"], &out).await;
    assert!(ok && again.matches("unchanged").count() == 3, "{again}{err}");

    // One object is shown as a file, which can be edited and applied.
    let (_, file, _) = run(&server, &["get", "httpRoutes", "shop"], "").await;
    let (ok, out, err) = run(&server, &["apply", "-f", "-"], &file).await;
    assert!(ok && out.contains("unchanged"), "{file}{out}{err}");
    let (ok, out, err) = run(&server, &["apply", "-f", "-"], &file.replace("10s", "5s")).await;
    assert!(ok && out.contains("changed"), "{file}{out}{err}");

    let (ok, out, _) = run(&server, &["delete", "HTTPRoute", "shop"], "").await;
    assert!(ok && out.contains("deleted"), "{out}");
    let (ok, _, err) = run(&server, &["delete", "HTTPRoute", "shop"], "").await;
    assert!(!ok && err.contains("there is no HTTPRoute/shop"), "{err}");
    let (ok, _, err) = run(&server, &["get", "clusters"], "").await;
    assert!(!ok && err.contains("httpRoutes"), "{err}");
}

#[tokio::test]
async fn a_wrong_file_is_named_by_line_and_column_and_nothing_is_applied() {
    let data = tempfile::tempdir().unwrap();
    let program = Program::start(data.path());
    let server = program.server();
    let file = data.path().join("mesh.yaml");
    std::fs::write(&file, FILE.replace("10s", "soon")).unwrap();
    let (ok, _, err) = run(&server, &["apply", "-f", file.to_str().unwrap()], "").await;
    assert!(!ok && err.contains("mesh.yaml:9:"), "{err}");
    assert!(err.contains("rules[0].timeouts.request"), "{err}");
    let (ok, _, err) = run(&server, &["apply", "-f", "-"], "listeners: [").await;
    assert!(!ok && err.contains("standard input:1:"), "{err}");
    let (_, out, _) = run(&server, &["get"], "").await;
    assert_eq!(out.lines().count(), 1, "{out}");
}

#[tokio::test]
async fn apply_waits_for_the_nodes_and_tells_what_they_refused() {
    let mesh = mesh().await;
    let server = format!("http://{}", mesh.control.rest());
    let mut link = node(&mesh.control, "web-1").await;
    let (kind, wrong) = ("Listener".to_owned(), name("web"));
    let refusal = outrigger_control::message::Refusal {
        kind,
        name: wrong,
        field: "address".into(),
        reason: "is taken".into(),
    };
    let follow = tokio::spawn(async move {
        loop {
            let (lines, revision) = link.change().await;
            if revision > 2 {
                continue;
            }
            let refused = lines.iter().any(|line| line == "put Listener/web");
            link.applied(revision, if refused { vec![refusal.clone()] } else { vec![] }).await;
        }
    });
    mesh.control.wait_for_nodes(|nodes| nodes.iter().any(|node| node.connected)).await;
    let backend = "backends: [{ name: api, endpoints: [{ address: 127.0.0.1:3000 }] }]";
    let (ok, out, err) = run(&server, &["apply", "-f", "-", "--wait", "30s"], backend).await;
    assert!(ok && out.contains("revision 1 is live on every connected node: 1"), "{out}{err}");
    let (ok, _, err) = run(&server, &["apply", "-f", "-", "--wait", "30s"], FILE).await;
    assert!(!ok && err.contains("web-1 refused Listener/web: address: is taken"), "{err}");

    let (ok, out, _) = run(&server, &["nodes"], "").await;
    assert!(ok && out.contains("spiffe://outrigger.local/node/web-1"), "{out}");
    assert!(out.contains("web-1 refused Listener/web: address: is taken"), "{out}");
    let (_, out, _) = run(&server, &["nodes", "--json"], "").await;
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()[0]["behind"], 0);

    // From the third revision on the node answers no more.
    let later = FILE.replace("8080", "8081");
    let (ok, _, err) = run(&server, &["apply", "-f", "-", "--wait", "100ms"], &later).await;
    assert!(!ok && err.contains("web-1 is at revision 2, not 3") && err.contains("time is up"), "{err}");
    follow.abort();
}

#[tokio::test]
async fn a_token_is_made_through_rest_and_beside_it() {
    let mesh = mesh().await;
    let server = format!("http://{}", mesh.control.rest());
    let (_, through, err) = run(&server, &["token", "--node", "web-1", "--ttl", "5m"], "").await;
    assert_eq!(err, "");
    let data = mesh.data.path().to_str().unwrap().to_owned();
    let beside = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger-control"));
        command.args(["token", "--node", "web-1", "--data", &data]).output().unwrap()
    });
    let beside = String::from_utf8(beside.await.unwrap().stdout).unwrap();
    for token in [through.trim(), beside.trim()] {
        let (_, csr) = outrigger_certs::signing_request().unwrap();
        let pinned = control::pinned(crate::support::fingerprint(token));
        let (status, body) = sign(mesh.control.stream(), pinned, Some(token), "web-1", &csr).await;
        assert_eq!(status, 200, "{body}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_what_to_do() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (ok, _, err) = run(&format!("http://{closed}"), &["nodes"], "").await;
    let expected = format!(
        "outrigger-control: cannot reach http://{closed}: connection refused; \
         is `outrigger-control serve` running? name another with --server\n"
    );
    assert_eq!((ok, err), (false, expected));
    let (ok, _, err) = run("ftp://somewhere", &["nodes"], "").await;
    assert!(!ok && err.contains("write http://HOST:PORT"), "{err}");
}

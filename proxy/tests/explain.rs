//! `outrigger explain`, by a file and by a running proxy.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::process::{Command, Stdio};

use outrigger_proxy::{Options, Source, start};

const FILE: &str = "
listeners:
  - { name: web, address: '127.0.0.1:0', protocol: HTTP, http: { path: { encodedSlash: Refuse } } }
  - { name: out, address: '127.0.0.1:0', direction: Outbound }
  - { name: db, address: '127.0.0.1:0', protocol: TCP }
tcpRoutes: [{ name: db, listeners: [db], rules: [{ backendRefs: [{ name: api }] }] }]
httpRoutes:
  - name: shop
    listeners: [web]
    hostnames: [shop.localhost]
    rules:
      - name: canary
        matches: [{ path: { value: /api }, headers: [{ name: x-env, value: canary }] }]
        backendRefs: [{ name: api-canary }]
      - matches: [{ path: { value: /api } }]
        filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { remove: [x-a] } }]
        backendRefs: [{ name: api, weight: 2 }, { name: api-canary, weight: 1 }]
        timeouts: { request: 10s, backendRequest: 2s }
        retry: { attempts: 2, codes: [502, 503], hedgeDelay: 500ms }
        sessionPersistence: { sessionName: shop }
backends:
  - { name: api, endpoints: [{ address: '127.0.0.1:3000' }] }
";

/// The exit code, standard output and standard error.
fn outrigger(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    let output = command.arg("explain").args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn file() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.yaml");
    std::fs::write(&path, FILE).unwrap();
    (folder, path.to_str().unwrap().to_owned())
}

const TAKEN: &str = "\
request   GET http://shop.localhost/v1/../api/items?page=2
listener  web
path      /api/items
route     shop
rule      1, by path `/api` or below it
backends  api         66.7 %
          api-canary  33.3 %, not known: 503
filters   RequestHeaderModifier
timeouts  request 10s, each attempt 2s
retry     up to 2 times, after a failed connection or 502, 503 or an attempt without an answer in time; elsewhere as well, after 500ms without an answer
session   by cookie shop
not taken shop/canary  header x-env: wanted exactly `canary`, got `prod`
";

const REQUEST: [&str; 4] = ["GET", "shop.localhost/v1/../api/items?page=2", "-H", "X-Env: prod"];

#[test]
fn explain_says_which_rule_takes_a_request_and_why_not_the_others() {
    let (_folder, path) = file();
    let ended = outrigger(&[&["-c", &path][..], &REQUEST].concat());
    assert_eq!(ended, (Some(0), TAKEN.into(), String::new()));

    let (code, out, _) = outrigger(&["-c", &path, "GET", "http://shop.localhost/x"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("route     none takes it\n"), "{out}");
    assert!(out.contains("shop/1       path: wanted `/api` or below it, got `/x`\n"), "{out}");

    let (code, out, _) = outrigger(&["-c", &path, "GET", "http://shop.localhost/x%2Fy"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("none: refused with 400, for the path has an encoded slash"), "{out}");

    let (code, out, _) =
        outrigger(&["-c", &path, "GET", "http://shop.localhost/api", "-H", "x-env: canary", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["taken"]["rule"]), (Some(0), &"canary".into()));
    assert_eq!(json["near"][0]["because"], "matches too, but it names fewer headers");
}

#[test]
fn explain_says_what_becomes_of_connections_and_of_what_nothing_takes() {
    let (_folder, path) = file();
    let (code, out, _) = outrigger(&["-c", &path, "--listener", "db", "GET", "http://db.localhost/"]);
    let expected = "\
request   GET http://db.localhost/
listener  db, which does not look for HTTP in the connection
route     db (TCPRoute)
rule      0, by any connection
backends  api   100 %
";
    assert_eq!((code, &*out), (Some(0), expected));
    let (code, out, _) = outrigger(&["-c", &path, "--listener", "out", "GET", "http://example.org/"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("none takes it: if it was captured, it goes where it was addressed\n"), "{out}");
}

#[test]
fn explain_says_what_it_cannot_do() {
    let (_folder, path) = file();
    let (code, _, err) = outrigger(&["-c", &path, "GET", "http://a/", "--listener", "nobody"]);
    assert_eq!((code, err), (Some(1), format!("outrigger: {path}: there is no listener `nobody`\n")));
    let (code, _, err) = outrigger(&["-c", "/nowhere.yaml", "GET", "http://a/"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("cannot read /nowhere.yaml"), "{err}");
    let (code, _, err) = outrigger(&["-c", &path, "GET", "/just/a/path"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("http://HOST/PATH"), "{err}");
    let (code, _, err) = outrigger(&["GET", "http://a/"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("--config") && err.contains("--admin"), "{err}");
    std::fs::write(&path, format!("{FILE}tlsRoutes: [{{ name: x, listeners: [], rules: [] }}]\n")).unwrap();
    let (code, _, err) = outrigger(&["-c", &path, "GET", "http://shop.localhost/api"]);
    assert_eq!(code, Some(0));
    assert!(err.contains("tlsRoutes[0].listeners: is empty") && err.contains("(left out)"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_proxy_explains_what_it_has() {
    let (_folder, path) = file();
    let mut options = Options::quiet(Source::File(path.into()));
    options.admin = Some(([127, 0, 0, 1], 0).into());
    let proxy = start(options).await.unwrap();
    let admin = format!("http://{}", proxy.addresses().admin.unwrap());
    let ended = tokio::task::spawn_blocking(move || {
        let taken = outrigger(&[&["--admin", &admin][..], &REQUEST].concat());
        let lost = outrigger(&["--admin", &admin, "GET", "http://a/", "--listener", "nobody"]);
        (taken, lost)
    });
    let (taken, lost) = ended.await.unwrap();
    assert_eq!(taken, (Some(0), TAKEN.into(), String::new()));
    assert_eq!(lost.0, Some(1));
    assert!(lost.2.contains("there is no listener `nobody`"), "{lost:?}");
    proxy.stop().await;
}

//! What a running proxy shows to whoever watches over it.

use std::time::{Duration, SystemTime};

use outrigger_certs::Authority;
use outrigger_testkit::app::App;

use crate::binary::Binary;
use crate::caller::{get, try_get};
use crate::desk::{Desk, eventually, metric};

fn config(desk: &Desk, app: &App) -> (String, String) {
    let root = Authority::create("test").unwrap();
    let (chain, key) =
        root.server_identity(&["shop.test".into()], Duration::from_hours(1), SystemTime::now()).unwrap();
    desk.write("shop.pem", &chain.chain_pem);
    desk.write("shop.key", key.expose());
    let text = format!(
        "listeners:
  - {{ name: web, address: 127.0.0.1:0, protocol: HTTP }}
  - {{ name: secure, address: 127.0.0.1:0, protocol: HTTPS, tls: {{ certificateRefs: [{{ name: shop }}] }} }}
httpRoutes:
  - name: all
    listeners: [web, secure]
    rules:
      - {{ name: away, matches: [{{ path: {{ value: /away }} }}], backendRefs: [{{ name: away }}] }}
      - backendRefs: [{{ name: app }}]
backends:
  - {{ name: app, endpoints: [{{ address: {} }}] }}
  - {{ name: away, endpoints: [{{ address: \"nobody.invalid:80\" }}] }}
certificates:
  - {{ name: shop, chain: shop.pem, key: shop.key }}
",
        app.address()
    );
    (text, key.expose().to_owned())
}

/// Each sample's name belongs to a family that was announced with a help and a type, and its value is a number.
fn assert_is_prometheus_text(text: &str) {
    let mut family = "";
    let mut families = std::collections::HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            family = rest.split(' ').next().unwrap();
            assert!(families.insert(family), "{family} is there twice");
            assert!(rest.len() > family.len() + 1, "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(family), "{line} stands under {family}");
            assert!(value.parse::<f64>().is_ok() || value == "+Inf", "{line}");
            if let Some((_, labels)) = name.split_once('{') {
                let labels = labels.strip_suffix('}').unwrap();
                assert!(labels.split("\",").all(|label| label.contains("=\"")), "{line}");
            }
        }
    }
    assert!(text.ends_with('\n'));
}

#[tokio::test]
async fn every_path_answers() {
    let app = App::builder().start().await;
    let desk = Desk::new();
    let (text, key) = config(&desk, &app);
    let proxy = desk.start(&text).await;
    let admin = proxy.addresses().admin.unwrap();
    let ask = |path: &'static str| get(admin, "localhost", path);
    assert!(ask("/").await.text().contains("/healthz/ready"));
    let ready = ask("/healthz/ready").await;
    assert_eq!((ready.status, ready.text().as_str()), (200, "ready\n"));
    assert_eq!(ask("/healthz/live").await.status, 200);
    assert_eq!(ask("/nothing").await.status, 404);
    assert_eq!(
        get(admin, "evil.example", "/config").await.status,
        403,
        "no web page may ask under its own name"
    );

    let config = ask("/config").await;
    assert_eq!(config.header("content-type"), "application/json");
    let shown = config.text();
    assert!(
        !shown.contains("PRIVATE KEY")
            && !shown.contains("BEGIN")
            && !shown.contains(key.lines().nth(1).unwrap())
    );
    assert_eq!(config.json()["revision"], 1);
    assert!(shown.contains("shop.key") && shown.contains("nobody.invalid:80"), "{shown}");
    proxy.stop().await;
    assert!(try_get(admin, "localhost", "/").await.is_none());
}

#[tokio::test]
async fn requests_are_counted_by_where_they_went() {
    let app = App::builder().start().await;
    let desk = Desk::new();
    let proxy = desk.start(&config(&desk, &app).0).await;
    let (web, admin) = (proxy.listener("web").unwrap(), proxy.addresses().admin.unwrap());
    for path in ["/", "/status/404", "/", "/away"] {
        get(web, "shop.test", path).await;
    }
    let text = eventually("they are counted", || async {
        let text = get(admin, "localhost", "/metrics").await.text();
        (metric(&text, "outrigger_requests_total", &[]) > 3.5).then_some(text)
    })
    .await;
    assert_is_prometheus_text(&text);
    let counted = |labels: &[&str]| metric(&text, "outrigger_requests_total", labels).round() as u64;
    let to_app = [
        "direction=\"edge\"",
        "listener=\"web\"",
        "route=\"all\"",
        "rule=\"1\"",
        "backend=\"app\"",
        "code=\"200\"",
    ];
    assert_eq!(counted(&to_app), 2, "{text}");
    assert_eq!(counted(&["backend=\"app\"", "code=\"404\""]), 1);
    assert_eq!(counted(&["rule=\"away\"", "backend=\"away\"", "code=\"503\""]), 1);
    assert_eq!(metric(&text, "outrigger_responses_by_proxy_total", &["dns_error"]).round() as u64, 1);
    assert_eq!(metric(&text, "outrigger_request_duration_seconds_count", &[]).round() as u64, 4);
    assert!(metric(&text, "outrigger_connections_total", &["listener=\"web\""]) > 3.5);
    assert!(metric(&text, "outrigger_ready", &[]) > 0.5);
    assert!(metric(&text, "process_resident_memory_bytes", &[]) > 1e6);
    proxy.stop().await;
}

#[tokio::test]
async fn each_request_is_a_line_of_json_unless_that_is_off() {
    let app = App::builder().start().await;
    let desk = Desk::new();
    desk.write("proxy.yaml", &config(&desk, &app).0);
    let path = desk.path("proxy.yaml");
    let arguments = ["-c", path.to_str().unwrap(), "--admin", "127.0.0.1:0", "--workers", "2"];
    let mut binary = Binary::run(&arguments);
    let web = binary.address("listener web").await;
    get(web, "shop.test:8080", "/bytes/10?a=b").await;
    get(web, "shop.test", "/away").await;
    let line = binary.stdout("/bytes/10").await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    for (field, value) in [
        ("direction", "edge"),
        ("listener", "web"),
        ("method", "GET"),
        ("scheme", "http"),
        ("host", "shop.test:8080"),
        ("path", "/bytes/10?a=b"),
        ("protocol", "HTTP/1.1"),
        ("route", "all"),
        ("rule", "1"),
        ("backend", "app"),
        ("endpoint", app.address().to_string().as_str()),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    for (field, value) in [("status", 200), ("requestBytes", 0), ("responseBytes", 10), ("attempts", 1)] {
        assert_eq!(line[field], value, "{line}");
    }
    assert!(
        line["durationMs"].as_f64().unwrap() > 0.0 && line["time"].as_str().unwrap().ends_with('Z'),
        "{line}"
    );
    assert!(line["callerAddress"].as_str().unwrap().starts_with("127.0.0.1:"));
    let failed: serde_json::Value = serde_json::from_str(&binary.stdout("/away").await).unwrap();
    assert_eq!((&failed["status"], &failed["reason"]), (&503.into(), &"dns_error".into()));
    assert!(failed["details"].as_str().unwrap().contains("nobody.invalid"));

    binary.terminate();
    assert!(binary.ended().await.0.success());
    let mut binary = Binary::run(&[&arguments[..], &["--access-log", "off"]].concat());
    get(binary.address("listener web").await, "shop.test", "/").await;
    binary.terminate();
    assert!(binary.ended().await.0.success());
    let lines = binary.stdout_lines();
    assert!(!lines.is_empty() && lines.iter().all(|line| line.starts_with("outrigger: ")), "{lines:?}");
}

#[tokio::test]
async fn the_level_of_the_diagnostics_is_set_while_it_runs() {
    let app = App::builder().start().await;
    let desk = Desk::new();
    desk.write("proxy.yaml", &config(&desk, &app).0.replace("nobody.invalid:80", "127.0.0.1:9"));
    let path = desk.path("proxy.yaml");
    let binary = Binary::run(&["-c", path.to_str().unwrap(), "--admin", "127.0.0.1:0"]);
    let (secure, admin) = (binary.address("listener secure").await, binary.address("admin").await);
    assert_eq!(get(admin, "localhost", "/log").await.text(), "warn\n");
    // A caller that does not speak TLS is worth a line at `debug`, and none before.
    assert!(try_get(secure, "shop.test", "/").await.is_none());
    eventually("that connection is over", || async {
        let text = get(admin, "localhost", "/metrics").await.text();
        let secure = |name| metric(&text, name, &["listener=\"secure\""]);
        let over = secure("outrigger_connections_total") > 0.5 && secure("outrigger_connections_open") < 0.5;
        over.then_some(())
    })
    .await;
    let set = put(admin, "/log?level=debug").await;
    assert_eq!(set, (200, "debug\n".into()));
    assert_eq!(put(admin, "/log?level=loud").await.0, 400);
    assert_eq!(get(admin, "localhost", "/log").await.text(), "debug\n");
    assert!(try_get(secure, "shop.test", "/").await.is_none());
    let line = binary.stderr("TLS with the caller failed").await;
    assert!(line.contains("DEBUG") && !line.contains('\u{1b}'), "no colour where nobody sees it: {line}");
    let lines = binary.stderr_lines();
    assert_eq!(
        lines.iter().filter(|line| line.contains("TLS with the caller failed")).count(),
        1,
        "{lines:?}"
    );
}

async fn put(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("PUT {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer[9..12].parse().unwrap();
    (status, answer.split("\r\n\r\n").nth(1).unwrap().to_owned())
}

//! docs/OPERATING.md has every metric that a proxy shows, with its labels, and every field of the access log; and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use outrigger_proxy::{MemoryLimit, Source};
use outrigger_telemetry::{AccessLog, Entry, TcpEntry};

use crate::support::{Running, Wire, listen, soon};

fn page() -> String {
    std::fs::read_to_string(crate::root().join("docs/OPERATING.md")).unwrap()
}

/// The rows of a section's table that begin with a name, each with its cells.
fn rows(page: &str, section: &str) -> Vec<Vec<String>> {
    let part = page.split(&format!("{section}\n")).nth(1).unwrap().split("\n#").next().unwrap();
    let rows = part.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The labels of each metric, as the page has them.
fn written() -> BTreeMap<String, BTreeSet<String>> {
    let page = page();
    let rows = rows(&page, "## Metrics");
    let all: BTreeMap<_, _> =
        rows.iter().map(|row| (row[0].trim_matches('`').to_owned(), quoted(&row[1]))).collect();
    assert_eq!(all.len(), rows.len(), "a metric is there twice");
    all
}

/// The labels of each metric, as a proxy shows them. That of a histogram's buckets belongs to its type.
fn shown(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut families: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(announced) = line.strip_prefix("# TYPE ") {
            family = announced.split(' ').next().unwrap();
            families.entry(family.to_owned()).or_default();
        } else if let Some((_, labels)) = line.split_once('{') {
            let names = labels.split("=\"").filter_map(|part| part.rsplit([',', ' ', '{', '"']).next());
            let names = names.take(labels.matches("=\"").count()).filter(|name| *name != "le");
            families.get_mut(family).unwrap().extend(names.map(str::to_owned));
        }
    }
    families
}

/// An application that closes idle connections after 5 s, as it says, and answers as the path asks. It speaks first where
/// nobody else does.
async fn application() -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut wire = Wire::new(stream);
                while let Some(request) = wire.try_head().await {
                    let status = if request.head.contains("/fail") { 503 } else { 200 };
                    let answer =
                        format!("HTTP/1.1 {status} -\r\nkeep-alive: timeout=5\r\ncontent-length: 0\r\n\r\n");
                    if !wire.try_send(answer).await {
                        break;
                    }
                }
            });
        }
    });
    address
}

/// A file in which everything is configured that a metric is about.
fn everything(one: SocketAddr, another: SocketAddr) -> String {
    format!(
        "listeners:
  - {{ name: web, address: '127.0.0.1:0', protocol: HTTP }}
  - {{ name: db, address: '127.0.0.1:0', protocol: TCP }}
  - {{ name: secure, address: '127.0.0.1:0', protocol: HTTPS, tls: {{ certificateRefs: [{{ name: shop }}] }} }}
httpRoutes:
  - name: shop
    listeners: [web]
    hostnames: [shop.test]
    rules:
      - filters: [{{ type: RequestMirror, requestMirror: {{ backendRef: {{ name: copies }} }} }}]
        backendRefs: [{{ name: shop }}]
tcpRoutes: [{{ name: db, listeners: [db], rules: [{{ backendRefs: [{{ name: copies }}] }}] }}]
backends:
  - name: shop
    endpoints: [{{ address: '{one}' }}, {{ address: '{another}' }}]
    balance: {{ type: RoundRobin, panicThreshold: 100 }}
    outlierDetection: {{ consecutiveFailures: 1 }}
    healthCheck: {{ type: TCP, interval: 1s }}
    limits: {{ requests: 1000, connections: 1000, waiting: 10, retries: 10, adaptive: {{}} }}
  - {{ name: copies, endpoints: [{{ address: '{one}' }}] }}
certificates: [{{ name: shop, chain: shop.pem, key: shop.key }}]
"
    )
}

/// A certificate and its key, for `shop.test`.
fn certificate(folder: &Path) {
    let root = outrigger_certs::Authority::create("test").unwrap();
    let hour = Duration::from_hours(1);
    let (chain, key) = root.server_identity(&["shop.test".into()], hour, SystemTime::now()).unwrap();
    std::fs::write(folder.join("shop.pem"), &chain.chain_pem).unwrap();
    std::fs::write(folder.join("shop.key"), key.expose()).unwrap();
}

#[tokio::test]
async fn every_metric_is_in_the_page_with_its_labels() {
    let (one, another) = (application().await, application().await);
    let proxy = Running::start_with(&everything(one, another), |options| {
        let Source::File(path) = &options.source else { panic!("it runs from a file") };
        certificate(path.parent().unwrap());
        options.memory = MemoryLimit::Bytes(1 << 30);
    })
    .await;
    let request = |path: &str, host: &str| format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    assert_eq!(proxy.ask(&request("/", "nobody.test")).await.status(), 404);
    assert_eq!(proxy.ask(&request("/fail", "shop.test")).await.status(), 503);
    let mut raw = Wire::connect(proxy.at("db")).await;
    raw.send(request("/", "db.test")).await;
    raw.response().await;
    drop(raw);
    // Panic, checks and what is measured are seen a little later.
    let expected = written();
    let mut found = BTreeMap::new();
    let all = async {
        while found != expected {
            proxy.ask(&request("/", "shop.test")).await;
            found = shown(&proxy.proxy.metrics());
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(10), all).await.is_ok();
    if !in_time {
        let differ = |a: &BTreeMap<String, _>, b: &BTreeMap<String, _>| -> Vec<String> {
            let other = a.iter().filter(|(name, labels)| b.get(*name) != Some(*labels));
            other.map(|(name, labels): (_, &BTreeSet<String>)| format!("{name}{labels:?}")).collect()
        };
        let (only_page, only_proxy) = (differ(&expected, &found), differ(&found, &expected));
        panic!("in the page: {only_page:#?}\nshown: {only_proxy:#?}");
    }
    soon(proxy.proxy.stop()).await;
}

/// What is written to it.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// An entry of each kind in which nothing is left out.
fn write(log: &AccessLog) {
    let (time, address) = (SystemTime::now(), "127.0.0.1:1".parse().unwrap());
    let buffer = log.buffer();
    buffer.write(&Entry {
        time,
        direction: "edge",
        listener: "web",
        method: "GET",
        scheme: Some("http"),
        host: b"shop.test",
        path: "/",
        protocol: "HTTP/2",
        status: 503,
        grpc_status: Some(14),
        reason: Some("connection_refused"),
        details: Some("-"),
        request_bytes: 1,
        response_bytes: 1,
        duration: Duration::from_millis(1),
        route: Some("shop"),
        rule: Some("0"),
        backend: Some("shop"),
        endpoint: Some(address),
        caller: Some("spiffe://a/b"),
        caller_address: address,
        callee: Some("spiffe://a/b"),
        attempts: 2,
        retried: Some("lost"),
        not_retried: Some("budget"),
        user_agent: Some(b"test"),
    });
    buffer.write_tcp(&TcpEntry {
        time,
        direction: "edge",
        listener: "db",
        protocol: "TLS",
        sni: Some("db.test"),
        reason: Some("connection_refused"),
        error: Some("-"),
        sent_bytes: 1,
        received_bytes: 1,
        duration: Duration::from_millis(1),
        route: Some("db"),
        backend: Some("db"),
        endpoint: Some(address),
        caller: Some("spiffe://a/b"),
        caller_address: address,
        callee: Some("spiffe://a/b"),
    });
}

#[test]
fn every_field_of_the_access_log_is_in_the_page() {
    let lines = Lines::default();
    let log = AccessLog::to(Box::new(lines.clone()));
    write(&log);
    log.flush_and_close();
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let logged: Vec<BTreeSet<String>> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| line.as_object().unwrap().keys().cloned().collect())
        .collect();
    let page = page();
    for (kind, logged) in ["request", "connection"].into_iter().zip(&logged) {
        let rows = rows(&page, "## The access log");
        let rows = rows.iter().filter(|row| row[1] == "both" || row[1] == kind);
        let written: BTreeSet<String> = rows.flat_map(|row| quoted(&row[0])).collect();
        assert_eq!(&written, logged, "{kind}");
    }
}

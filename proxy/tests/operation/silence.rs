//! What becomes of connections and requests on which nothing moves, and of connections that grow old.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_proxy::{Options, Proxy, Source, start};
use outrigger_telemetry::AccessLog;
use outrigger_testkit::app::{App, TcpApp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::caller::{Http1, Http2};
use crate::desk::{Desk, PATIENCE, eventually, metric};

/// The access log's lines.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Waits for the line that has this text.
    async fn with(&self, text: &str) -> serde_json::Value {
        eventually(text, || async {
            let lines = self.0.lock().unwrap().clone();
            let lines = String::from_utf8(lines).unwrap();
            lines.lines().find(|line| line.contains(text)).map(|line| serde_json::from_str(line).unwrap())
        })
        .await
    }
}

struct Stage {
    proxy: Proxy,
    lines: Lines,
    app: App,
    _tcp: TcpApp,
    _desk: Desk,
}

/// A proxy whose listeners have these fields, with applications behind it.
async fn stage(fields: &str) -> Stage {
    let (app, tcp) = (App::builder().start().await, TcpApp::greeting(b"hello\n").await.unwrap());
    let (desk, lines) = (Desk::new(), Lines::default());
    let (web, db) = (app.address(), tcp.address());
    let config = format!(
        "listeners:
  - {{ name: web, address: '127.0.0.1:0', protocol: HTTP, {fields} }}
  - {{ name: db, address: '127.0.0.1:0', protocol: TCP, timeouts: {{ tcpIdle: 1s }} }}
httpRoutes: [{{ name: all, listeners: [web], rules: [{{ backendRefs: [{{ name: app }}] }}] }}]
tcpRoutes: [{{ name: db, listeners: [db], rules: [{{ backendRefs: [{{ name: db }}] }}] }}]
backends:
  - {{ name: app, endpoints: [{{ address: '{web}' }}] }}
  - {{ name: db, endpoints: [{{ address: '{db}' }}] }}
"
    );
    desk.write("proxy.yaml", &config);
    let mut options = Options::quiet(Source::File(desk.path("proxy.yaml")));
    options.access_log = AccessLog::to(Box::new(lines.clone()));
    let proxy = start(options).await.unwrap();
    Stage { proxy, lines, app, _tcp: tcp, _desk: desk }
}

impl Stage {
    /// How many connections to a listener were ended by this timeout.
    fn timed_out(&self, listener: &str, timeout: &str) -> f64 {
        let labels = [format!("listener=\"{listener}\""), format!("timeout=\"{timeout}\"")];
        metric(&self.proxy.metrics(), "outrigger_connections_timed_out_total", &[&labels[0], &labels[1]])
    }

    /// Waits until so many were.
    async fn ended_by(&self, timeout: &str, count: f64) {
        eventually(timeout, || async { (self.timed_out("web", timeout) >= count).then_some(()) }).await;
    }

    async fn connect(&self, listener: &str) -> TcpStream {
        TcpStream::connect(self.proxy.listener(listener).unwrap()).await.unwrap()
    }

    /// Sends this to the listener `web`, and reads to the end of the connection.
    async fn ask(&self, request: &str) -> String {
        let mut caller = self.connect("web").await;
        caller.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, caller.read_to_end(&mut answer)).await;
        // Broken off, it may be reset.
        let _ = read.expect("the connection ends");
        String::from_utf8(answer).unwrap()
    }
}

#[tokio::test]
async fn a_stream_on_which_nothing_moves_ends_with_its_reason() {
    let stage = stage("http: { timeouts: { stream: 1s, idle: 1s } }").await;
    let hang = "GET /hang HTTP/1.1\r\nHost: a\r\n\r\n";
    // The body that it announces never comes.
    let upload = "POST /echo?upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    let drip = "GET /drip/2/600000 HTTP/1.1\r\nHost: a\r\n\r\n";
    let upgrade = "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    let (hang, upload, drip, upgrade) =
        tokio::join!(stage.ask(hang), stage.ask(upload), stage.ask(drip), stage.ask(upgrade));
    assert!(hang.starts_with("HTTP/1.1 504 "), "{hang}");
    assert!(hang.contains("error=connection_read_timeout; details=\"nothing was sent either way"), "{hang}");
    assert!(drip.starts_with("HTTP/1.1 200 ") && drip.contains("drip 00") && !drip.contains("drip 01"));
    assert!(upgrade.starts_with("HTTP/1.1 101 "), "{upgrade}");
    for (path, reason) in [
        ("/hang", "connection_read_timeout"),
        ("/drip/2/600000", "connection_read_timeout"),
        ("/upgrade", "connection_read_timeout"),
    ] {
        assert_eq!(stage.lines.with(path).await["reason"], reason, "{path}");
    }
    // Its answer may have begun: then that is what is silent.
    let uploaded = stage.lines.with("?upload").await;
    let expected =
        if upload.starts_with("HTTP/1.1 200 ") { "connection_read_timeout" } else { "http_request_timeout" };
    assert_eq!(uploaded["reason"], expected, "{upload}");
}

#[tokio::test]
async fn over_http2_one_stream_ends_and_the_others_go_on() {
    let stage = stage("http: { timeouts: { stream: 1s } }").await;
    let shared = Http2::over(stage.connect("web").await).await;
    // Each of its parts comes in time, all of them do not.
    let alive = shared.get("http://app.test/drip/12/300");
    let hang = shared.get("http://app.test/hang");
    let silent = shared.get("http://app.test/drip/2/600000");
    let (alive, hang, silent) = tokio::join!(alive, hang, silent);
    assert!(alive.unwrap().text().ends_with("drip 11\n"));
    let hang = hang.unwrap();
    assert_eq!(hang.status, 504);
    assert!(hang.header("proxy-status").starts_with("outrigger; error=connection_read_timeout"));
    assert!(silent.is_err(), "it is reset");
    assert_eq!(stage.lines.with("/drip/2/600000").await["reason"], "connection_read_timeout");
    assert_eq!(shared.get("http://app.test/").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_caller_that_does_not_read_is_let_go() {
    let stage = stage("http: { timeouts: { stream: 1s } }").await;
    let mut caller = stage.connect("web").await;
    caller.write_all(b"GET /bytes/50000000 HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let line = stage.lines.with("/bytes/").await;
    assert_eq!(line["reason"], "connection_write_timeout", "{line}");
    assert!(line["responseBytes"].as_u64().unwrap() < 50_000_000, "{line}");
}

#[tokio::test]
async fn a_silent_connection_that_is_not_http_ends_with_its_reason() {
    let stage = stage("http: {}").await;
    let mut caller = stage.connect("db").await;
    let mut greeting = Vec::new();
    let read = tokio::time::timeout(PATIENCE, caller.read_to_end(&mut greeting)).await;
    let _ = read.expect("it ends");
    assert_eq!(greeting, b"hello\n");
    let line = stage.lines.with("\"db\"").await;
    assert_eq!(line["reason"], "connection_read_timeout", "{line}");
    assert!((stage.timed_out("db", "tcp_idle") - 1.0).abs() < 0.1);
}

/// A connection that ends while no request is under way: only the metric can say why.
#[tokio::test]
async fn a_connection_that_rests_ends_and_it_is_counted_why() {
    let stage = stage("http: { timeouts: { idle: 1s, header: 2s } }").await;
    let web = stage.proxy.listener("web").unwrap();
    // It begins a request, and does not go on.
    let begun = stage.ask("GET / HTTP/1.1\r\nHo");
    let rests = async {
        let mut caller = Http1::connect(web).await;
        assert_eq!(caller.get("app.test", "/").await.unwrap().status, 200);
        caller.closed().await;
    };
    let rests_too = async {
        let shared = Http2::over(TcpStream::connect(web).await.unwrap()).await;
        assert_eq!(shared.get("http://app.test/").await.unwrap().status, 200);
        shared.closed().await;
    };
    let never_asks = async {
        let shared = Http2::over(TcpStream::connect(web).await.unwrap()).await;
        shared.closed().await;
    };
    let ((), (), (), begun) = tokio::join!(rests, rests_too, never_asks, begun);
    assert!(begun.starts_with("HTTP/1.1 408 "), "{begun}");
    stage.ended_by("idle", 2.0).await;
    stage.ended_by("header", 2.0).await;
    assert!(stage.timed_out("web", "max_connection_age") < 0.1);
}

/// Callers that keep asking, over connections that end all the time: no request fails.
#[tokio::test]
async fn connections_end_at_their_age_and_no_request_fails() {
    let stage = stage("http: { timeouts: { maxConnectionAge: 1s } }").await;
    let web = stage.proxy.listener("web").unwrap();
    let http1 = async {
        let (mut connections, mut closed) = (0, 0);
        while closed < 2 {
            connections += 1;
            let mut caller = Http1::connect(web).await;
            loop {
                let answer = caller.get("app.test", "/delay/5").await.expect("no request fails");
                assert_eq!(answer.status, 200);
                if answer.header("connection") == "close" {
                    break;
                }
            }
            caller.closed().await;
            closed += 1;
        }
        connections
    };
    let http2 = async {
        for _ in 0..2 {
            let shared = Http2::over(TcpStream::connect(web).await.unwrap()).await;
            // What was sent is answered, whenever the connection ends.
            while let Some(answer) = shared.try_get("http://app.test/delay/5").await {
                assert_eq!(answer.expect("no request fails").status, 200);
            }
            shared.closed().await;
        }
    };
    let (connections, ()) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(http1, http2) }).await.expect("connections end");
    assert_eq!(connections, 2);
    stage.ended_by("max_connection_age", 4.0).await;
    assert!(stage.app.requests() > 20, "{}", stage.app.requests());
}

/// A handshake that is not finished does not hold its connection for long.
#[tokio::test]
async fn a_tls_handshake_has_its_time() {
    let desk = Desk::new();
    let root = outrigger_certs::Authority::create("test").unwrap();
    let now = std::time::SystemTime::now();
    let (chain, key) = root.server_identity(&["app.test".into()], Duration::from_hours(1), now).unwrap();
    desk.write("app.pem", &chain.chain_pem);
    desk.write("app.key", key.expose());
    let config = "listeners:
  - name: web
    address: '127.0.0.1:0'
    protocol: HTTPS
    tls: { certificateRefs: [{ name: app }] }
    timeouts: { tlsHandshake: 100ms }
certificates: [{ name: app, chain: app.pem, key: app.key }]
";
    desk.write("proxy.yaml", config);
    let proxy = start(Options::quiet(Source::File(desk.path("proxy.yaml")))).await.unwrap();
    let mut caller = TcpStream::connect(proxy.listener("web").unwrap()).await.unwrap();
    caller.write_all(&[22, 3, 1, 2]).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, caller.read(&mut [0; 64])).await;
    assert!(matches!(ended.expect("it ends"), Ok(0) | Err(_)));
    let labels = ["listener=\"web\"", "timeout=\"tls_handshake\""];
    let count = || metric(&proxy.metrics(), "outrigger_connections_timed_out_total", &labels);
    eventually("it is counted", || async { (count() > 0.5).then_some(()) }).await;
}

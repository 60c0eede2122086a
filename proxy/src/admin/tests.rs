//! Each path of each face, over a real socket.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_config::Snapshot;
use outrigger_config::explain::explain;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Admin, CONNECTIONS, Readiness, Surface};

struct Served {
    address: SocketAddr,
    ready: watch::Sender<Readiness>,
    level: Arc<Mutex<String>>,
    told: watch::Receiver<bool>,
    elsewhere: watch::Sender<bool>,
}

/// A response in its parts; the body as text.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Served {
    async fn start(surface: Surface) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ready, readiness) = watch::channel(Readiness::NotReady("no configuration yet".into()));
        let level = Arc::new(Mutex::new("info".to_owned()));
        let (shown, set) = (Arc::clone(&level), Arc::clone(&level));
        let (quit, told) = watch::channel(false);
        let elsewhere = watch::Sender::new(false);
        let admin = Admin {
            ready: readiness,
            metrics: Box::new(|| "outrigger_config_rejected 0\n".to_owned()),
            endpoints: Box::new(|| json!({ "backends": [] })),
            config: Box::new(|| json!({ "listeners": [{ "name": "web" }] })),
            explain: Box::new(|asked| explain(&Snapshot::default(), asked)),
            level: Box::new(move || shown.lock().unwrap().clone()),
            set_level: Box::new(move |level| {
                if level == "trace" {
                    return Err("the binary was built without it".to_owned());
                }
                level.clone_into(&mut set.lock().unwrap());
                Ok(())
            }),
            quit,
            replaced: elsewhere.subscribe(),
        };
        tokio::spawn(Arc::new(admin).serve(listener, surface));
        Self { address, ready, level, told, elsewhere }
    }

    /// Sends a request as it is, its head without the last empty line, and reads to the end.
    async fn send(&self, head: &str, body: &str) -> Reply {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = head.replace('\n', "\r\n");
        let request = format!("{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    async fn ask(&self, method: &str, path: &str) -> Reply {
        self.send(&format!("{method} {path} HTTP/1.1\nHost: {}", self.address), "").await
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let reply = self.ask("GET", path).await;
        (reply.status, reply.body)
    }
}

#[tokio::test]
async fn readiness_is_told_with_its_reason() {
    for surface in [Surface::All, Surface::Ready] {
        let admin = Served::start(surface).await;
        let expected = (503, "not ready: no configuration yet\n".to_owned());
        assert_eq!(admin.get("/healthz/ready").await, expected);
        admin.ready.send(Readiness::Ready).unwrap();
        assert_eq!(admin.get("/healthz/ready").await, (200, "ready\n".to_owned()));
        admin.ready.send(Readiness::NotReady("draining".into())).unwrap();
        assert_eq!(admin.get("/healthz/ready").await, (503, "not ready: draining\n".to_owned()));
    }
}

#[tokio::test]
async fn each_page_is_there() {
    let admin = Served::start(Surface::All).await;
    assert_eq!(admin.get("/healthz/live").await, (200, "live\n".to_owned()));

    let metrics = admin.ask("GET", "/metrics").await;
    assert_eq!((metrics.status, &*metrics.body), (200, "outrigger_config_rejected 0\n"));
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{metrics:?}");

    let config = admin.ask("GET", "/config").await;
    assert!(config.head.contains("content-type: application/json"), "{config:?}");
    let value: serde_json::Value = serde_json::from_str(&config.body).unwrap();
    assert_eq!(value, json!({ "listeners": [{ "name": "web" }] }));
    assert!(config.body.lines().count() > 1, "for people to read");

    let (status, index) = admin.get("/").await;
    assert_eq!(status, 200);
    for path in index.lines().filter_map(|line| line.strip_prefix("GET  ")?.split(' ').next()) {
        assert_ne!(admin.get(path).await.0, 404, "{path} is listed");
    }
}

#[tokio::test]
async fn the_end_is_asked_for_by_post_and_from_here_alone() {
    let mut admin = Served::start(Surface::All).await;
    assert_eq!(admin.ask("GET", "/quitquitquit").await.status, 405);
    let page =
        admin.send("POST /quitquitquit HTTP/1.1\nHost: localhost\nOrigin: https://evil.test", "").await;
    assert_eq!(page.status, 403);
    assert!(!*admin.told.borrow());
    assert_eq!(admin.ask("POST", "/quitquitquit").await.status, 200);
    assert!(*admin.told.borrow_and_update());
    for surface in [Surface::Metrics, Surface::Ready] {
        let face = Served::start(surface).await;
        assert_eq!(face.ask("POST", "/quitquitquit").await.status, 404);
    }
}

#[tokio::test]
async fn once_another_process_answers_this_one_takes_no_more_and_ends_what_is_open() {
    let admin = Served::start(Surface::All).await;
    let mut kept = TcpStream::connect(admin.address).await.unwrap();
    kept.write_all(b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert!(kept.read(&mut [0; 1024]).await.unwrap() > 0);
    admin.elsewhere.send_replace(true);
    assert_eq!(kept.read(&mut [0; 1024]).await.unwrap(), 0);
    assert!(TcpStream::connect(admin.address).await.is_err());
}

#[tokio::test]
async fn the_level_is_read_and_set_by_query_or_body() {
    let admin = Served::start(Surface::All).await;
    assert_eq!(admin.get("/log").await, (200, "info\n".to_owned()));
    assert_eq!(admin.ask("PUT", "/log?level=debug").await.status, 200);
    assert_eq!(admin.get("/log").await, (200, "debug\n".to_owned()));
    let post = admin.send("POST /log HTTP/1.1\nHost: localhost", "WARN\n").await;
    assert_eq!((post.status, &*post.body), (200, "warn\n"));
    assert_eq!(*admin.level.lock().unwrap(), "warn");

    let wrong = admin.ask("PUT", "/log?level=loud").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("off, error, warn, info, debug, trace"), "{wrong:?}");
    assert_eq!(admin.ask("PUT", "/log").await.status, 400);
    assert_eq!(admin.send("PUT /log HTTP/1.1\nHost: localhost", &"x".repeat(65)).await.status, 413);
    let failed = admin.ask("PUT", "/log?level=trace").await;
    assert_eq!((failed.status, failed.body.contains("built without it")), (500, true));
    assert_eq!(*admin.level.lock().unwrap(), "warn", "what was refused changed nothing");
}

#[tokio::test]
async fn head_has_no_body_and_other_methods_are_told_what_is_allowed() {
    let admin = Served::start(Surface::All).await;
    let head = admin.ask("HEAD", "/metrics").await;
    assert_eq!((head.status, &*head.body), (200, ""));
    assert!(head.head.contains("content-length: 28"), "{head:?}");
    for (path, allowed) in [("/metrics", "get, head"), ("/log", "get, head, put, post"), ("/", "get, head")] {
        let refused = admin.ask("DELETE", path).await;
        assert_eq!(refused.status, 405);
        assert!(refused.head.contains(&format!("\r\nallow: {allowed}\r\n")), "{refused:?}");
    }
    assert_eq!(admin.ask("POST", "/config").await.status, 405);
    assert_eq!(admin.ask("DELETE", "/nowhere").await.status, 404);
}

#[tokio::test]
async fn each_face_shows_its_own_paths_only() {
    let pages = ["/", "/healthz/ready", "/healthz/live", "/metrics", "/stats/prometheus", "/config", "/log"];
    let cases = [
        (Surface::All, [200, 200, 200, 200, 404, 200, 200]),
        (Surface::Metrics, [404, 404, 404, 200, 200, 404, 404]),
        (Surface::Ready, [404, 200, 404, 404, 404, 404, 404]),
    ];
    for (surface, expected) in cases {
        let admin = Served::start(surface).await;
        admin.ready.send(Readiness::Ready).unwrap();
        for (path, expected) in pages.into_iter().zip(expected) {
            assert_eq!(admin.get(path).await.0, expected, "{surface:?} {path}");
        }
        assert_eq!(admin.get("/../log").await.0, 404);
    }
}

#[tokio::test]
async fn what_another_hosts_web_page_sends_is_refused() {
    let admin = Served::start(Surface::All).await;
    for host in ["localhost", "LOCALHOST:15000", "127.0.0.1:15000", "10.1.2.3", "[::1]", "[::1]:15000"] {
        let reply = admin.send(&format!("GET /log HTTP/1.1\nHost: {host}"), "").await;
        assert_eq!(reply.status, 200, "{host}");
    }
    for host in ["evil.example", "evil.example:15000", "localhost.evil.example", "127.0.0.1.evil.example", ""]
    {
        let reply = admin.send(&format!("GET /log HTTP/1.1\nHost: {host}"), "").await;
        assert_eq!(reply.status, 403, "{host}");
    }
    let absolute = admin.send("GET http://evil.example/log HTTP/1.1\nHost: localhost", "").await;
    assert_eq!(absolute.status, 403);
    assert_eq!(admin.send("GET /log HTTP/1.0", "").await.status, 200, "HTTP/1.0 has no Host");
    for (origin, status) in [
        ("https://evil.example", 403),
        ("http://203.0.113.5", 403),
        ("http://[2001:db8::1]:8080", 403),
        ("null", 403),
        ("http://localhost:15000", 200),
        ("http://127.0.0.1:15000", 200),
        ("http://[::1]:15000", 200),
    ] {
        let head = format!("PUT /log?level=info HTTP/1.1\nHost: localhost\nOrigin: {origin}");
        assert_eq!(admin.send(&head, "").await.status, status, "{origin}");
        let head = format!("POST /quitquitquit HTTP/1.1\nHost: 127.0.0.1:15000\nOrigin: {origin}");
        assert_eq!(admin.send(&head, "").await.status, status, "{origin}");
        assert_eq!(*admin.told.borrow(), status == 200, "{origin}");
    }
    // Scraped and probed by any name; there is nothing on them to be set.
    let metrics = Served::start(Surface::Metrics).await;
    assert_eq!(metrics.send("GET /metrics HTTP/1.1\nHost: reviews.shop.svc", "").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_and_slow_heads_are_closed_so_that_others_are_served() {
    let admin = Served::start(Surface::Ready).await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(admin.address).await.unwrap();
        stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nHost").await.unwrap();
        held.push(stream);
    }
    assert_eq!(admin.get("/healthz/ready").await.0, 503);
}

#[tokio::test(start_paused = true)]
async fn callers_that_do_not_read_are_closed_so_that_others_are_served() {
    let admin = Served::start(Surface::Ready).await;
    // More than fits between the two.
    admin.ready.send(Readiness::NotReady("x".repeat(1 << 20).into())).unwrap();
    let asked = "GET /healthz/ready HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20);
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(admin.address).await.unwrap();
        stream.write_all(asked.as_bytes()).await.unwrap();
        held.push(stream);
    }
    let asked = tokio::time::timeout(Duration::from_mins(5), admin.get("/healthz/ready"));
    assert_eq!(asked.await.unwrap().0, 503);
}

#[tokio::test]
async fn a_page_that_panics_ends_its_connection_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ready, readiness) = watch::channel(Readiness::Ready);
    let admin = Admin {
        ready: readiness,
        metrics: Box::new(|| panic!("a panic that this test wants")),
        endpoints: Box::new(|| json!(null)),
        config: Box::new(|| json!(null)),
        explain: Box::new(|asked| explain(&Snapshot::default(), asked)),
        level: Box::new(String::new),
        set_level: Box::new(|_| Ok(())),
        quit: watch::Sender::new(false),
        replaced: watch::Sender::new(false).subscribe(),
    };
    tokio::spawn(Arc::new(admin).serve(listener, Surface::All));
    let (told, elsewhere) = (watch::Sender::new(false).subscribe(), watch::Sender::new(false));
    let served = Served { address, ready, level: Arc::default(), told, elsewhere };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(stream.read(&mut [0; 64]).await.unwrap_or(0), 0);
    assert_eq!(served.get("/healthz/ready").await.0, 200);
}

//! A new process takes the place of the one that runs, under load: no connection is refused, and no request fails.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use outrigger_testkit::app::{App, TcpApp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::binary::Binary;
use crate::caller::{get, try_get};
use crate::desk::{Desk, PATIENCE, eventually, free};

fn config(app: SocketAddr, tcp: SocketAddr, fixed: SocketAddr) -> String {
    format!(
        "listeners:
  - {{ name: web, address: 127.0.0.1:0, protocol: HTTP }}
  - {{ name: fixed, address: '{fixed}', protocol: HTTP }}
  - {{ name: db, address: 127.0.0.1:0, protocol: TCP }}
httpRoutes:
  - {{ name: all, listeners: [web, fixed], rules: [{{ backendRefs: [{{ name: app }}] }}] }}
tcpRoutes:
  - {{ name: db, listeners: [db], rules: [{{ backendRefs: [{{ name: db }}] }}] }}
backends:
  - {{ name: app, endpoints: [{{ address: {app} }}] }}
  - {{ name: db, endpoints: [{{ address: {tcp} }}] }}
"
    )
}

/// Callers of every kind, one request after the other each.
struct Load {
    callers: JoinSet<Vec<String>>,
    answered: Arc<AtomicUsize>,
    /// Of them, those by the application of HTTP.
    applied: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A connection for each request.
    New,
    /// One of HTTP/1.1 for as long as the other side lets it be.
    Kept,
    /// One of HTTP/2 likewise.
    Http2,
    /// A connection for each few bytes.
    Tcp,
    /// The admin interface, a connection for each request.
    Admin,
}

type Send1 = http1::SendRequest<Full<Bytes>>;
type Send2 = h2::client::SendRequest<Bytes>;

/// What a caller keeps.
#[derive(Default)]
struct Kept {
    http1: Option<Send1>,
    http2: Option<Send2>,
}

impl Load {
    fn start(kinds: &[(Kind, SocketAddr)]) -> Self {
        let (answered, over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let applied = Arc::<AtomicUsize>::default();
        let mut callers = JoinSet::new();
        for &(kind, at) in kinds {
            let (answered, applied, over) = (answered.clone(), applied.clone(), over.clone());
            callers.spawn(async move {
                let (mut failures, mut kept) = (Vec::new(), Kept::default());
                while !over.load(Ordering::Relaxed) {
                    let asked = tokio::time::timeout(PATIENCE, ask(kind, at, &mut kept)).await;
                    match asked.unwrap_or_else(|_| Err("no answer in time".into())) {
                        Ok(()) => {
                            let is_applied = !matches!(kind, Kind::Tcp | Kind::Admin);
                            applied.fetch_add(is_applied.into(), Ordering::Relaxed);
                            answered.fetch_add(1, Ordering::Relaxed)
                        }
                        Err(why) => {
                            failures.push(format!("{kind:?}: {why}"));
                            0
                        }
                    };
                    // Both ends and the load share few processors.
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
                failures
            });
        }
        Self { callers, answered, applied, over }
    }

    async fn more(&self, requests: usize) {
        let wanted = self.answered.load(Ordering::Relaxed) + requests;
        eventually("requests are answered", || async {
            (self.answered.load(Ordering::Relaxed) >= wanted).then_some(())
        })
        .await;
    }

    /// Ends it. How many were answered, none having failed, and of them by the application of HTTP.
    async fn end(mut self) -> (usize, usize) {
        self.over.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        while let Some(failed) = self.callers.join_next().await {
            failures.extend(failed.unwrap());
        }
        let answered = self.answered.load(Ordering::Relaxed);
        assert!(
            failures.is_empty(),
            "{} of {answered}: {:#?}",
            failures.len(),
            &failures[..failures.len().min(8)]
        );
        (answered, self.applied.load(Ordering::Relaxed))
    }
}

async fn ask(kind: Kind, at: SocketAddr, kept: &mut Kept) -> Result<(), String> {
    let (path, host) = (if matches!(kind, Kind::Admin) { "/healthz/live" } else { "/echo" }, "localhost");
    let uri = match kind {
        Kind::Http2 => format!("http://{host}{path}"),
        _ => path.to_owned(),
    };
    // Nobody sends a POST again: each failure would be seen.
    let method = if matches!(kind, Kind::Admin) { Method::GET } else { Method::POST };
    let body = if method == Method::GET { Bytes::new() } else { Bytes::from_static(b"some words") };
    let mut request = Request::builder().method(method).uri(uri);
    if !matches!(kind, Kind::Http2) {
        request = request.header("host", host);
    }
    let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
    let stream = || async { TcpStream::connect(at).await.map_err(|error| format!("connect: {error}")) };
    let text = |error: hyper::Error| {
        format!("{error} {:?}", std::error::Error::source(&error).map(ToString::to_string))
    };
    let response = match kind {
        Kind::Tcp => {
            let mut stream = stream().await?;
            let mut word = [0; 6];
            return match stream.read_exact(&mut word).await {
                Ok(_) if word == *b"hello\n" => Ok(()),
                other => Err(format!("{other:?}: {word:?}")),
            };
        }
        Kind::New | Kind::Kept | Kind::Admin => {
            // Told that it ends, or closed at rest: as any client does, another is made.
            let mut send = match kept.http1.take().filter(|send| !send.is_closed()) {
                Some(send) => send,
                None => {
                    let (send, connection) =
                        http1::handshake(TokioIo::new(stream().await?)).await.map_err(text)?;
                    tokio::spawn(connection);
                    send
                }
            };
            let response = send.send_request(request).await.map_err(text)?;
            let ends = response.headers().get("connection").is_some_and(|value| value == "close");
            if matches!(kind, Kind::Kept) && !ends {
                kept.http1 = Some(send);
            }
            response
        }
        Kind::Http2 => return ask_http2(at, request.map(|_| ()), kept).await,
    };
    let status = response.status();
    let answer = response.into_body().collect().await.map_err(text)?.to_bytes();
    if status == 200 { Ok(()) } else { Err(format!("{status}: {answer:?}")) }
}

/// Over the bare crate, which tells a failure from a request that nobody has looked at: the connection said that it ends
/// before anything was sent, or named an earlier stream as its last (RFC 9113, section 6.8). Any client sends it again.
async fn ask_http2(at: SocketAddr, request: Request<()>, kept: &mut Kept) -> Result<(), String> {
    loop {
        let send = match kept.http2.take() {
            Some(send) => send,
            None => {
                let stream = TcpStream::connect(at).await.map_err(|error| format!("connect: {error}"))?;
                let (send, connection) =
                    h2::client::handshake(stream).await.map_err(|error| format!("greet: {error}"))?;
                tokio::spawn(connection);
                send
            }
        };
        let Ok(mut send) = send.ready().await else { continue };
        let Ok((response, body)) = send.send_request(request.clone(), false) else { continue };
        match answer_http2(response, body).await {
            Ok(status) if status == 200 => {
                kept.http2 = Some(send);
                return Ok(());
            }
            Ok(status) => return Err(status.to_string()),
            Err(error) if error.is_go_away() && error.is_remote() => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

async fn answer_http2(
    response: h2::client::ResponseFuture,
    mut body: h2::SendStream<Bytes>,
) -> Result<http::StatusCode, h2::Error> {
    body.send_data(Bytes::from_static(b"some words"), true)?;
    let response = response.await?;
    let (status, mut body) = (response.status(), response.into_body());
    while let Some(data) = body.data().await {
        let length = data?.len();
        body.flow_control().release_capacity(length)?;
    }
    Ok(status)
}

struct Stage {
    app: App,
    _tcp: TcpApp,
    desk: Desk,
}

impl Stage {
    async fn new() -> Self {
        let app = App::builder().own_thread().start().await;
        let tcp = TcpApp::greeting(b"hello\n").await.unwrap();
        let desk = Desk::new();
        desk.write("proxy.yaml", &config(app.address(), tcp.address(), free()));
        Self { app, _tcp: tcp, desk }
    }

    fn run(&self, workers: &str) -> Binary {
        self.run_file("proxy.yaml", workers)
    }

    fn run_file(&self, file: &str, workers: &str) -> Binary {
        let (file, door) = (self.desk.path(file), self.desk.path("upgrade.sock"));
        let (file, door) = (file.to_str().unwrap(), door.to_str().unwrap());
        let admin = ["--admin", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
        let mut all = vec!["-c", file, "--upgrade", door, "--workers", workers, "--access-log", "off"];
        all.extend(admin);
        Binary::run(&all)
    }
}

async fn addresses(binary: &Binary) -> [SocketAddr; 5] {
    [
        binary.address("listener web").await,
        binary.address("listener fixed").await,
        binary.address("listener db").await,
        binary.address("admin").await,
        binary.address("metrics").await,
    ]
}

async fn upgrades(workers: &[&str], requests: usize) {
    let stage = Stage::new().await;
    let mut running = stage.run(workers[0]);
    let at @ [web, fixed, db, admin, _] = addresses(&running).await;
    let mode = std::fs::metadata(stage.desk.path("upgrade.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let kinds = [
        (Kind::New, web),
        (Kind::New, fixed),
        (Kind::Kept, web),
        (Kind::Kept, fixed),
        (Kind::Http2, web),
        (Kind::Http2, fixed),
        (Kind::Tcp, db),
        (Kind::Admin, admin),
    ];
    let load = Load::start(&kinds);
    load.more(requests).await;
    for workers in &workers[1..] {
        let next = stage.run(workers);
        assert_eq!(addresses(&next).await, at, "every port is kept, port 0 included");
        next.stdout("takes over from process ").await;
        let (status, _) = running.ended().await;
        assert!(status.success(), "{running:?}");
        running.stdout("has taken over; ending once what is under way is done").await;
        running = next;
        load.more(requests).await;
    }
    // A configuration with a mistake, and one with a listener that cannot be opened.
    let good = std::fs::read_to_string(stage.desk.path("proxy.yaml")).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("listeners:\n  - {{ name: more, address: '{}' }}", taken.local_addr().unwrap());
    for (broken, why) in [
        (good.replace("protocol: TCP", "protocol: TPC"), "TPC"),
        (good.replace("listeners:\n", &format!("{elsewhere}\n")), "the address is in use"),
        ("listeners: [".to_owned(), "broken.yaml:1:"),
    ] {
        stage.desk.write("broken.yaml", &broken);
        let mut failed = stage.run_file("broken.yaml", "2");
        let (status, _) = failed.ended().await;
        assert_eq!(status.code(), Some(1), "{failed:?}");
        failed.stderr(why).await;
        load.more(requests / 2).await;
    }
    assert_eq!(get(admin, "localhost", "/healthz/ready").await.status, 200);
    let (answered, applied) = load.end().await;
    assert_eq!(stage.app.requests() as usize, applied, "nothing reached the application twice");
    println!("{answered} requests answered over {} upgrades, none failed", workers.len() - 1);
    running.terminate();
    assert!(running.ended().await.0.success(), "{running:?}");
    assert!(!stage.desk.path("upgrade.sock").exists(), "the last one leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_over_upgrades_with_ever_other_workers() {
    upgrades(&["2", "1", "3", "2", "4"], 500).await;
}

/// `cargo test -p outrigger-proxy --test operation upgrade -- --ignored`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: 100,000 requests over 20 upgrades"]
async fn no_request_fails_over_twenty_upgrades() {
    let workers: Vec<_> = ["2", "1", "4", "3"].into_iter().cycle().take(21).collect();
    upgrades(&workers, 4500).await;
}

#[tokio::test]
async fn what_is_open_is_served_to_its_end_by_the_process_that_has_it() {
    let stage = Stage::new().await;
    let mut old = stage.run("1");
    let [web, _, db, admin, _] = addresses(&old).await;
    let mut session = TcpStream::connect(db).await.unwrap();
    session.read_exact(&mut [0; 6]).await.unwrap();
    let slow = tokio::spawn(get(web, "app.test", "/drip/6/100"));
    eventually("it is under way", || async {
        let metrics = get(admin, "localhost", "/metrics").await.text();
        (crate::desk::metric(&metrics, "outrigger_connections_open", &["listener=\"web\""]) > 0.5)
            .then_some(())
    })
    .await;
    let new = stage.run("1");
    new.stdout("takes over").await;
    let answer = slow.await.unwrap();
    assert!((answer.status, answer.text().ends_with("drip 05\n")) == (200, true), "{answer:?}");
    // The session outlives that, and ends when its caller wants.
    session.write_all(b"more").await.unwrap();
    drop(session);
    assert!(old.ended().await.0.success(), "{old:?}");
    assert_eq!(get(web, "app.test", "/").await.status, 200);
}

#[tokio::test]
async fn a_newcomer_that_dies_on_the_way_changes_nothing() {
    let stage = Stage::new().await;
    let old = stage.run("2");
    let [web, ..] = addresses(&old).await;
    let door = stage.desk.path("upgrade.sock");
    for last in [
        "",
        "{\"take\":{\"version\":1,\"pid\":1}}\n",
        "\"ready\"\n",
        "\"hello\"\n",
        "{\"take\":{\"version\":9,\"pid\":1}}\n",
    ] {
        let mut newcomer = tokio::net::UnixStream::connect(&door).await.unwrap();
        let mut offer = vec![0; 64 * 1024];
        let read = newcomer.read(&mut offer).await.unwrap();
        assert!(String::from_utf8_lossy(&offer[..read]).starts_with("{\"offer\":{\"version\":1,\"pid\":"));
        newcomer.write_all(last.as_bytes()).await.unwrap();
        newcomer.shutdown().await.unwrap();
        drop(newcomer);
        assert_eq!(get(web, "app.test", "/").await.status, 200);
    }
    old.stderr("--upgrade: the new process did not take over: it ended; going on").await;
    old.stderr("which is not its turn").await;
    let new = stage.run("2");
    new.stdout("takes over").await;
    assert_eq!(get(web, "app.test", "/").await.status, 200);
}

/// A process at the door, in place of a proxy that runs.
struct Doorman(tokio::net::UnixStream);

impl Doorman {
    /// Waits for a newcomer.
    async fn greet(door: &tokio::net::UnixListener) -> Self {
        let accepted = tokio::time::timeout(PATIENCE, door.accept()).await;
        Self(accepted.expect("a newcomer comes").unwrap().0)
    }

    async fn say(&mut self, word: &str) {
        self.0.write_all(format!("{word}\n").as_bytes()).await.unwrap();
    }

    async fn hear(&mut self, start: &str) {
        let heard = async {
            let mut line = Vec::new();
            while line.last() != Some(&b'\n') {
                line.push(self.0.read_u8().await.unwrap());
            }
            String::from_utf8(line).unwrap()
        };
        let line = tokio::time::timeout(PATIENCE, heard).await.expect("it says a word");
        assert!(line.starts_with(start), "{line}");
    }

    /// Has nothing to hand over.
    async fn offer_nothing(&mut self) {
        self.say("{\"offer\":{\"version\":1,\"pid\":1,\"sockets\":[]}}").await;
        self.hear("{\"take\":").await;
    }
}

/// Whatever it waits for at that moment, and nothing of it is left.
#[tokio::test]
async fn a_newcomer_that_is_told_to_end_ends_and_takes_nothing_over() {
    let stage = Stage::new().await;
    let door = tokio::net::UnixListener::bind(stage.desk.path("upgrade.sock")).unwrap();
    for offered in [false, true] {
        let mut newcomer = stage.run("1");
        let mut old = Doorman::greet(&door).await;
        if offered {
            old.offer_nothing().await;
            old.hear("\"ready\"").await;
        }
        newcomer.terminate();
        let (status, took) = newcomer.ended().await;
        assert!(status.success() && took < Duration::from_secs(2), "{took:?}: {newcomer:?}");
        newcomer.stderr("ended before it had started").await;
    }
    let left = std::fs::read_dir(stage.desk.path("")).unwrap().map(|it| it.unwrap().file_name());
    let mut left: Vec<_> = left.collect();
    left.sort();
    assert_eq!(left, ["proxy.yaml", "upgrade.sock"]);
}

#[tokio::test]
async fn a_configuration_that_changes_while_a_newcomer_waits_for_its_turn_goes_live() {
    let (stage, second) = (Stage::new().await, App::builder().name("second").start().await);
    let door = tokio::net::UnixListener::bind(stage.desk.path("upgrade.sock")).unwrap();
    let newcomer = stage.run("1");
    let mut old = Doorman::greet(&door).await;
    stage.desk.replace("proxy.yaml", &config(second.address(), second.address(), free()));
    old.offer_nothing().await;
    old.hear("\"ready\"").await;
    old.say("\"yours\"").await;
    old.hear("\"accepting\"").await;
    let [web, ..] = addresses(&newcomer).await;
    eventually("the change is live", || async {
        (try_get(web, "app.test", "/").await?.app() == "second").then_some(())
    })
    .await;
}

/// It may be slow, or stopped: given up on it might accept after all, and there would be two.
#[tokio::test]
async fn who_has_said_yours_goes_on_until_the_newcomer_accepts_or_is_gone() {
    let stage = Stage::new().await;
    let mut old = stage.run("1");
    let [web, ..] = addresses(&old).await;
    let door = stage.desk.path("upgrade.sock");
    for accepts in [false, true] {
        let mut newcomer = Doorman(tokio::net::UnixStream::connect(&door).await.unwrap());
        newcomer.hear("{\"offer\":").await;
        newcomer.say("{\"take\":{\"version\":1,\"pid\":1}}").await;
        // All sockets come with one byte: they are let go of here, and stay open there.
        assert_eq!(newcomer.0.read(&mut [0; 8]).await.unwrap(), 1);
        newcomer.say("\"ready\"").await;
        newcomer.hear("\"yours\"").await;
        assert_eq!(get(web, "app.test", "/").await.status, 200);
        if accepts {
            newcomer.say("\"accepting\"").await;
        }
    }
    old.stderr("the new process did not take over: it ended; going on").await;
    assert!(old.ended().await.0.success(), "{old:?}");
}

#[tokio::test]
async fn a_path_that_cannot_be_used_is_named() {
    let stage = Stage::new().await;
    stage.desk.write("upgrade.sock", "not a socket");
    let mut refused = stage.run("1");
    assert_eq!(refused.ended().await.0.code(), Some(1));
    refused.stderr("upgrade.sock: there is a file that is not a socket").await;
    assert_eq!(std::fs::read_to_string(stage.desk.path("upgrade.sock")).unwrap(), "not a socket");
    std::fs::remove_file(stage.desk.path("upgrade.sock")).unwrap();
    std::fs::create_dir(stage.desk.path("upgrade.sock")).unwrap();
    stage.run("1").stderr("upgrade.sock: there is a folder; name a socket in it").await;
    std::fs::remove_dir(stage.desk.path("upgrade.sock")).unwrap();
    // One that a process left behind when it was killed is used again.
    drop(std::os::unix::net::UnixListener::bind(stage.desk.path("upgrade.sock")).unwrap());
    let first = stage.run("1");
    let [web, ..] = addresses(&first).await;
    let second = stage.run("1");
    second.stdout("takes over").await;
    assert!(try_get(web, "app.test", "/").await.is_some());
}

/// A shell stands in for the service manager: it opens sockets, and becomes the proxy.
fn activated(desk: &Desk, names: &str, sockets: &[std::net::TcpListener]) -> Command {
    use std::os::fd::AsRawFd;
    let open: Vec<_> = sockets.iter().enumerate().map(|(at, it)| (at + 3, it.as_raw_fd())).collect();
    for socket in sockets {
        rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).unwrap();
    }
    let moves: Vec<_> = open.iter().map(|(to, from)| format!("{to}<&{from}")).collect();
    let script = format!(
        "exec {}; LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={names} exec \"$0\" \"$@\"",
        moves.join(" "),
        sockets.len()
    );
    let mut shell = Command::new("bash");
    let file = desk.path("proxy.yaml");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_outrigger"), "run", "-c", file.to_str().unwrap()]);
    shell.args(["--admin", "127.0.0.1:0", "--workers", "3"]);
    shell
}

#[tokio::test]
async fn sockets_of_the_service_manager_are_matched_to_listeners() {
    if !Path::new("/bin/bash").exists() {
        println!("skipped: needs bash");
        return;
    }
    let app = App::builder().start().await;
    let any = || {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // Out of the way of the numbers that they get.
        let fd = rustix::io::fcntl_dupfd_cloexec(&socket, 100).unwrap();
        std::net::TcpListener::from(fd)
    };
    let sockets = [any(), any(), any()];
    let at: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
    let desk = Desk::new();
    desk.write(
        "proxy.yaml",
        &format!(
            "listeners:
  - {{ name: by-address, address: '{}', protocol: HTTP }}
  - {{ name: by-name, address: 127.0.0.1:8080, protocol: HTTP }}
httpRoutes: [{{ name: all, listeners: [by-address, by-name], rules: [{{ backendRefs: [{{ name: app }}] }}] }}]
backends: [{{ name: app, endpoints: [{{ address: {} }}] }}]
",
            at[0],
            app.address()
        ),
    );
    let told = tempfile::tempdir().unwrap();
    let notify = tokio::net::UnixDatagram::bind(told.path().join("notify")).unwrap();
    let mut command = activated(&desk, "x:by-name:lost", &sockets);
    let mut proxy = Binary::spawn(command.env("NOTIFY_SOCKET", told.path().join("notify")));
    assert_eq!(proxy.address("listener by-address").await, at[0]);
    assert_eq!(proxy.address("listener by-name").await, at[1]);
    proxy.stderr(&format!("no listener wants the socket \"lost\" on {}", at[2])).await;
    let mut state = [0; 64];
    let read = tokio::time::timeout(PATIENCE, notify.recv(&mut state)).await.unwrap().unwrap();
    assert_eq!(&state[..read], b"READY=1");
    for at in &at[..2] {
        for _ in 0..8 {
            assert_eq!(get(*at, "app.test", "/").await.status, 200);
        }
    }
    proxy.terminate();
    let read = tokio::time::timeout(PATIENCE, notify.recv(&mut state)).await.unwrap().unwrap();
    assert_eq!(&state[..read], b"STOPPING=1");
    assert!(proxy.ended().await.0.success(), "{proxy:?}");
    // Who comes between two of them waits, and is served by the next.
    let waiting = tokio::spawn(get(at[0], "app.test", "/"));
    let next = Binary::spawn(&mut activated(&desk, "x:by-name:lost", &sockets));
    assert_eq!(waiting.await.unwrap().status, 200, "{next:?}");
}

//! SIGTERM: not ready, no more connections, what is under way is finished, and then the end at once.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_certs::Authority;
use outrigger_testkit::app::{App, TcpApp};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::binary::Binary;
use crate::caller::{Http1, Http2, get, try_get};
use crate::desk::{Desk, eventually};

fn config(app: SocketAddr, tcp: SocketAddr) -> String {
    format!(
        "listeners:
  - {{ name: web, address: 127.0.0.1:0, protocol: HTTP }}
  - {{ name: any, address: 127.0.0.1:0 }}
  - {{ name: db, address: 127.0.0.1:0, protocol: TCP }}
  - {{ name: secure, address: 127.0.0.1:0, protocol: HTTPS, tls: {{ certificateRefs: [{{ name: app }}] }} }}
httpRoutes:
  - {{ name: all, listeners: [web, any, secure], rules: [{{ backendRefs: [{{ name: app }}] }}] }}
tcpRoutes:
  - {{ name: db, listeners: [db], rules: [{{ backendRefs: [{{ name: db }}] }}] }}
backends:
  - {{ name: app, endpoints: [{{ address: {app} }}] }}
  - {{ name: db, endpoints: [{{ address: {tcp} }}] }}
certificates:
  - {{ name: app, chain: app.pem, key: app.key }}
"
    )
}

struct Stage {
    app: App,
    _tcp: TcpApp,
    _desk: Desk,
    binary: Binary,
}

#[tokio::test]
async fn callers_that_never_finish_their_first_words_do_not_hold_up_the_end() {
    let mut stage = stage(&["--drain-grace", "60s"]).await;
    let mut callers = Vec::new();
    for words in
        [&b"GET / HTTP/1.1\r\nHo"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x00\xa5\x01"]
    {
        for listener in ["listener web", "listener any", "listener secure"] {
            let mut caller = TcpStream::connect(stage.binary.address(listener).await).await.unwrap();
            caller.write_all(words).await.unwrap();
            callers.push(caller);
        }
    }
    // All were accepted, and what they said was read: this one came later.
    get(stage.binary.address("listener web").await, "app.test", "/").await;
    stage.binary.terminate();
    let (status, _) = stage.binary.ended().await;
    assert!(status.success(), "{:?}", stage.binary);
    let cut = stage.binary.stderr_lines().into_iter().find(|line| line.contains("grace period"));
    assert_eq!(cut, None);
}

/// The real command with an application behind it.
async fn stage(arguments: &[&str]) -> Stage {
    let (app, tcp) = (App::builder().start().await, TcpApp::greeting(b"hello\n").await.unwrap());
    let desk = Desk::new();
    let root = Authority::create("test").unwrap();
    let (chain, key) = root
        .server_identity(&["app.test".into()], Duration::from_hours(1), std::time::SystemTime::now())
        .unwrap();
    desk.write("app.pem", &chain.chain_pem);
    desk.write("app.key", key.expose());
    desk.write("proxy.yaml", &config(app.address(), tcp.address()));
    let path = desk.path("proxy.yaml");
    let mut all = vec!["-c", path.to_str().unwrap(), "--admin", "127.0.0.1:0"];
    all.extend_from_slice(arguments);
    let binary = Binary::run(&all);
    binary.address("listener web").await;
    Stage { app, _tcp: tcp, _desk: desk, binary }
}

/// Waits until the application has so many requests.
async fn until_requested(app: &App, requests: u64) {
    eventually("the request is under way", || async { (app.requests() >= requests).then_some(()) }).await;
}

#[tokio::test]
async fn what_is_under_way_is_finished_and_the_end_comes_at_once() {
    let Stage { app, _tcp, _desk, mut binary } = stage(&[]).await;
    let web = binary.address("listener web").await;
    let mut idle = Http1::connect(web).await;
    idle.get("app.test", "/").await.unwrap();
    let mut slow = Http1::connect(web).await;
    let slow_answer = tokio::spawn(async move {
        let answer = slow.get("app.test", "/delay/300").await;
        (slow, answer)
    });
    let shared = Http2::over(TcpStream::connect(web).await.unwrap()).await;
    shared.get("http://app.test/").await.unwrap();
    let requests = app.requests();
    let stream = tokio::spawn(async move {
        let answer = shared.get("http://app.test/drip/4/100").await;
        (shared, answer)
    });
    until_requested(&app, requests + 1).await;
    until_requested(&app, 4).await;

    binary.terminate();
    idle.closed().await;
    let (slow, answer) = slow_answer.await.unwrap();
    let answer = answer.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    slow.closed().await;
    let (shared, answer) = stream.await.unwrap();
    assert!(answer.unwrap().text().ends_with("drip 03\n"));
    shared.closed().await;
    let (status, took) = binary.ended().await;
    assert!(status.success(), "{status}: {binary:?}");
    println!("ended {took:?} after the last answer");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let logged = binary.stdout_lines().iter().filter(|line| line.starts_with('{')).count();
    assert_eq!(logged, 4, "no line of the access log is lost: {binary:?}");
}

/// Callers that have said nothing yet have nothing under way: browsers open such connections ahead of use.
#[tokio::test]
async fn callers_that_have_said_nothing_do_not_hold_up_the_end() {
    let Stage { app: _app, _tcp, _desk, mut binary } = stage(&[]).await;
    let mut silent = Vec::new();
    for listener in ["listener web", "listener any", "listener secure"] {
        let mut stream = TcpStream::connect(binary.address(listener).await).await.unwrap();
        if listener == "listener secure" {
            // The beginning of a TLS record, and no more.
            stream.write_all(&[22, 3, 1]).await.unwrap();
        }
        silent.push(stream);
    }
    // Accepted in the order in which they came: one that is answered follows those that say nothing.
    for listener in ["listener web", "listener any"] {
        assert_eq!(get(binary.address(listener).await, "app.test", "/").await.status, 200);
    }
    let admin = binary.address("admin").await;
    eventually("the connections are accepted", || async {
        let text = get(admin, "localhost", "/metrics").await.text();
        let open = crate::desk::metric(&text, "outrigger_connections_open", &[]);
        (open > 2.5).then_some(())
    })
    .await;
    let asked = binary.terminate();
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0);
    }
    let (status, _) = binary.ended().await;
    assert!(status.success(), "{status}: {binary:?}");
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn it_accepts_for_a_while_after_it_says_that_it_is_not_ready() {
    let Stage { app: _app, _tcp, _desk, mut binary } = stage(&["--drain-delay", "700ms"]).await;
    let (web, admin) = (binary.address("listener web").await, binary.address("admin").await);
    assert_eq!(get(admin, "localhost", "/healthz/ready").await.status, 200);
    binary.terminate();
    let ready = eventually("it is not ready", || async {
        let ready = get(admin, "localhost", "/healthz/ready").await;
        (ready.status == 503).then_some(ready)
    })
    .await;
    assert_eq!(ready.text(), "not ready: draining\n");
    let answer = get(web, "app.test", "/").await;
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    assert_eq!(get(admin, "localhost", "/healthz/live").await.status, 200);
    let (status, _) = binary.ended().await;
    assert!(status.success(), "{status}: {binary:?}");
    assert!(try_get(web, "app.test", "/").await.is_none());
}

/// The kernel has taken them on by then: nobody has told them that they come too late.
#[tokio::test]
async fn callers_that_wait_to_be_accepted_at_the_end_are_served() {
    let app = App::builder().start().await;
    let desk = Desk::new();
    let config = format!(
        "listeners: [{{ name: web, address: 127.0.0.1:0, protocol: HTTP }}]\n\
         httpRoutes: [{{ name: all, listeners: [web], rules: [{{ backendRefs: [{{ name: app }}] }}] }}]\n\
         backends: [{{ name: app, endpoints: [{{ address: {} }}] }}]\n",
        app.address()
    );
    desk.write("proxy.yaml", &config);
    let path = desk.path("proxy.yaml");
    let arguments = ["-c", path.to_str().unwrap(), "--admin", "127.0.0.1:0", "--workers", "1"];
    let mut binary = Binary::run(&arguments);
    let web = binary.address("listener web").await;
    binary.signal(Signal::STOP);
    let mut callers = Vec::new();
    for _ in 0..600 {
        let mut caller = TcpStream::connect(web).await.unwrap();
        caller.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n").await.unwrap();
        callers.push(caller);
    }
    binary.terminate();
    binary.signal(Signal::CONT);
    for mut caller in callers {
        let mut answer = [0; 12];
        caller.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
    assert!(binary.ended().await.0.success(), "{binary:?}");
    assert_eq!(app.requests(), 600);
}

#[tokio::test]
async fn with_no_grace_period_nothing_is_said_of_connections_that_are_not_there() {
    let mut stage = stage(&["--drain-grace", "0s"]).await;
    get(stage.binary.address("listener web").await, "app.test", "/").await;
    stage.binary.terminate();
    let (status, took) = stage.binary.ended().await;
    assert!(status.success() && took < Duration::from_secs(1), "{:?}", stage.binary);
    let lines = stage.binary.stderr_lines();
    assert!(!lines.iter().any(|line| line.contains("grace period")), "{lines:?}");
}

#[tokio::test]
async fn what_outlasts_the_grace_period_is_cut_and_named() {
    let Stage { app, _tcp, _desk, mut binary } = stage(&["--drain-grace", "200ms"]).await;
    let (web, db) = (binary.address("listener web").await, binary.address("listener db").await);
    let hanging = tokio::spawn(async move { try_get(web, "app.test", "/hang").await });
    let mut opaque = TcpStream::connect(db).await.unwrap();
    opaque.read_exact(&mut [0; 6]).await.unwrap();
    until_requested(&app, 1).await;
    binary.terminate();
    let (status, took) = binary.ended().await;
    assert!(status.success(), "{status}: {binary:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    binary.stderr("connections were still open after the grace period of 200ms; they are cut").await;
    assert!(hanging.await.unwrap().is_none());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let Stage { app, _tcp, _desk, mut binary } = stage(&[]).await;
    let web = binary.address("listener web").await;
    let hanging = tokio::spawn(async move { try_get(web, "app.test", "/hang").await });
    until_requested(&app, 1).await;
    binary.terminate();
    binary.stderr("outrigger: draining; a second signal ends it at once").await;
    binary.terminate();
    let (status, took) = binary.ended().await;
    assert_eq!(status.code(), Some(1), "{binary:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    binary.stderr("outrigger: ended before what was under way was done").await;
    assert!(hanging.await.unwrap().is_none());
}

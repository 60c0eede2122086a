//! A proxy in a cgroup of 64 MiB, and callers who ask for much and read little.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::binary::Binary;
use crate::cgroup::{Cgroup, peak};
use crate::desk::{Desk, PATIENCE};

const MIB: u64 = 1024 * 1024;
const LIMIT: u64 = 64 * MIB;
/// How many callers connect at a time: as many as a socket's backlog takes.
const AT_ONCE: usize = 512;
/// How long an answer may take while thousands ask at once.
const LONG: Duration = Duration::from_mins(1);

/// An application with an answer without end, and a short one.
fn application() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    // Its own memory is not what is looked at.
    socket.set_send_buffer_size(64 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(4096).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener));
    address
}

async fn serve(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut head = [0; 4096];
            while let Ok(1..) = stream.read(&mut head).await {
                if !head.starts_with(b"GET /large") {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
                    continue;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n").await?;
                loop {
                    stream.write_all(&[b'x'; 16 * 1024]).await?;
                }
            }
            std::io::Result::Ok(())
        });
    }
}

/// What became of a request.
enum Answer {
    /// It is answered, and the rest waits to be read.
    Begun(TcpStream),
    Refused(String),
    /// The connection was closed.
    Closed,
}

async fn ask(proxy: SocketAddr, path: &str) -> Answer {
    let asking = async {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let mut stream = socket.connect(proxy).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: app\r\n\r\n").as_bytes()).await?;
        let mut head = [0; 1024];
        let read = stream.read(&mut head).await?;
        let text = String::from_utf8_lossy(head.get(..read).unwrap()).into_owned();
        Ok::<_, std::io::Error>(match text {
            text if text.is_empty() => Answer::Closed,
            text if text.starts_with("HTTP/1.1 200") => Answer::Begun(stream),
            text => Answer::Refused(text),
        })
    };
    // One that is turned away may be reset, for what it has asked was not read.
    tokio::time::timeout(LONG, asking).await.expect("nobody is left hanging").unwrap_or(Answer::Closed)
}

/// Asks so many times at once.
async fn ask_all(proxy: SocketAddr, path: &'static str, times: usize) -> Outcome {
    let mut outcome = Outcome::default();
    let mut asking = JoinSet::new();
    for _ in 0..times {
        if asking.len() == AT_ONCE {
            outcome.note(asking.join_next().await.unwrap().unwrap());
        }
        asking.spawn(ask(proxy, path));
    }
    while let Some(answer) = asking.join_next().await {
        outcome.note(answer.unwrap());
    }
    outcome
}

#[derive(Default)]
struct Outcome {
    begun: Vec<TcpStream>,
    refused: usize,
    closed: usize,
}

impl Outcome {
    fn note(&mut self, answer: Answer) {
        match answer {
            Answer::Begun(stream) => self.begun.push(stream),
            Answer::Closed => self.closed += 1,
            Answer::Refused(text) => {
                assert!(text.starts_with("HTTP/1.1 503"), "{text}");
                let text = text.to_ascii_lowercase();
                for part in ["error=proxy_memory_limit", "retry-after: 1", "connection: close"] {
                    assert!(text.contains(part), "no {part} in {text}");
                }
                self.refused += 1;
            }
        }
    }
}

/// One of the proxy's metrics, 0 if it is not there.
async fn metric(admin: SocketAddr, name: &str) -> u64 {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |number| number.trim().parse::<f64>().unwrap() as u64)
}

/// Waits until memory is about what it was.
async fn settled(admin: SocketAddr, before: u64) {
    let mut last = (0, 0);
    let settled = async {
        loop {
            last = (
                metric(admin, "outrigger_memory_buffered_bytes{of=\"stalled\"}").await,
                metric(admin, "outrigger_memory_used_bytes").await,
            );
            if last.0 == 0 && last.1 < before + 12 * MIB {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let settled = tokio::time::timeout(PATIENCE, settled).await;
    assert!(settled.is_ok(), "still stalled, and used: {last:?}; {before} before");
}

/// The configuration of a proxy of that application, with a copy of what is for `/copied`.
fn desk() -> Desk {
    let desk = Desk::new();
    let config = format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]\n\
         httpRoutes:\n- name: all\n  listeners: [web]\n  rules:\n  - backendRefs: [{{ name: app }}]\n  \
         - matches: [{{ path: {{ value: /copied }} }}]\n    backendRefs: [{{ name: app }}]\n    \
         filters: [{{ type: RequestMirror, requestMirror: {{ backendRef: {{ name: app }} }} }}]\n\
         backends: [{{ name: app, endpoints: [{{ address: '{}' }}] }}]\n",
        application()
    );
    desk.write("proxy.yaml", &config);
    desk
}

fn arguments(desk: &Desk) -> [String; 6] {
    let path = desk.path("proxy.yaml").to_str().unwrap().to_owned();
    ["-c", &path, "--admin", "127.0.0.1:0", "--access-log", "off"].map(str::to_owned)
}

/// A proxy of that application that may use 32 MiB, of which a cgroup need not know.
async fn small(desk: &Desk) -> (Binary, SocketAddr, SocketAddr) {
    let arguments = arguments(desk);
    let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    arguments.extend(["--memory-limit", "32Mi", "--workers", "1"]);
    let proxy = Binary::run(&arguments);
    let (admin, web) = (proxy.address("admin").await, proxy.address("listener web").await);
    (proxy, admin, web)
}

/// Each reads more of its answer.
async fn all_go_on(callers: &mut [TcpStream]) {
    for caller in callers {
        let mut more = vec![0; 256 * 1024];
        tokio::time::timeout(LONG, caller.read_exact(&mut more)).await.expect("it goes on").unwrap();
    }
}

async fn slow_readers(times: usize) {
    let Some(cgroup) = Cgroup::make(LIMIT) else {
        println!("skipped: needs root, and a cgroup in which another can be made with a limit of memory");
        return;
    };
    // Both ends of the callers' connections are not in one process, but the application's are here too.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
    if files.maximum.is_some_and(|most| most < times as u64 + 2000) {
        println!("skipped: needs {} open files", times + 2000);
        return;
    }
    let desk = desk();
    let mut proxy = Binary::run_in(cgroup.folder(), &arguments(&desk).each_ref().map(String::as_str));
    let (admin, web) = (proxy.address("admin").await, proxy.address("listener web").await);
    assert_eq!(ask_all(web, "/quick", 100).await.begun.len(), 100);
    assert_eq!(metric(admin, "outrigger_memory_limit_bytes").await, LIMIT);
    let before = metric(admin, "outrigger_memory_used_bytes").await;
    for round in 0..2 {
        let (mut slow, peak) = peak(&cgroup, ask_all(web, "/large", times)).await;
        let (served, refused, closed) = (slow.begun.len(), slow.refused, slow.closed);
        let used = cgroup.used();
        println!(
            "round {round}: {served} served slowly, {refused} refused, {closed} closed; {} MiB used, {} at most, {} before",
            used / MIB,
            peak / MIB,
            before / MIB
        );
        assert_eq!(served + refused + closed, times);
        assert!(served >= 50 && refused > closed, "{proxy:?}");
        assert!(peak < LIMIT, "{peak}");
        // Whoever comes now is answered, one way or the other; those who were let in go on.
        let quick = ask_all(web, "/quick", 100).await;
        assert_eq!(quick.begun.len() + quick.refused + quick.closed, 100);
        all_go_on(&mut slow.begun).await;
        drop(slow);
        settled(admin, before).await;
        let after = ask_all(web, "/quick", 100).await;
        assert_eq!((after.begun.len(), after.refused, after.closed), (100, 0, 0), "{proxy:?}");
    }
    assert_eq!(cgroup.killed(), 0);
    proxy.terminate();
    let (status, _) = proxy.ended().await;
    assert!(status.success(), "{status}: {proxy:?}");
}

#[tokio::test]
async fn slow_readers_in_64_mib_are_shed_and_nothing_is_killed() {
    slow_readers(2000).await;
}

/// `cargo test -p outrigger-proxy --test operation -- --ignored ten_thousand`
#[tokio::test]
#[ignore = "takes 12,000 open files: the command is above"]
async fn ten_thousand_slow_readers_in_64_mib_are_shed_and_nothing_is_killed() {
    slow_readers(10_000).await;
}

#[tokio::test]
async fn what_can_be_done_without_gives_way_before_requests_are_refused_and_idle_connections_then() {
    let desk = desk();
    let (proxy, admin, web) = small(&desk).await;
    let mut idle = Vec::new();
    for _ in 0..10 {
        let Answer::Begun(caller) = ask(web, "/quick").await else { panic!("{proxy:?}") };
        idle.push(caller);
    }
    let Answer::Begun(_) = ask(web, "/copied").await else { panic!("{proxy:?}") };
    let dropped = "outrigger_mirrored_requests_total{backend=\"app\",result=\"dropped\"}";
    let mut slow = Vec::new();
    let mut without = None;
    let refusal = loop {
        assert!(slow.len() < 1000, "there is no limit: {proxy:?}");
        match ask(web, "/large").await {
            Answer::Begun(caller) => slow.push(caller),
            Answer::Refused(text) => break text,
            Answer::Closed => panic!("{proxy:?}"),
        }
        if without.is_none() {
            assert!(!matches!(ask(web, "/copied").await, Answer::Closed), "{proxy:?}");
            without = (metric(admin, dropped).await > 0).then_some(slow.len());
        }
    };
    let without = without.expect("copies were left out before");
    println!("copies left out with {without} slow callers, requests refused with {}", slow.len());
    assert!(refusal.contains("of the 32 MiB of memory that this proxy may use are taken"), "{refusal}");
    // In order: with nothing before the end.
    for mut caller in idle {
        let read = tokio::time::timeout(PATIENCE, caller.read(&mut [0; 64])).await;
        assert_eq!(read.expect("it is closed").unwrap(), 0);
    }
    all_go_on(&mut slow).await;
    let counted = metric(admin, "outrigger_memory_buffered_bytes{of=\"connections\"}").await;
    assert!(counted > 24 * 1024 * slow.len() as u64 - MIB, "{counted} for {}", slow.len());
    drop(slow);
    settled(admin, MIB * 20).await;
    assert!(matches!(ask(web, "/quick").await, Answer::Begun(_)), "{proxy:?}");
}

#[tokio::test]
async fn streams_of_http_2_that_are_not_read_are_charged_for_one_by_one() {
    let desk = desk();
    let (proxy, admin, web) = small(&desk).await;
    let stream = TcpStream::connect(web).await.unwrap();
    let (mut sender, connection) = h2::client::Builder::new()
        .initial_window_size(64 * 1024)
        .initial_connection_window_size(64 * 1024 * 1024)
        .handshake::<_, bytes::Bytes>(stream)
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let mut answers = Vec::new();
    let refused = loop {
        assert!(answers.len() < 250, "there is no limit: {proxy:?}");
        sender = sender.ready().await.unwrap();
        let request = http::Request::get("http://app/large").body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        let mut answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        if answer.status() != 200 {
            break answer;
        }
        // Its window is full once all of it has come.
        let mut came = 0;
        while came < 60 * 1024 {
            came += answer.body_mut().data().await.unwrap().unwrap().len();
        }
        answers.push(answer);
    };
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert!(refused.headers()["proxy-status"].to_str().unwrap().contains("error=proxy_memory_limit"));
    println!("{} streams before one is refused", answers.len());
    assert!(answers.len() > 50, "{proxy:?}");
    // The connection is not the one request's alone: it goes on.
    answers.clear();
    settled(admin, MIB * 20).await;
    let again = http::Request::get("http://app/quick").body(()).unwrap();
    let (answer, _) = sender.ready().await.unwrap().send_request(again, true).unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 200);
    driver.abort();
}

//! A proxy in a cgroup of 64 MiB, and callers who ask for much and read little.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::binary::Binary;
use crate::cgroup::Cgroup;
use crate::desk::{Desk, PATIENCE};

const MIB: u64 = 1024 * 1024;
const LIMIT: u64 = 64 * MIB;
/// How many callers connect at a time: as many as a socket's backlog takes.
const AT_ONCE: usize = 512;
/// How long an answer may take while thousands ask at once.
const LONG: Duration = Duration::from_secs(60);

/// An application with an answer without end, and a short one.
async fn application() -> SocketAddr {
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

/// One of the proxy's metrics.
async fn metric(admin: SocketAddr, name: &str) -> u64 {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse::<f64>().unwrap() as u64
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
    let desk = Desk::new();
    let config = format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', protocol: HTTP }}]\n\
         httpRoutes: [{{ name: all, listeners: [web], rules: [{{ backendRefs: [{{ name: app }}] }}] }}]\n\
         backends: [{{ name: app, endpoints: [{{ address: '{}' }}] }}]\n",
        application().await
    );
    desk.write("proxy.yaml", &config);
    let path = desk.path("proxy.yaml");
    let arguments = ["-c", path.to_str().unwrap(), "--admin", "127.0.0.1:0", "--access-log", "off"];
    let mut proxy = Binary::run_in(cgroup.folder(), &arguments);
    let (admin, web) = (proxy.address("admin").await, proxy.address("listener web").await);
    assert_eq!(ask_all(web, "/quick", 100).await.begun.len(), 100);
    assert_eq!(metric(admin, "outrigger_memory_limit_bytes").await, LIMIT);
    let before = metric(admin, "outrigger_memory_used_bytes").await;
    for round in 0..2 {
        let mut slow = ask_all(web, "/large", times).await;
        let (served, refused, closed) = (slow.begun.len(), slow.refused, slow.closed);
        let used = cgroup.used();
        println!(
            "round {round}: {served} served slowly, {refused} refused, {closed} closed; {} MiB used, {} before",
            used / MIB,
            before / MIB
        );
        assert_eq!(served + refused + closed, times);
        assert!(served >= 50 && refused > closed, "{proxy:?}");
        assert!(used < LIMIT, "{used}");
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
#[ignore = "takes a minute, and 12,000 open files: the command is above"]
async fn ten_thousand_slow_readers_in_64_mib_are_shed_and_nothing_is_killed() {
    slow_readers(10_000).await;
}

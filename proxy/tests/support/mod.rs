//! What the tests of a whole proxy share: a proxy from a file, and both ends of a connection byte by byte.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use outrigger_proxy::{Options, Proxy, Source, start};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// After this, what a test waits for is taken not to come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy that runs from a file in a folder of its own.
pub struct Running {
    pub proxy: Proxy,
    pub file: PathBuf,
    pub folder: TempDir,
}

impl Running {
    /// Starts it: on return it listens.
    pub async fn start(yaml: &str) -> Self {
        Self::start_with(yaml, |_| ()).await
    }

    /// The same, with other options.
    pub async fn start_with(yaml: &str, change: impl FnOnce(&mut Options)) -> Self {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("outrigger.yaml");
        std::fs::write(&file, yaml).expect("the file is written");
        let mut options = Options::quiet(Source::File(file.clone()));
        options.complain = std::sync::Arc::new(|line| eprintln!("{line}"));
        change(&mut options);
        let proxy = start(options).await.expect("the proxy starts");
        Self { proxy, file, folder }
    }

    /// Where a listener listens.
    pub fn at(&self, listener: &str) -> SocketAddr {
        self.proxy.listener(listener).expect("the listener is there")
    }

    /// A connection to the listener `web`.
    pub async fn connect(&self) -> Wire {
        Wire::connect(self.at("web")).await
    }

    /// Sends a request to the listener `web` on a connection of its own, and reads the response.
    pub async fn ask(&self, request: &str) -> Message {
        let mut wire = self.connect().await;
        wire.send(request).await;
        wire.response().await
    }

    /// The sum of a metric over all series whose text has all of these parts, such as `code="200"`.
    pub fn metric(&self, name: &str, parts: &[&str]) -> f64 {
        let text = self.proxy.metrics();
        let mine = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && parts.iter().all(|part| line.contains(part))
        });
        mine.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until a metric is `value`.
    pub async fn metric_is(&self, name: &str, parts: &[&str], value: f64) {
        let mut last = f64::NAN;
        let reached = poll(|| {
            last = self.metric(name, parts);
            (last - value).abs() < f64::EPSILON
        });
        assert!(reached.await, "{name}{parts:?} is {last}, not {value}:\n{}", self.proxy.metrics());
    }
}

/// A listener that adds nothing to what passes.
pub const PLAIN: &str = "http: { via: false, forwarded: { xForwarded: false } }";

/// The file of a proxy with one listener, `web`, whose requests all go to one backend, `app`, at these addresses.
pub fn one_backend(addresses: &[SocketAddr]) -> String {
    with_rule("", "", addresses)
}

/// The same, with more fields in the rule (`retry: { attempts: 1 }`) and in the backend (`protocol: H2C`).
pub fn with_rule(rule: &str, backend: &str, addresses: &[SocketAddr]) -> String {
    let endpoints: Vec<_> = addresses.iter().map(|address| format!("{{ address: '{address}' }}")).collect();
    let comma = |fields: &str| if fields.is_empty() { String::new() } else { format!(", {fields}") };
    format!(
        "listeners: [{{ name: web, address: '127.0.0.1:0', {PLAIN}, protocol: HTTP }}]\n\
         httpRoutes: [{{ name: all, listeners: [web], rules: [{{ backendRefs: [{{ name: app }}]{} }}] }}]\n\
         backends: [{{ name: app, endpoints: [{}]{} }}]\n",
        comma(rule),
        endpoints.join(", "),
        comma(backend),
    )
}

/// Whether something comes to hold within [`PATIENCE`]; for what cannot be awaited.
pub async fn poll(mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() > until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    true
}

/// What a future gives, which must be soon.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("what the test waits for comes")
}

/// A socket that listens on a port of the system's choice.
pub async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

/// An address on which nothing listens.
pub async fn nowhere() -> SocketAddr {
    listen().await.1
}

/// One end of a connection of HTTP/1, byte by byte.
pub struct Wire {
    stream: BufReader<TcpStream>,
}

/// A request or response as it came over the wire.
#[derive(Debug, Clone)]
pub struct Message {
    /// The head, without the empty line.
    pub head: String,
    /// The body, out of its chunks.
    pub body: Vec<u8>,
    /// The trailers of a chunked body.
    pub trailers: String,
}

impl Message {
    /// The status of a response.
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line")
    }

    /// The value of a field, its lines joined with a comma.
    pub fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let values: Vec<_> =
            lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }
}

impl Wire {
    pub async fn connect(to: SocketAddr) -> Self {
        Self::new(TcpStream::connect(to).await.expect("a connection"))
    }

    /// The next connection to a listening socket.
    pub async fn accept(listener: &TcpListener) -> Self {
        Self::new(soon(listener.accept()).await.expect("a connection comes").0)
    }

    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket");
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.get_mut().write_all(bytes.as_ref())).await.expect("it can be sent");
    }

    /// Sends bytes, to a peer that may have gone. Whether it had not.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        soon(self.stream.get_mut().write_all(bytes.as_ref())).await.is_ok()
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        self.stream.get_mut().shutdown().await.expect("it can be closed");
    }

    /// Closes with a reset.
    pub fn reset(self) {
        self.stream.get_ref().set_zero_linger().expect("a socket");
    }

    /// Some bytes; none at the end.
    pub async fn some(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 64 * 1024];
        let read = soon(self.stream.read(&mut bytes)).await.unwrap_or(0);
        bytes.truncate(read);
        bytes
    }

    /// So many bytes.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        soon(self.stream.read_exact(&mut bytes)).await.expect("as many bytes come");
        bytes
    }

    /// All up to the end, orderly or not.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = soon(self.stream.read_to_end(&mut bytes)).await;
        bytes
    }

    /// Whether the peer has closed, with nothing more to read. Waits for the one or the other.
    pub async fn closed(&mut self) -> bool {
        self.some().await.is_empty()
    }

    /// A head up to its empty line; `None` at the end.
    pub async fn try_head(&mut self) -> Option<Message> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(self.stream.read_u8()).await.ok()?);
        }
        head.truncate(head.len() - 4);
        let head = String::from_utf8(head).expect("a head of text");
        Some(Message { head, body: Vec::new(), trailers: String::new() })
    }

    /// A head up to its empty line.
    pub async fn head(&mut self) -> Message {
        self.try_head().await.expect("a head comes")
    }

    /// A request with its body.
    pub async fn request(&mut self) -> Message {
        let mut message = self.head().await;
        if message.chunked() {
            self.chunks(&mut message).await;
        } else if let Some(length) = message.header("content-length") {
            message.body = self.exactly(length.parse().expect("a length")).await;
        }
        message
    }

    /// A response with its body, to a request that is not a HEAD.
    pub async fn response(&mut self) -> Message {
        let mut message = self.head().await;
        let bare = matches!(message.status(), 100..=199 | 204 | 304);
        if message.chunked() {
            self.chunks(&mut message).await;
        } else if let Some(length) = message.header("content-length") {
            message.body = self.exactly(if bare { 0 } else { length.parse().expect("a length") }).await;
        } else if !bare {
            message.body = self.rest().await;
        }
        message
    }

    /// One chunk; empty at the last.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let size = self.line().await;
        let size =
            usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16).expect("a chunk's size");
        if size == 0 {
            return Vec::new();
        }
        let bytes = self.exactly(size).await;
        assert_eq!(self.line().await, "");
        bytes
    }

    async fn chunks(&mut self, message: &mut Message) {
        loop {
            let chunk = self.chunk().await;
            if chunk.is_empty() {
                break;
            }
            message.body.extend(chunk);
        }
        loop {
            let line = self.line().await;
            if line.is_empty() {
                break;
            }
            message.trailers.push_str(&line);
            message.trailers.push('\n');
        }
    }

    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(soon(self.stream.read_u8()).await.expect("a line comes"));
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).expect("text")
    }
}

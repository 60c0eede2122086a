//! A developer: a home of their own, the command running in it, and requests over TLS that trust its authority alone.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use outrigger_certs::edge::{Ca, client_config};
use outrigger_certs::rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// After this, what a test waits for is taken not to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Developer {
    pub(crate) home: TempDir,
}

impl Developer {
    pub(crate) fn new() -> Self {
        Self { home: TempDir::new().unwrap() }
    }

    /// The command, in this home.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
        command.args(arguments).current_dir(self.home.path()).stdin(Stdio::null());
        for variable in ["XDG_DATA_HOME", "SUDO_UID", "NO_COLOR"] {
            command.env_remove(variable);
        }
        command.env("HOME", self.home.path());
        command
    }

    /// Runs the command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The authority's certificate.
    pub(crate) fn root(&self) -> PathBuf {
        self.home.path().join(".local/share/outrigger/authority/root.pem")
    }

    /// Starts `outrigger dev` on ports of the system's choice. On return it listens.
    pub(crate) fn dev(&self, sites: &[&str]) -> Dev {
        self.start(self.command(&[&["dev", "--https-port", "0", "--http-port", "0"], sites].concat()))
    }

    /// Starts a command that ends up in an `outrigger dev`.
    pub(crate) fn start(&self, mut command: Command) -> Dev {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = lines(child.stdout.take().unwrap());
        let said = lines(child.stderr.take().unwrap());
        let mut dev = Dev { child, log, said, root: self.root(), urls: Vec::new(), port: 0 };
        while dev.port == 0 {
            let line = dev.said.recv_timeout(PATIENCE).expect("it says where it listens");
            let url = line.split(' ').next().unwrap_or_default();
            if let Some((_, port)) = url.strip_prefix("https://").and_then(|rest| rest.rsplit_once(':')) {
                dev.port = port.split('/').next().unwrap().parse().unwrap();
                dev.urls.push(line);
            } else {
                eprintln!("{line}");
            }
        }
        dev
    }
}

fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A running `outrigger dev`. Dropped, it is killed.
pub(crate) struct Dev {
    child: Child,
    /// The lines of its access log.
    pub(crate) log: Receiver<String>,
    /// What it says beside.
    pub(crate) said: Receiver<String>,
    root: PathBuf,
    /// The lines that say where it listens, as far as they were read.
    pub(crate) urls: Vec<String>,
    /// The port for HTTPS.
    pub(crate) port: u16,
}

impl Dev {
    /// Sends a request, with these lines in its header, and reads the whole answer.
    pub(crate) async fn get(&self, host: &str, path: &str, header: &str) -> Answer {
        let mut stream = self.connect(host).await;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {host}:{}\r\nconnection: close\r\n{header}\r\n", self.port);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        // Whether it ends with TLS's own word does not matter here.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an answer");
        Answer::read(&bytes)
    }

    /// A connection of TLS, for HTTP/1.1, whose certificate must be the authority's.
    pub(crate) async fn connect(&self, host: &str) -> TlsStream<TcpStream> {
        secure(self.port, host, &self.root).await.expect("the certificate is right")
    }
}

/// A connection of TLS to a port of this machine.
pub(crate) async fn secure(port: u16, host: &str, root: &Path) -> std::io::Result<TlsStream<TcpStream>> {
    let config = client_config(Ca::Pem(std::fs::read(root)?), &[b"http/1.1"]).unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
    TlsConnector::from(Arc::clone(&config)).connect(name, stream).await
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
        let body = bytes[end + 4..].to_vec();
        let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
        Self { status, head, body: if chunked { unchunked(&body) } else { body } }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        whole.extend(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
        if size == 0 {
            break;
        }
    }
    whole
}

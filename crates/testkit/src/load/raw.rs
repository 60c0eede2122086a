//! A caller of HTTP/1.1 that costs next to nothing, for requests by the hundred thousand.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ledger::{content_length, head_length};

/// One caller, which keeps its connection as long as it is let, and never tries again.
#[derive(Debug)]
pub struct RawCaller {
    at: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// With this status, and the whole response.
    Answered(u16, String),
    /// The connection to the sidecar broke: no sidecar that runs does this.
    Broke(String),
}

impl Ended {
    /// Whether the status is 200.
    pub const fn is_ok(&self) -> bool {
        matches!(self, Self::Answered(200, _))
    }
}

impl RawCaller {
    /// A caller that connects to `at` when it first calls.
    pub const fn new(at: SocketAddr) -> Self {
        Self { at, stream: None, buffer: Vec::new() }
    }

    /// Sends `METHOD /ID` with a body, to the host `api`.
    pub async fn call(&mut self, method: &str, id: usize, body: &str) -> Ended {
        let length = body.len();
        let request =
            format!("{method} /{id} HTTP/1.1\r\nhost: api\r\ncontent-length: {length}\r\n\r\n{body}");
        match self.exchange(request.as_bytes()).await {
            Ok((status, head)) => Ended::Answered(status, head),
            Err(error) => {
                self.stream = None;
                Ended::Broke(error.to_string())
            }
        }
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<(u16, String)> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.at).await?;
                stream.set_nodelay(true)?;
                none.insert(stream)
            }
        };
        self.buffer.clear();
        stream.write_all(request).await?;
        let head = loop {
            if let Some(head) = head_length(&self.buffer) {
                break head;
            }
            more(stream, &mut self.buffer).await?;
        };
        let length = head + content_length(&self.buffer[..head]);
        while self.buffer.len() < length {
            more(stream, &mut self.buffer).await?;
        }
        let head = String::from_utf8_lossy(&self.buffer[..head]).into_owned();
        if head.contains("connection: close") {
            self.stream = None;
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Ok((status, head))
    }
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    if stream.read_buf(buffer).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

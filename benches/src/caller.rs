//! A caller that costs little: one connection, one request at a time, always the same one.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::generator::Call;

/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// The version of HTTP that callers speak, and that the application speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 with keep-alive.
    H1,
    /// HTTP/2 by prior knowledge, one stream at a time on each connection.
    H2,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection could be made.
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, #[source] io::Error),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// The HTTP/2 connection broke.
    #[error("the HTTP/2 connection broke: {0}")]
    Http2(#[from] hyper::Error),
    /// The answer was not 200.
    #[error("the answer was {0}")]
    Status(StatusCode),
    /// The answer was not one that this caller can read.
    #[error("the answer cannot be read: {0}")]
    Malformed(&'static str),
    /// No answer came in time.
    #[error("no answer within 10 s")]
    TimedOut,
    /// Too many requests were waiting for a connection.
    #[error("more than 10 s behind the rate: requests were not sent")]
    Behind,
}

/// One connection to `address`, made when it is first needed and again after an error.
#[derive(Debug)]
pub struct Caller {
    address: SocketAddr,
    protocol: Protocol,
    body: Bytes,
    http1: Arc<[u8]>,
    connection: Option<Connection>,
}

#[derive(Debug)]
enum Connection {
    Http1(TcpStream, Vec<u8>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Caller {
    /// A caller that sends `body` (POST), or GET if it is empty.
    pub fn new(address: SocketAddr, protocol: Protocol, body: Bytes) -> Self {
        let mut http1 = if body.is_empty() {
            b"GET /bench HTTP/1.1\r\nhost: bench.local\r\n\r\n".to_vec()
        } else {
            format!("POST /bench HTTP/1.1\r\nhost: bench.local\r\ncontent-length: {}\r\n\r\n", body.len())
                .into()
        };
        http1.extend_from_slice(&body);
        Self { address, protocol, body, http1: http1.into(), connection: None }
    }

    async fn connect(&self) -> Result<Connection, CallError> {
        let failed = |error| CallError::Connect(self.address, error);
        let stream = TcpStream::connect(self.address).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        if self.protocol == Protocol::H1 {
            return Ok(Connection::Http1(stream, Vec::with_capacity(4096)));
        }
        let (send, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        Ok(Connection::Http2(send))
    }

    fn http2_request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = if self.body.is_empty() { Method::GET } else { Method::POST };
        *request.uri_mut() = http::Uri::from_static("http://bench.local/bench");
        request
    }
}

impl Call for Caller {
    async fn call(&mut self) -> Result<(), CallError> {
        // Taken out meanwhile, so that a call that fails or is given up leaves no broken connection behind.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let keep = match &mut connection {
            Connection::Http1(stream, buffer) => http1_exchange(stream, &self.http1, buffer).await?,
            Connection::Http2(send) => {
                send.ready().await?;
                http2_exchange(send, self.http2_request()).await?
            }
        };
        if keep {
            self.connection = Some(connection);
        }
        Ok(())
    }
}

async fn http2_exchange(
    send: &mut http2::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<bool, CallError> {
    let response = send.send_request(request).await?;
    let status = response.status();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    if status == StatusCode::OK { Ok(true) } else { Err(CallError::Status(status)) }
}

/// Sends `request`, reads the answer into `buffer`, and says whether the connection may be used again.
async fn http1_exchange(
    stream: &mut TcpStream,
    request: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<bool, CallError> {
    stream.write_all(request).await?;
    buffer.clear();
    let (head, length) = loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break (Head::parse(buffer.get(..end).unwrap_or_default())?, end + 4);
        }
        if buffer.len() > MAX_HEAD {
            return Err(CallError::Malformed("its head is longer than 16 KiB"));
        }
    };
    while buffer.len() < length + head.body {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    if head.status == StatusCode::OK { Ok(!head.close) } else { Err(CallError::Status(head.status)) }
}

/// What this caller needs to know of an answer's head (RFC 9112).
#[derive(Debug, PartialEq)]
struct Head {
    status: StatusCode,
    /// The length of the body, in bytes.
    body: usize,
    close: bool,
}

impl Head {
    fn parse(head: &[u8]) -> Result<Self, CallError> {
        let status = head
            .strip_prefix(b"HTTP/1.1 ")
            .and_then(|rest| StatusCode::from_bytes(rest.get(..3)?).ok())
            .ok_or(CallError::Malformed("it does not begin with an HTTP/1.1 status"))?;
        let mut length = None;
        let mut close = false;
        for line in head.split(|byte| *byte == b'\n').skip(1) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            if name.eq_ignore_ascii_case(b"content-length") {
                length = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            } else if name.eq_ignore_ascii_case(b"connection") {
                close = value.eq_ignore_ascii_case(b"close");
            }
        }
        let body = length.ok_or(CallError::Malformed("it has no content-length"))?;
        Ok(Self { status, body, close })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_heads() {
        let head =
            Head::parse(b"HTTP/1.1 200 OK\r\nserver: x\r\nContent-Length: 12\r\nConnection: close").unwrap();
        assert_eq!(head, Head { status: StatusCode::OK, body: 12, close: true });
        let head = Head::parse(b"HTTP/1.1 503 \r\ncontent-length:0").unwrap();
        assert_eq!(head, Head { status: StatusCode::SERVICE_UNAVAILABLE, body: 0, close: false });
        Head::parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked").unwrap_err();
        Head::parse(b"SSH-2.0").unwrap_err();
        Head::parse(b"").unwrap_err();
    }
}

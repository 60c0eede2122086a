//! Who calls: what an application does through its sidecar.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Error;

/// One caller of HTTP/1.1, which keeps its connection as long as it is let.
#[derive(Debug)]
pub struct Caller {
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
    connections: u32,
}

/// A response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The application that answered, as it says itself; empty where none did.
    pub fn app(&self) -> &str {
        self.text("x-app")
    }

    /// Why the proxy answered itself (RFC 9209); empty where it did not.
    pub fn proxy_status(&self) -> &str {
        self.text("proxy-status")
    }

    fn text(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl Caller {
    /// A caller that connects to `address` when it first calls.
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, connection: None, connections: 0 }
    }

    /// GETs a path of a host.
    ///
    /// # Errors
    /// If no connection can be made, or it breaks before the response has ended: callers never try again by themselves.
    pub async fn get(&mut self, host: &str, path: &str) -> Result<Answer, Error> {
        self.call(Method::GET, host, path, Bytes::new()).await
    }

    /// Sends any request.
    ///
    /// # Errors
    /// As [`Caller::get`].
    pub async fn call(
        &mut self,
        method: Method,
        host: &str,
        path: &str,
        body: Bytes,
    ) -> Result<Answer, Error> {
        let request = Request::builder().method(method).uri(path).header(header::HOST, host);
        let request = request.body(Full::new(body))?;
        let mut connection = match self.connection.take() {
            Some(connection) if !connection.is_closed() => connection,
            _ => self.connect().await?,
        };
        connection.ready().await?;
        let (parts, body) = connection.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        let last = parts.headers.get(header::CONNECTION).is_some_and(|value| value == "close");
        self.connection = (!last).then_some(connection);
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    /// How many connections it has made so far.
    pub const fn connections(&self) -> u32 {
        self.connections
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // How it ends, the sender learns.
        tokio::spawn(connection);
        self.connections += 1;
        Ok(sender)
    }
}

//! Who calls a proxy: HTTP/1.1 and HTTP/2, with TLS and without.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_certs::edge::{self, Ca};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::desk::PATIENCE;

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    async fn read(response: http::Response<hyper::body::Incoming>) -> hyper::Result<Self> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Self { status: head.status.as_u16(), headers: head.headers, body })
    }

    /// A header's text; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Which application answered.
    pub(crate) fn app(&self) -> &str {
        self.header("x-app")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A connection that stays open between requests.
pub(crate) struct Http1 {
    send: http1::SendRequest<Empty<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Http1 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    pub(crate) async fn over<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: IO) -> Self {
        let (send, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
        Self { send, connection: tokio::spawn(connection) }
    }

    pub(crate) async fn get(&mut self, host: &str, path: &str) -> hyper::Result<Answer> {
        let request = Request::get(path).header("host", host).body(Empty::new()).unwrap();
        self.send.ready().await?;
        Answer::read(self.send.send_request(request).await?).await
    }

    /// Waits until the other side has closed it.
    pub(crate) async fn closed(self) {
        let Self { send, connection } = self;
        let ended = tokio::time::timeout(PATIENCE, connection).await;
        drop(send);
        ended.expect("the connection is closed").unwrap().unwrap();
    }
}

/// A connection that requests share.
pub(crate) struct Http2 {
    send: http2::SendRequest<Empty<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Http2 {
    pub(crate) async fn over<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: IO) -> Self {
        let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
        Self { send, connection: tokio::spawn(connection) }
    }

    pub(crate) async fn get(&self, url: &str) -> hyper::Result<Answer> {
        let mut send = self.send.clone();
        send.ready().await?;
        let request = Request::get(url).body(Empty::new()).unwrap();
        Answer::read(send.send_request(request).await?).await
    }

    /// The same; `None` where the connection has said that it ends before the request was sent.
    pub(crate) async fn try_get(&self, url: &str) -> Option<hyper::Result<Answer>> {
        match self.get(url).await {
            Err(error) if error.is_canceled() || error.is_closed() => None,
            answer => Some(answer),
        }
    }

    pub(crate) async fn closed(self) {
        let Self { send, connection } = self;
        let ended = tokio::time::timeout(PATIENCE, connection).await;
        drop(send);
        ended.expect("the connection is closed").unwrap().unwrap();
    }
}

/// One request on a connection of its own.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> Answer {
    try_get(address, host, path).await.unwrap()
}

/// The same where the connection may fail.
pub(crate) async fn try_get(address: SocketAddr, host: &str, path: &str) -> Option<Answer> {
    let asked = async {
        let stream = TcpStream::connect(address).await.ok()?;
        Http1::over(stream).await.get(host, path).await.ok()
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("an answer in time")
}

/// TLS to a listener, trusting the authorities in `roots` (PEM), offering these protocols.
pub(crate) async fn tls(
    address: SocketAddr,
    name: &str,
    roots: &str,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let config = edge::client_config(Ca::Pem(roots.as_bytes().to_vec()), alpn).unwrap();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::clone(&config)).connect(name, stream).await
}

/// The certificate that the other side showed.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

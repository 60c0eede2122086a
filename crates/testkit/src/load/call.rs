//! One request of each kind, from its connection to its last byte.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, header};
use http_body_util::channel::Channel;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{Kind, Traffic};

type Body = UnsyncBoxBody<Bytes, Infallible>;
/// Why a request is a failure.
type Why = String;

/// Who calls: the connections that are kept.
#[derive(Debug)]
pub(super) struct Callers {
    at: SocketAddr,
    traffic: Traffic,
    http1: Mutex<Vec<http1::SendRequest<Body>>>,
    /// Taken in turn.
    http2: Box<[tokio::sync::Mutex<Option<http2::SendRequest<Body>>>]>,
    turn: AtomicUsize,
}

impl Callers {
    pub(super) fn new(at: SocketAddr, traffic: Traffic) -> Self {
        let http2 = std::iter::repeat_with(Default::default).take(traffic.shared()).collect();
        Self { at, traffic, http1: Mutex::default(), http2, turn: AtomicUsize::new(0) }
    }

    pub(super) const fn patience(&self) -> Duration {
        self.traffic.patience
    }

    pub(super) const fn kind(&self) -> Kind {
        self.traffic.kind
    }

    pub(super) async fn call(&self) -> Result<(), Why> {
        let kind = self.kind();
        match kind {
            Kind::Http1 => self.call_http1().await,
            Kind::Http2 => self.call_http2().await,
            Kind::Unary => self.unary().await,
            Kind::Streaming { messages, gap } => self.stream(messages, gap).await,
        }
        .map_err(|why| format!("{kind:?}: {why}"))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<http1::SendRequest<Body>>> {
        self.http1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call_http1(&self) -> Result<(), Why> {
        let kept = self.idle().pop();
        let mut connection = match kept {
            Some(connection) if !connection.is_closed() => connection,
            _ => {
                let (sender, connection) = http1::handshake(self.connect().await?).await.map_err(said)?;
                // How it ends, the sender learns.
                tokio::spawn(connection);
                sender
            }
        };
        connection.ready().await.map_err(said)?;
        let request = Request::builder().method(&self.traffic.method).uri(&self.traffic.path);
        let request = request.header(header::HOST, "api").body(Empty::new().boxed_unsync()).map_err(said)?;
        let response = connection.send_request(request).await.map_err(said)?;
        let last = response.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
        succeeded(response).await?;
        if !last {
            self.idle().push(connection);
        }
        Ok(())
    }

    async fn call_http2(&self) -> Result<(), Why> {
        let request = Request::builder().method(&self.traffic.method).uri(self.uri());
        let request = request.body(Empty::new().boxed_unsync()).map_err(said)?;
        let response = self.shared().await?.send_request(request).await.map_err(said)?;
        succeeded(response).await.map(drop)
    }

    async fn unary(&self) -> Result<(), Why> {
        let message = framed(b"hello");
        let request = self.grpc(Full::new(message.clone()).boxed_unsync())?;
        let response = self.shared().await?.send_request(request).await.map_err(said)?;
        let head = is_ok(&response)?;
        let body = response.into_body().collect().await.map_err(said)?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        grpc_ok(&trailers, &head)?;
        let body = body.to_bytes();
        if body == message { Ok(()) } else { Err(format!("another message came back: {body:?}")) }
    }

    async fn stream(&self, messages: u32, gap: Duration) -> Result<(), Why> {
        let (mut send, body) = Channel::<Bytes, Infallible>::new(4);
        let request = self.grpc(body.boxed_unsync())?;
        let response = self.shared().await?.send_request(request).await.map_err(said)?;
        let head = is_ok(&response)?;
        let mut body = response.into_body();
        let message = framed(b"hello");
        for nth in 0..messages {
            send.send_data(message.clone()).await.map_err(said)?;
            let mut came = 0;
            while came < message.len() {
                let frame = body.frame().await.ok_or_else(|| format!("it ended after {nth} messages"))?;
                let frame = frame.map_err(|error| format!("after {nth} messages: {error:?}"))?;
                let ended = |trailers| format!("it ended after {nth} messages: {trailers:?}");
                came += frame.into_data().map_err(|frame| ended(frame.into_trailers().ok()))?.len();
            }
            tokio::time::sleep(gap).await;
        }
        drop(send);
        let trailers = body.collect().await.map_err(said)?.trailers().cloned().unwrap_or_default();
        grpc_ok(&trailers, &head)
    }

    fn grpc(&self, body: Body) -> Result<Request<Body>, Why> {
        let request = Request::post(self.uri()).header(header::TE, "trailers");
        request.header(header::CONTENT_TYPE, "application/grpc").body(body).map_err(said)
    }

    fn uri(&self) -> String {
        format!("http://api{}", self.traffic.path)
    }

    /// The connection whose turn it is, made again only once it has ended.
    async fn shared(&self) -> Result<http2::SendRequest<Body>, Why> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.http2.len().max(1);
        let mut kept = self.http2.get(turn).ok_or("there is no connection")?.lock().await;
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let io = self.connect().await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(said)?;
        tokio::spawn(connection);
        *kept = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self) -> Result<TokioIo<TcpStream>, Why> {
        let stream = TcpStream::connect(self.at).await.map_err(said)?;
        stream.set_nodelay(true).map_err(said)?;
        Ok(TokioIo::new(stream))
    }
}

fn said(error: impl std::fmt::Debug) -> Why {
    format!("{error:?}")
}

/// A message of gRPC, not compressed (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// The head of a response whose status is 200.
fn is_ok(response: &Response<Incoming>) -> Result<HeaderMap, Why> {
    let fields = response.headers().clone();
    if response.status() == 200 { Ok(fields) } else { Err(format!("{} {fields:?}", response.status())) }
}

async fn succeeded(response: Response<Incoming>) -> Result<(), Why> {
    is_ok(&response)?;
    response.into_body().collect().await.map(drop).map_err(said)
}

/// Whether a call has the status 0, in its trailers, or in its head where that is all there is.
fn grpc_ok(trailers: &HeaderMap, head: &HeaderMap) -> Result<(), Why> {
    let status = trailers.get("grpc-status").or_else(|| head.get("grpc-status"));
    if status.is_some_and(|status| status == "0") { Ok(()) } else { Err(format!("{trailers:?}, {head:?}")) }
}

//! What the HTTP application answers: one function per path.

use std::{
    collections::HashMap,
    fmt::Write as _,
    io,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, request};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::server::Phases;

/// The longest body whose text the JSON repeats, in bytes.
const ECHOED_TEXT: usize = 64 * 1024;
/// The largest chunk of `/bytes`, in bytes.
const CHUNK: u64 = 64 * 1024;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The application's state: its name, and what it has counted.
#[derive(Debug)]
pub(super) struct Answers {
    name: String,
    header: HeaderValue,
    requests: AtomicU64,
    failed: Mutex<HashMap<String, u64>>,
}

impl Answers {
    pub(super) fn new(name: &str) -> Self {
        let header = HeaderValue::from_str(name).unwrap_or(HeaderValue::from_static("unnameable"));
        Self { name: name.into(), header, requests: AtomicU64::new(0), failed: Mutex::default() }
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Answers one request. `reset` makes the connection that it came on end with a TCP reset.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        phases: Phases,
        reset: impl FnOnce(),
    ) -> io::Result<Response<Body>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let path = request.uri().path().to_owned();
        let mut segments = path.trim_start_matches('/').split('/');
        let first = segments.next().unwrap_or_default();
        let mut number = || segments.next().and_then(|segment| segment.parse::<u64>().ok());
        let mut response = match first {
            "echo" => echo(request),
            "grpc" => grpc_echo(request),
            "status" => {
                match number().and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok()) {
                    Some(status) => with_status(status),
                    None => with_status(StatusCode::BAD_REQUEST),
                }
            }
            "delay" => {
                tokio::time::sleep(Duration::from_millis(number().unwrap_or(0))).await;
                self.describe(request, peer).await
            }
            "bytes" => bytes(number().unwrap_or(0)),
            "drip" => drip(number().unwrap_or(1), Duration::from_millis(number().unwrap_or(0))),
            "trailers" => trailers(),
            "hang" => std::future::pending().await,
            "reset" => {
                if request.version() != Version::HTTP_2 {
                    reset();
                }
                cut_short()
            }
            "break" => {
                reset();
                // Nothing of a response, which is to come on a connection that ends.
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            "upgrade" => upgrade(request, phases),
            "fail-first" if self.must_fail(request.uri().query(), number().unwrap_or(0)) => {
                with_status(StatusCode::SERVICE_UNAVAILABLE)
            }
            _ => self.describe(request, peer).await,
        };
        response.headers_mut().insert("x-app", self.header.clone());
        Ok(response)
    }

    fn must_fail(&self, query: Option<&str>, times: u64) -> bool {
        let key = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("key=")));
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failed.entry(key.unwrap_or_default().to_owned()).or_default();
        *count += 1;
        *count <= times
    }

    /// JSON about the request as it arrived.
    async fn describe(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return with_status(StatusCode::BAD_REQUEST);
        };
        let trailers = body.trailers().map(pairs);
        let seen = self.seen(&head, &body.to_bytes(), trailers, peer);
        let mut response = Response::new(full(seen.to_string() + "\n"));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    fn seen(&self, head: &request::Parts, body: &[u8], trailers: Option<Value>, peer: SocketAddr) -> Value {
        let sha256 =
            digest::digest(&digest::SHA256, body).as_ref().iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
        let text = (body.len() <= ECHOED_TEXT).then(|| std::str::from_utf8(body).ok()).flatten();
        json!({
            "app": self.name,
            "method": head.method.as_str(),
            "path": head.uri.path_and_query().map_or("", |path| path.as_str()),
            "authority": head.uri.authority().map(ToString::to_string),
            "version": format!("{:?}", head.version),
            "peer": peer.to_string(),
            "headers": pairs(&head.headers),
            "body": { "length": body.len(), "sha256": sha256, "text": text },
            "trailers": trailers,
        })
    }
}

fn pairs(headers: &HeaderMap) -> Value {
    headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect()
}

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

fn with_status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn echo(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(body.map_err(io::Error::other).boxed_unsync());
    // HTTP/1.1 sends only the trailers that were announced.
    for name in [header::CONTENT_TYPE, header::TRAILER] {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

/// The messages as they come, and then the status of a call that succeeded.
fn grpc_echo(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let status = HeaderMap::from_iter([(
        header::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    // What ends a request is often a frame without data. Servers of gRPC do not send such before their trailers, and
    // after a hundred on one connection the h2 crate takes them for an attack.
    let messages = body.into_data_stream().map_err(io::Error::other);
    let messages = messages.try_filter(|data| std::future::ready(!data.is_empty())).map_ok(Frame::data);
    let body = StreamBody::new(messages).with_trailers(std::future::ready(Some(Ok(status))));
    let mut response = Response::new(body.boxed_unsync());
    if let Some(kind) = head.headers.get(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
    }
    response
}

fn bytes(length: u64) -> Response<Body> {
    let chunks = stream::iter((0..length.div_ceil(CHUNK)).map(move |index| {
        let size = CHUNK.min(length - index * CHUNK) as usize;
        static XS: [u8; CHUNK as usize] = [b'x'; CHUNK as usize];
        Ok(Frame::data(Bytes::from_static(&XS).slice(..size)))
    }));
    let mut response = Response::new(StreamBody::new(chunks).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

fn drip(count: u64, gap: Duration) -> Response<Body> {
    let chunks = stream::iter(0..count).then(move |index| async move {
        if index > 0 {
            tokio::time::sleep(gap).await;
        }
        Ok(Frame::data(Bytes::from(format!("drip {index:02}\n"))))
    });
    Response::new(StreamBody::new(chunks).boxed_unsync())
}

fn trailers() -> Response<Body> {
    let trailers = HeaderMap::from_iter([(
        header::HeaderName::from_static("x-trailer"),
        HeaderValue::from_static("yes"),
    )]);
    let frames = [Ok(Frame::data(Bytes::from_static(b"hello"))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(stream::iter(frames)).boxed_unsync());
    response.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-trailer"));
    response
}

/// Five bytes of a thousand, and an error in the body, at which hyper gives the connection (HTTP/2: the stream) up.
fn cut_short() -> Response<Body> {
    let frames = stream::iter(0..2).then(|index| async move {
        if index == 0 {
            return Ok(Frame::data(Bytes::from_static(b"hello")));
        }
        // hyper writes out what it has when the body is not ready.
        tokio::task::yield_now().await;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("1000"));
    response
}

fn upgrade(mut request: Request<Incoming>, phases: Phases) -> Response<Body> {
    let wanted = request.headers().get(header::UPGRADE).cloned();
    let known = wanted.filter(|name| {
        request.method() == Method::GET
            && [&b"websocket"[..], b"echo"].iter().any(|known| name.as_bytes().eq_ignore_ascii_case(known))
    });
    let Some(protocol) = known else {
        return with_status(StatusCode::UPGRADE_REQUIRED);
    };
    tokio::spawn(echo_upgraded(hyper::upgrade::on(&mut request), phases));
    let mut response = with_status(StatusCode::SWITCHING_PROTOCOLS);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, protocol);
    response
}

async fn echo_upgraded(upgrade: OnUpgrade, mut phases: Phases) {
    let copy = async {
        let upgraded = TokioIo::new(upgrade.await.ok()?);
        let (mut read, mut write) = tokio::io::split(upgraded);
        tokio::io::copy(&mut read, &mut write).await.ok()?;
        tokio::io::AsyncWriteExt::shutdown(&mut write).await.ok()
    };
    tokio::select! {
        biased;
        () = phases.stopping() => {}
        _ = copy => {}
    }
}

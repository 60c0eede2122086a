//! An application that is ill on command.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// This status.
    Status(u16),
    /// 200, after so many milliseconds.
    Late(u64),
    /// Nothing.
    Hang,
    /// A head, a part of the body, and an end.
    Break,
    /// A call of gRPC: a message, and this status in the trailers.
    Trailers(u8),
    /// A call of gRPC: this status in the head.
    TrailersOnly(u8),
    /// A call of grpc.health.v1: this serving status.
    Serving(u8),
}

#[derive(Debug)]
struct State {
    mood: Mutex<Mood>,
    /// What a path beginning with `/health`, or of grpc.health.v1, gets.
    health: Mutex<Mood>,
    requests: AtomicUsize,
    checks: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

/// The application. Counts requests and checks apart.
#[derive(Debug, Clone)]
pub struct Stub {
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Stub {
    /// One that is well, and speaks HTTP/1.1.
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0", false).await
    }

    /// One that is well, and speaks HTTP/2 by prior knowledge.
    pub async fn start_http2() -> Self {
        Self::start_at("127.0.0.1:0", true).await
    }

    /// One that listens there.
    pub async fn start_at(address: &str, http2: bool) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            mood: Mutex::new(Mood::Status(200)),
            health: Mutex::new(Mood::Status(200)),
            requests: AtomicUsize::new(0),
            checks: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
        });
        tokio::spawn(serve(listener, state.clone(), http2));
        Self { address, state }
    }

    pub fn is(&self, mood: Mood) {
        *self.state.mood.lock().unwrap() = mood;
    }

    pub fn says_of_its_health(&self, mood: Mood) {
        *self.state.health.lock().unwrap() = mood;
    }

    pub fn requests(&self) -> usize {
        self.state.requests.load(SeqCst)
    }

    pub fn checks(&self) -> usize {
        self.state.checks.load(SeqCst)
    }

    pub fn most_open(&self) -> usize {
        self.state.most_open.load(SeqCst)
    }
}

async fn serve(listener: TcpListener, state: Arc<State>, http2: bool) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let state = state.clone();
        tokio::spawn(async move {
            let open = state.open.fetch_add(1, SeqCst) + 1;
            state.most_open.fetch_max(open, SeqCst);
            let answers = state.clone();
            let service = service_fn(move |request| answer(answers.clone(), request));
            let io = TokioIo::new(stream);
            if http2 {
                let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
            } else {
                let _ = http1::Builder::new().serve_connection(io, service).await;
            }
            state.open.fetch_sub(1, SeqCst);
        });
    }
}

type Body = BoxBody<Bytes, io::Error>;

fn body(frames: Vec<io::Result<Frame<Bytes>>>) -> Body {
    let frames = futures_util::stream::iter(frames).then(async |frame| {
        if frame.is_err() {
            // What came before it is to be seen by the other side.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        frame
    });
    BodyExt::boxed(StreamBody::new(Box::pin(frames)))
}

fn status(status: u8) -> HeaderMap {
    HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from(u16::from(status)),
    )])
}

fn framed(message: &[u8]) -> Bytes {
    [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat().into()
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let check =
        request.uri().path().starts_with("/health") || request.uri().path().starts_with("/grpc.health");
    let (count, mood) = if check { (&state.checks, &state.health) } else { (&state.requests, &state.mood) };
    count.fetch_add(1, SeqCst);
    let mood = *mood.lock().unwrap();
    // Whoever sends a body is listened to.
    let _ = request.into_body().collect().await;
    let data = |bytes: &'static [u8]| Ok(Frame::data(Bytes::from_static(bytes)));
    let mut response = Response::new(body(Vec::new()));
    if matches!(mood, Mood::Trailers(_) | Mood::TrailersOnly(_) | Mood::Serving(_)) {
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    }
    match mood {
        Mood::Status(status) => *response.status_mut() = status.try_into().unwrap(),
        Mood::Late(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
        Mood::Hang => std::future::pending().await,
        Mood::Break => *response.body_mut() = body(vec![data(b"half"), Err(io::Error::other("as asked"))]),
        Mood::Trailers(code) => {
            *response.body_mut() =
                body(vec![Ok(Frame::data(framed(b"x"))), Ok(Frame::trailers(status(code)))]);
        }
        Mood::TrailersOnly(code) => response.headers_mut().extend(status(code)),
        Mood::Serving(serving) => {
            let message = Frame::data(framed(&[8, serving]));
            *response.body_mut() = body(vec![Ok(message), Ok(Frame::trailers(status(0)))]);
        }
    }
    Ok(response)
}

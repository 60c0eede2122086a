//! Callers of HTTP/2: plain requests, gRPC's unary calls, and gRPC's streams.

use std::future::poll_fn;

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{Builder, SendRequest},
};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};

use super::{Load, Target, Tls, dial::Wire, error::CallError, lane::Talk};
use crate::grpc::{self, Messages};

/// A stream's window, and a connection's: so large that they are not what is measured.
const WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// A connection, as each of its streams has it.
pub(super) type Sender = SendRequest<Bytes>;

/// Begins HTTP/2; the connection lives until all that were cloned from this are dropped.
pub(super) async fn begin(wire: Wire) -> Result<Sender, CallError> {
    let mut builder = Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(CONNECTION_WINDOW).enable_push(false);
    let (sender, connection) = builder.handshake(wire).await?;
    // How it ends is seen by its streams.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

/// What is spoken on the streams of a connection.
pub(super) trait Streams: Clone + Send + Sync + 'static {
    /// What a lane keeps from one exchange to the next.
    type Stream: Send;

    /// Whatever precedes the first exchange.
    fn open(&self, sender: Sender) -> impl Future<Output = Result<Self::Stream, CallError>> + Send;

    /// Sends a request or message, and reads the whole answer.
    fn exchange(&self, stream: &mut Self::Stream) -> impl Future<Output = Result<(), CallError>> + Send;
}

/// Speaks it on a connection that is not shared.
#[derive(Debug, Clone)]
pub(super) struct Unshared<S>(pub(super) S);

impl<S: Streams> Talk for Unshared<S> {
    type Session = S::Stream;

    async fn open(&mut self, wire: Wire) -> Result<Self::Session, CallError> {
        self.0.open(begin(wire).await?).await
    }

    async fn exchange(&mut self, stream: &mut Self::Session) -> Result<bool, CallError> {
        self.0.exchange(stream).await.map(|()| true)
    }
}

/// The head of every request, and what answers have to be.
#[derive(Debug, Clone)]
struct Asked {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    content: Bytes,
    length: Option<u64>,
}

impl Asked {
    fn new(load: &Load, target: &Target, headers: HeaderMap, content: Bytes) -> Result<Self, http::Error> {
        let scheme = if load.tls == Tls::Off { "http" } else { "https" };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(target.host.as_str())
            .path_and_query(target.path(load.traffic))
            .build()?;
        let method = if content.is_empty() { Method::GET } else { Method::POST };
        let length = target.exact.then_some(load.response_bytes as u64);
        Ok(Self { method, uri, headers, content, length })
    }

    async fn begin(
        &self,
        sender: &mut Sender,
        end: bool,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>), CallError> {
        poll_fn(|cx| sender.poll_ready(cx)).await.map_err(CallError::Gone)?;
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        Ok(sender.send_request(request, end)?)
    }

    fn is_length(&self, length: u64) -> Result<(), CallError> {
        match self.length {
            Some(expected) if expected != length => Err(CallError::Length(length, expected)),
            _ => Ok(()),
        }
    }
}

/// Requests and responses.
#[derive(Debug, Clone)]
pub(super) struct Plain(Asked);

impl Plain {
    pub(super) fn new(load: &Load, target: &Target) -> Result<Self, http::Error> {
        let mut headers = HeaderMap::new();
        if load.request_bytes > 0 {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(load.request_bytes));
        }
        Ok(Self(Asked::new(load, target, headers, vec![b'x'; load.request_bytes].into())?))
    }
}

impl Streams for Plain {
    type Stream = Sender;

    async fn open(&self, sender: Sender) -> Result<Sender, CallError> {
        Ok(sender)
    }

    async fn exchange(&self, sender: &mut Sender) -> Result<(), CallError> {
        let asked = &self.0;
        let (response, mut stream) = asked.begin(sender, asked.content.is_empty()).await?;
        if !asked.content.is_empty() {
            stream.send_data(asked.content.clone(), true)?;
        }
        let response = response.await?;
        let status = response.status();
        let mut content = response.into_body();
        let mut length = 0;
        while let Some(data) = data(&mut content).await? {
            length += data.len() as u64;
        }
        if !status.is_success() {
            return Err(CallError::Status(status.as_u16()));
        }
        asked.is_length(length)
    }
}

/// gRPC: one message, and one back.
#[derive(Debug, Clone)]
pub(super) struct Unary(Asked);

impl Unary {
    pub(super) fn new(load: &Load, target: &Target) -> Result<Self, http::Error> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        Ok(Self(Asked::new(load, target, headers, grpc::message(load.request_bytes))?))
    }
}

impl Streams for Unary {
    type Stream = Sender;

    async fn open(&self, sender: Sender) -> Result<Sender, CallError> {
        Ok(sender)
    }

    async fn exchange(&self, sender: &mut Sender) -> Result<(), CallError> {
        let (response, mut stream) = self.0.begin(sender, false).await?;
        stream.send_data(self.0.content.clone(), true)?;
        let response = response.await?;
        let status = response.status();
        if !status.is_success() {
            return Err(CallError::Status(status.as_u16()));
        }
        // Of an answer that is nothing but trailers.
        let at_once = response.headers().get("grpc-status").cloned();
        let mut content = response.into_body();
        let mut messages = Messages::default();
        while let Some(data) = data(&mut content).await? {
            messages.read(&data);
        }
        let trailers = poll_fn(|cx| content.poll_trailers(cx)).await?;
        let status = trailers.and_then(|trailers| trailers.get("grpc-status").cloned()).or(at_once);
        is_ok(status.as_ref())?;
        if messages.whole() != 1 || !messages.is_between() {
            return Err(CallError::Malformed("it is not one message"));
        }
        self.0.is_length(messages.last())
    }
}

/// gRPC: a stream in both directions, with one message there and one back at a time.
#[derive(Debug, Clone)]
pub(super) struct Bidirectional(Asked);

impl Bidirectional {
    pub(super) fn new(load: &Load, target: &Target) -> Result<Self, http::Error> {
        Unary::new(load, target).map(|unary| Self(unary.0))
    }
}

/// A stream that was opened.
pub(super) struct Open {
    send: SendStream<Bytes>,
    receive: Receive,
    messages: Messages,
    /// Without which the connection would end.
    _sender: Sender,
}

/// An application may send its response's head no sooner than its first message.
enum Receive {
    Head(h2::client::ResponseFuture),
    Content(RecvStream),
}

impl Streams for Bidirectional {
    type Stream = Open;

    async fn open(&self, mut sender: Sender) -> Result<Open, CallError> {
        let (response, send) = self.0.begin(&mut sender, false).await?;
        let receive = Receive::Head(response);
        Ok(Open { send, receive, messages: Messages::default(), _sender: sender })
    }

    async fn exchange(&self, open: &mut Open) -> Result<(), CallError> {
        let before = open.messages.whole();
        open.send.send_data(self.0.content.clone(), false)?;
        if let Receive::Head(response) = &mut open.receive {
            let response = response.await?;
            if !response.status().is_success() {
                return Err(CallError::Status(response.status().as_u16()));
            }
            open.receive = Receive::Content(response.into_body());
        }
        let Receive::Content(content) = &mut open.receive else { return Ok(()) };
        while open.messages.whole() == before {
            let Some(data) = data(content).await? else {
                let trailers = poll_fn(|cx| content.poll_trailers(cx)).await?;
                is_ok(trailers.as_ref().and_then(|trailers| trailers.get("grpc-status")))?;
                return Err(CallError::Malformed("the stream ended"));
            };
            open.messages.read(&data);
        }
        if open.messages.whole() != before + 1 || !open.messages.is_between() {
            return Err(CallError::Malformed("it is not one message"));
        }
        self.0.is_length(open.messages.last())
    }
}

/// The next bytes of the content; what has come may be sent again at once.
async fn data(content: &mut RecvStream) -> Result<Option<Bytes>, CallError> {
    let Some(data) = content.data().await.transpose()? else { return Ok(None) };
    content.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}

fn is_ok(status: Option<&HeaderValue>) -> Result<(), CallError> {
    match status {
        Some(status) if status == "0" => Ok(()),
        status => Err(CallError::Grpc(status.map(|status| status.to_str().unwrap_or("?").to_owned()))),
    }
}

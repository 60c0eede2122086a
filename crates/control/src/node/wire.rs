//! Connections to the control API: one request for a certificate, and the stream.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use outrigger_certs::rustls::{self, ClientConfig};
use outrigger_certs::{Secret, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Error;
use crate::lines::{LineError, Lines, encode};
use crate::message::{FromControl, FromNode, SIGN_PATH, STREAM_PATH, SignRequest, SignResponse};

/// How long a connection may take to be made, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer's beginning may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of an answer that is not a stream.
const MAX_ANSWER: usize = 1 << 20;
/// How many lines may wait to be sent.
const OUTBOX: usize = 16;

/// What went wrong between the node and the control API. All of it may get better.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("cannot reach {0}: {1}")]
    Connect(String, io::Error),
    #[error("cannot reach {0}: no connection within {secs} s", secs = CONNECT_TIMEOUT.as_secs())]
    ConnectTimeout(String),
    #[error("{0} does not speak TLS: is it the control API's stream address (port 15012)?")]
    NotTls(String),
    #[error("{0} does not speak HTTP/2: is it the control API's stream address (port 15012)?")]
    NotHttp2(String),
    #[error("the connection failed: {}", root_cause(.0))]
    Http(#[from] hyper::Error),
    #[error("the answer cannot be read: {0}")]
    Answer(String),
    #[error("refused ({status}): {reason}")]
    Refused { status: StatusCode, reason: String },
    #[error("on the stream: {0}")]
    Line(#[from] LineError),
    #[error("the control API has closed the stream; its log says why")]
    Closed,
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("what it signed cannot be used: {0}")]
    Identity(#[from] outrigger_certs::Error),
    #[error("the token {0}")]
    Token(String),
}

/// hyper's own message names the phase; its innermost source names the reason.
fn root_cause(error: &hyper::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Where the control API is.
#[derive(Debug)]
pub(super) struct Origin {
    host: String,
    port: u16,
    /// As it stands in a URL: an IPv6 address in brackets.
    authority: String,
    name: ServerName<'static>,
}

impl Origin {
    /// Reads `https://HOST:PORT`.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Url { url: url.to_owned(), reason: reason.to_owned() };
        let uri: http::Uri = url.parse().map_err(|error| wrong(&format!("{error}")))?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong("it must begin with https://"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it must not have a path"));
        }
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(15012);
        let authority = format!("{host}:{port}");
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone())
            .map_err(|_| wrong("its host is neither a name nor an address"))?;
        Ok(Self { host, port, authority, name })
    }

    fn request<B>(&self, path: &str, bearer: Option<&Secret>, body: B) -> Result<Request<B>, WireError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("https://{}{path}", self.authority))
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = bearer {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| WireError::Token("has characters that no token has".into()))?;
            // Not shown in logs, and not kept in the tables of the header compression (RFC 7541, section 7.1.3).
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        request.body(body).map_err(|error| WireError::Answer(error.to_string()))
    }

    fn unreached(&self, error: io::Error) -> WireError {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        if matches!(cause, Some(rustls::Error::InvalidMessage(_))) {
            return WireError::NotTls(self.authority.clone());
        }
        WireError::Connect(self.authority.clone(), error)
    }

    /// A connection, and what drives it.
    async fn connect<B>(&self, tls: Arc<ClientConfig>) -> Result<(SendRequest<B>, Driver), WireError>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let reach = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(tls).connect(self.name.clone(), tcp).await
        };
        let stream = timeout(CONNECT_TIMEOUT, reach)
            .await
            .map_err(|_| WireError::ConnectTimeout(self.authority.clone()))?
            .map_err(|error| self.unreached(error))?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(WireError::NotHttp2(self.authority.clone()));
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(stream))
            .await?;
        // What ends the connection is also what ends the request on it, and is reported there.
        let driver = Driver(tokio::spawn(async move { drop(connection.await) }));
        Ok((sender, driver))
    }

    /// Asks for a certificate.
    pub(super) async fn sign(
        &self,
        tls: Arc<ClientConfig>,
        bearer: Option<&Secret>,
        request: &SignRequest,
    ) -> Result<SignResponse, WireError> {
        let body = serde_json::to_vec(request).map_err(|error| WireError::Answer(error.to_string()))?;
        let request = self.request(SIGN_PATH, bearer, Full::new(Bytes::from(body)))?;
        let (mut sender, _driver) = self.connect(tls).await?;
        let answer = async {
            let response = accepted(sender.send_request(request).await?).await?;
            whole(response.into_body()).await
        };
        let answer =
            timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| WireError::Silent(ANSWER_TIMEOUT))??;
        serde_json::from_slice(&answer).map_err(|error| WireError::Answer(error.to_string()))
    }

    /// Opens the stream, with its first line.
    pub(super) async fn stream(
        &self,
        tls: Arc<ClientConfig>,
        hello: &FromNode,
    ) -> Result<ControlStream, WireError> {
        let (outbox, body) = Channel::<Bytes, Infallible>::new(OUTBOX);
        let request = self.request(STREAM_PATH, None, body)?;
        let (mut sender, driver) = self.connect(tls).await?;
        let mut stream = Outbox(outbox);
        stream.say(hello).await?;
        let answer = async { accepted(sender.send_request(request).await?).await };
        let answer =
            timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| WireError::Silent(ANSWER_TIMEOUT))??;
        let inbox = Inbox { body: answer.into_body(), lines: Lines::default() };
        Ok(ControlStream { inbox, outbox: stream, _driver: driver })
    }
}

/// An answer that is not a refusal.
async fn accepted(response: Response<Incoming>) -> Result<Response<Incoming>, WireError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    #[derive(serde::Deserialize)]
    struct Refused {
        error: String,
    }
    let body = whole(response.into_body()).await?;
    let reason = serde_json::from_slice(&body).map_or_else(
        |_| String::from_utf8_lossy(&body).chars().take(200).collect(),
        |refused: Refused| refused.error,
    );
    Err(WireError::Refused { status, reason })
}

async fn whole(body: Incoming) -> Result<Bytes, WireError> {
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    Ok(body.map_err(|error| WireError::Answer(error.to_string()))?.to_bytes())
}

/// The task that drives a connection; it ends with what it is for.
#[derive(Debug)]
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The stream, open.
pub(super) struct ControlStream {
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    _driver: Driver,
}

/// What comes from the control API.
pub(super) struct Inbox {
    body: Incoming,
    lines: Lines,
}

impl Inbox {
    /// The next message. Dropping the future loses nothing.
    pub(super) async fn message(&mut self) -> Result<FromControl, WireError> {
        loop {
            if let Some(message) = self.lines.take()? {
                return Ok(message);
            }
            let frame = self.body.frame().await.ok_or(WireError::Closed)??;
            if let Ok(data) = frame.into_data() {
                self.lines.push(&data);
            }
        }
    }
}

/// What goes to the control API.
pub(super) struct Outbox(Sender<Bytes, Infallible>);

impl Outbox {
    /// Sends a message, once there is room for it.
    pub(super) async fn say(&mut self, message: &FromNode) -> Result<(), WireError> {
        let line = encode(message)?;
        let sent = timeout(ANSWER_TIMEOUT, self.0.send_data(line)).await;
        sent.map_err(|_| WireError::Silent(ANSWER_TIMEOUT))?.map_err(|_| WireError::Closed)
    }
}

//! One check: an endpoint is asked whether it is well.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use outrigger_certs::Identity;
use outrigger_config::backend::{HealthCheck, HealthCheckKind};
use outrigger_http::connect::{Dialer, Opened, Watch, Wire, connect};
use outrigger_http::{Endpoint, Error, Reason, Security, grpc};
use tokio::io::AsyncReadExt;

/// How long a connection through the mesh must hold to count: the callee's sidecar accepts it before its application does.
const HOLDS: std::time::Duration = std::time::Duration::from_millis(100);
/// As much of an answer is read.
const MOST: usize = 4 * 1024;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// The endpoint says that it is well.
    Well,
    /// It does not, or cannot be asked.
    Ill {
        /// In a few words.
        why: String,
        /// Why there was no connection to it, where there was none.
        unconnected: Option<Reason>,
    },
    /// It did not answer in time.
    Late,
}

impl Found {
    /// The names of the results, in metrics.
    pub(crate) const NAMES: [&str; 3] = ["ok", "failed", "timeout"];

    /// What was found, in a few words.
    pub(crate) fn words(&self) -> &str {
        match self {
            Self::Well => "ok",
            Self::Ill { why, .. } => why,
            Self::Late => "no answer in time",
        }
    }

    /// Its place among them.
    pub(crate) const fn place(&self) -> usize {
        match self {
            Self::Well => 0,
            Self::Ill { .. } => 1,
            Self::Late => 2,
        }
    }

    fn ill(why: impl Into<String>) -> Self {
        Self::Ill { why: why.into(), unconnected: None }
    }
}

/// How an endpoint is asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) check: HealthCheck,
    /// Whether the application speaks HTTP/2.
    pub(crate) http2: bool,
    /// What is asked: the endpoint, or another port of it.
    target: Arc<Endpoint>,
    /// The authority of the request, and its target.
    uri: Uri,
}

impl Question {
    /// `None` where there is nobody to ask: the application beside this proxy, or within it.
    pub(crate) fn new(endpoint: &Arc<Endpoint>, check: &HealthCheck, http2: bool) -> Option<Self> {
        let target = match (&endpoint.security, check.port) {
            (Security::Own | Security::Inside(_), _) => return None,
            (_, Some(port)) => {
                let address = SocketAddr::new(endpoint.address.ip(), port);
                Arc::new(Endpoint::new(address, Security::Plain, endpoint.load.clone()))
            }
            (_, None) => endpoint.clone(),
        };
        let path = match check.kind {
            HealthCheckKind::Grpc => "/grpc.health.v1.Health/Check",
            _ => check.path.as_deref().unwrap_or("/"),
        };
        let host = check.host.clone().unwrap_or_else(|| target.address.to_string());
        let scheme = if matches!(target.security, Security::Tls(_)) { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(path).build().ok()?;
        Some(Self { check: check.clone(), http2, target, uri })
    }

    /// Where it is asked.
    pub(crate) fn address(&self) -> SocketAddr {
        self.target.address
    }

    /// Whether it is asked over the mesh's mutual TLS.
    pub(crate) fn is_of_mesh(&self) -> bool {
        matches!(self.target.security, Security::Mesh { .. })
    }

    /// Whether it goes to the endpoint itself, and so shows that this can be connected to.
    pub(crate) const fn is_of_endpoint(&self) -> bool {
        self.check.port.is_none()
    }

    /// Asks, over a connection of its own.
    pub(crate) async fn ask(&self, identity: Option<Arc<Identity>>) -> Found {
        let limit = self.check.timeout.get();
        let (watch, memory) = (Rc::new(Nobody), Rc::default());
        let dialer =
            Dialer { identity, own: None, timeout: limit, tls_timeout: None, room: None, watch, memory };
        let asked = async {
            let connection = match connect(&self.target, self.wire(), &dialer).await {
                Ok(connection) => connection,
                Err(error) if error.reason == Reason::ConnectionTimeout => return Found::Late,
                Err(Error { reason, details, .. }) => {
                    return Found::Ill { why: details.into(), unconnected: Some(reason) };
                }
            };
            let answered = match self.check.kind {
                HealthCheckKind::Tcp => return self.holds(connection).await,
                HealthCheckKind::Http => self.get(connection).await,
                HealthCheckKind::Grpc => self.call(connection).await,
            };
            answered.unwrap_or_else(|error| Found::ill(format!("no answer: {error}")))
        };
        tokio::time::timeout(limit, Box::pin(asked)).await.unwrap_or(Found::Late)
    }

    const fn wire(&self) -> Wire {
        match self.check.kind {
            HealthCheckKind::Tcp => Wire::Tcp,
            HealthCheckKind::Grpc => Wire::Http2,
            HealthCheckKind::Http if self.http2 => Wire::Http2,
            HealthCheckKind::Http => Wire::Http1,
        }
    }

    /// Whether a connection that was made is not closed at once.
    async fn holds(&self, mut connection: Opened) -> Found {
        if !self.is_of_mesh() {
            return Found::Well;
        }
        let mut word = [0; 1];
        let patience = HOLDS.min(self.check.timeout.get() / 2);
        match tokio::time::timeout(patience, connection.read(&mut word)).await {
            Ok(Ok(1..)) | Err(_) => Found::Well,
            Ok(Ok(0)) => Found::ill("the connection was closed at once"),
            Ok(Err(error)) => Found::ill(format!("the connection broke at once: {error}")),
        }
    }

    /// Asks by a GET, for its status alone.
    async fn get(&self, connection: Opened) -> hyper::Result<Found> {
        let mut request = Request::new(Full::default());
        let response = if self.http2 {
            *request.uri_mut() = self.uri.clone();
            introduce(&mut request);
            over_http2(connection, request, async |response| response.status()).await?
        } else {
            if let Some(path) = self.uri.path_and_query() {
                *request.uri_mut() = Uri::from(path.clone());
            }
            let authority = self.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
            request.headers_mut().extend(authority.map(|host| (HOST, host)));
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            introduce(&mut request);
            over_http1(connection, request).await?
        };
        let well = match self.check.statuses.as_slice() {
            [] => response.is_success(),
            statuses => statuses.contains(&response.as_u16()),
        };
        Ok(if well { Found::Well } else { Found::ill(format!("answered {response}")) })
    }

    /// Asks as grpc.health.v1 has it
    /// (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>).
    async fn call(&self, connection: Opened) -> hyper::Result<Found> {
        let service = self.check.service.as_deref().unwrap_or_default();
        let mut request = Request::new(Full::new(question(service)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        introduce(&mut request);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(grpc::MEDIA_TYPE));
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        over_http2(connection, request, async |response| {
            let (parts, body) = response.into_parts();
            if parts.status != StatusCode::OK {
                return Found::ill(format!("answered {}", parts.status));
            }
            let collected = match Limited::new(body, MOST).collect().await {
                Ok(collected) => collected,
                Err(error) => return Found::ill(format!("its answer broke off: {error}")),
            };
            let status = collected.trailers().and_then(grpc::status).or(grpc::status(&parts.headers));
            match (status, serving_status(&collected.to_bytes())) {
                (Some(0), Some(1)) => Found::Well,
                (Some(0), Some(status)) => Found::ill(format!("answered {}", name(status))),
                (Some(0), None) => Found::ill("its answer is not one of grpc.health.v1"),
                (Some(status), _) => Found::ill(format!("answered the status {status} of gRPC")),
                (None, _) => Found::ill("its answer is not one of gRPC"),
            }
        })
        .await
    }
}

/// Says who asks.
fn introduce<B>(request: &mut Request<B>) {
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("outrigger-health-check"));
}

async fn over_http1(connection: Opened, request: Request<Full<Bytes>>) -> hyper::Result<StatusCode> {
    let (mut sender, driver) = http1::handshake(TokioIo::new(connection)).await?;
    let answer = beside(driver, sender.send_request(request)).await?;
    Ok(answer.status())
}

async fn over_http2<T>(
    connection: Opened,
    request: Request<Full<Bytes>>,
    read: impl AsyncFnOnce(Response<Incoming>) -> T,
) -> hyper::Result<T> {
    let (mut sender, driver) = http2::handshake(Local, TokioIo::new(connection)).await?;
    let asked = async { Ok(read(sender.send_request(request).await?).await) };
    beside(driver, asked).await
}

/// What a request gives, while its connection is driven beside it.
async fn beside<T>(
    driver: impl Future<Output = hyper::Result<()>>,
    asked: impl Future<Output = hyper::Result<T>>,
) -> hyper::Result<T> {
    let (mut driver, mut asked) = (pin!(driver), pin!(asked));
    tokio::select! {
        biased;
        answer = &mut asked => answer,
        // Once it has ended, the request knows how.
        _ = &mut driver => asked.await,
    }
}

/// Runs tasks on the current thread.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move { drop(future.await) });
    }
}

/// Checks are not shown among a backend's connections.
#[derive(Debug)]
struct Nobody;

impl Watch for Nobody {
    fn connected(&self, _: Option<Reason>) {}

    fn closed(&self) {}
}

/// A `HealthCheckRequest` of grpc.health.v1, framed: `string service = 1`.
fn question(service: &str) -> Bytes {
    let mut message = Vec::with_capacity(service.len() + 8);
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let length = (message.len() as u32).to_be_bytes();
    [&[0][..], &length, &message].concat().into()
}

/// The status in a framed `HealthCheckResponse`: `ServingStatus status = 1`. Nothing stands for UNKNOWN, 0. `None`: the
/// message is another.
fn serving_status(body: &[u8]) -> Option<u64> {
    let (head, message) = body.split_at_checked(5)?;
    let length = u32::from_be_bytes(*head.last_chunk()?) as usize;
    if head.first() != Some(&0) || message.len() != length {
        return None;
    }
    let Some((tag, mut rest)) = message.split_first() else { return Some(0) };
    let mut status = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        status |= u64::from(byte & 0x7f) << shift;
        rest = after;
        if byte & 0x80 == 0 {
            break;
        }
    }
    (*tag == 0x08 && rest.is_empty()).then_some(status)
}

fn name(status: u64) -> String {
    match status {
        0 => "UNKNOWN".into(),
        2 => "NOT_SERVING".into(),
        3 => "SERVICE_UNKNOWN".into(),
        other => format!("the serving status {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_grpc_health_v1() {
        assert_eq!(*question(""), [0, 0, 0, 0, 0]);
        assert_eq!(*question("shop"), *b"\0\0\0\0\x06\x0a\x04shop");
        let long = question(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(serving_status(b"\0\0\0\0\x02\x08\x01"), Some(1));
        assert_eq!(serving_status(b"\0\0\0\0\x02\x08\x02"), Some(2));
        assert_eq!(serving_status(b"\0\0\0\0\0"), Some(0));
        for wrong in [
            &b""[..],
            b"\0\0\0\0\x02\x08",
            b"\x01\0\0\0\x02\x08\x01",
            b"\0\0\0\0\x02\x10\x01",
            b"\0\0\0\0\x01\x08",
        ] {
            assert_eq!(serving_status(wrong), None, "{wrong:?}");
        }
    }
}

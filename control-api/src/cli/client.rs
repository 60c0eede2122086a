//! The client of the REST API.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::rest::error::ErrorBody;

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A control API, by its URL.
#[derive(Debug)]
pub(super) struct Client {
    url: String,
    /// Host and port.
    authority: String,
}

/// What the control API would not do.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: StatusCode,
    pub(super) body: ErrorBody,
}

impl Client {
    pub(super) fn new(url: &str) -> anyhow::Result<Self> {
        let wrong = || anyhow!("`{url}` is not a server: write http://HOST:PORT");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let (Some("http"), Some(authority), "/" | "") = (uri.scheme_str(), uri.authority(), uri.path())
        else {
            bail!(wrong());
        };
        let authority = match authority.port() {
            Some(_) => authority.to_string(),
            None => format!("{authority}:80"),
        };
        Ok(Self { url: url.trim_end_matches('/').into(), authority })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.call(Method::GET, path, Bytes::new()).await?.map_err(Failure::into_error)
    }

    /// Sends a request. The outer error is that it could not be, the inner that it was turned down.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Result<T, Failure>> {
        let (status, bytes) = tokio::time::timeout(PATIENCE, self.exchange(method, path, body.into()))
            .await
            .map_err(|_| anyhow!("{} did not answer within {} s", self.url, PATIENCE.as_secs()))??;
        if status.is_success() {
            let answer = serde_json::from_slice(&bytes);
            return Ok(Ok(answer.with_context(|| format!("{} answered something else", self.url))?));
        }
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| ErrorBody {
            error: format!("{} answered {status}; is it an outrigger-control?", self.url),
            ..ErrorBody::default()
        });
        Ok(Err(Failure { status, body }))
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
        let socket = TcpStream::connect(&self.authority).await.map_err(|error| {
            let why = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
                _ => error.to_string(),
            };
            let url = &self.url;
            anyhow!(
                "cannot reach {url}: {why}; is `outrigger-control serve` running? name another with --server"
            )
        })?;
        let broke = || format!("the connection to {} broke", self.url);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.with_context(broke)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.authority)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let response = sender.send_request(request).await.with_context(broke)?;
        let status = response.status();
        Ok((status, response.into_body().collect().await.with_context(broke)?.to_bytes()))
    }
}

impl Failure {
    pub(super) fn into_error(self) -> anyhow::Error {
        anyhow!("{} ({})", self.body.error, self.status.as_u16())
    }
}

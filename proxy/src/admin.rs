//! What operators and probes ask a running proxy: is it ready, what does it count, what does it run.
//!
//! A plain HTTP/1.1 server on the control thread, with three faces: everything, on loopback; the metrics
//! alone, for Prometheus; the readiness alone, for probes. It decides nothing and keeps nothing; all it
//! says is handed to it in [`Admin`].

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use outrigger_config::explain::{Asked, Explanation, Unexplained};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::explain::from_query;
use crate::seldom::Seldom;

#[cfg(test)]
mod tests;

/// Connections at a time on one face; further ones wait to be accepted.
const CONNECTIONS: usize = 64;
/// How long a request's head, its body, or the next request of a connection may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may last, so that a caller that asks and does not read the answers gives its place free.
const LIFETIME: Duration = Duration::from_mins(1);
/// How long a caller may still ask on a connection once another process answers: its request may be on the way.
pub(crate) const LAST_WORD: Duration = Duration::from_millis(500);
/// The levels of the diagnostics, as `/log` takes and names them.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const JSON: &str = "application/json";

const INDEX: &str = "\
Outrigger's admin interface

GET  /healthz/ready      200 when it takes traffic, 503 and why when not
GET  /healthz/live       200 while it runs
GET  /metrics            counters, for Prometheus
GET  /config             the live configuration, secrets left out
GET  /endpoints          every endpoint: how it stands, why, for how long
GET  /explain?url=URL    which rule takes a request; also method=, header=, listener=
GET  /log                the level of the diagnostics
PUT  /log?level=debug    another level: off, error, warn, info, debug, trace
POST /quitquitquit       the application is gone: ends, once what is under way is done
";

/// Whether the proxy takes traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It does.
    Ready,
    /// It does not (yet, or any more), for this reason, which is told to whoever asks.
    NotReady(Cow<'static, str>),
}

/// Which paths a listener answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surface {
    /// All of them. For loopback only: refuses requests that a web page may have caused.
    All,
    /// `/metrics` and, as Istio's agents have it, `/stats/prometheus`.
    Metrics,
    /// `/healthz/ready`.
    Ready,
}

/// Sets the level, one of `off`, `error`, `warn`, `info`, `debug`, `trace`; an error says why it could not.
pub(crate) type SetLevel = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Explains what becomes of a request, by the live configuration.
pub(crate) type Explains = Box<dyn Fn(&Asked) -> Result<Explanation, Unexplained> + Send + Sync>;

/// What the admin interface says, and what it sets.
pub(crate) struct Admin {
    /// The current readiness.
    pub(crate) ready: watch::Receiver<Readiness>,
    /// The metrics in Prometheus's text format.
    pub(crate) metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// The live configuration without its secrets.
    pub(crate) config: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Every endpoint, and how it stands.
    pub(crate) endpoints: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Explains what becomes of a request.
    pub(crate) explain: Explains,
    /// The level of the diagnostics.
    pub(crate) level: Box<dyn Fn() -> String + Send + Sync>,
    /// Sets it.
    pub(crate) set_level: SetLevel,
    /// Told that the application is gone, and the proxy is to end.
    pub(crate) quit: watch::Sender<bool>,
    /// Whether another process answers in place of this one.
    pub(crate) replaced: watch::Receiver<bool>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("ready", &self.ready).finish_non_exhaustive()
    }
}

impl Admin {
    /// Answers on `listener` until another process does, or the future is dropped, which ends its connections too.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, surface: Surface) {
        let (mut connections, mut complaint) = (JoinSet::new(), Seldom::default());
        loop {
            while connections.len() >= CONNECTIONS {
                connections.join_next().await;
            }
            tokio::select! {
                () = self.replaced() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(Arc::clone(&self).connection(stream, surface));
                    }
                    Err(error) => {
                        if complaint.is_due() {
                            tracing::warn!("admin cannot accept a connection: {error}; trying again");
                        }
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// Returns once another process answers.
    async fn replaced(&self) {
        if self.replaced.clone().wait_for(|replaced| *replaced).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, surface: Surface) {
        let service = service_fn(|request| {
            let admin = Arc::clone(&self);
            async move {
                let mut response = admin.answer(request, surface).await;
                if *admin.replaced.borrow() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let over = async {
            tokio::select! {
                () = async {
                    self.replaced().await;
                    tokio::time::sleep(LAST_WORD).await;
                } => {}
                () = tokio::time::sleep(LIFETIME) => {}
            }
        };
        let served = tokio::select! {
            served = &mut connection => served,
            () = over => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(PATIENCE, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = served {
            tracing::debug!("admin connection ended: {error}");
        }
    }

    async fn answer(&self, request: Request<Incoming>, surface: Surface) -> Response<Full<Bytes>> {
        if surface == Surface::All && !is_from_here(&request) {
            let why = "refused: ask for localhost or an IP address, and not from another host's web page\n";
            return text(StatusCode::FORBIDDEN, why);
        }
        let Some(page) = surface.page(request.uri().path()) else {
            return text(StatusCode::NOT_FOUND, format!("not found: try {}\n", surface.entrance()));
        };
        match (page, request.method()) {
            (Page::Log, &Method::PUT | &Method::POST) => self.set_log(request).await,
            (Page::Quit, &Method::POST) => {
                self.quit.send_replace(true);
                text(StatusCode::OK, "ending, once what is under way is done\n")
            }
            (page, &Method::GET | &Method::HEAD) => {
                self.show(page, request.uri().query().unwrap_or_default())
            }
            (page, _) => not_allowed(page),
        }
    }

    fn show(&self, page: Page, query: &str) -> Response<Full<Bytes>> {
        match page {
            Page::Index => text(StatusCode::OK, INDEX),
            Page::Ready => match &*self.ready.borrow() {
                Readiness::Ready => text(StatusCode::OK, "ready\n"),
                Readiness::NotReady(why) => {
                    text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n"))
                }
            },
            Page::Live => text(StatusCode::OK, "live\n"),
            Page::Metrics => respond(StatusCode::OK, METRICS, (self.metrics)()),
            Page::Config => respond(StatusCode::OK, JSON, format!("{:#}\n", (self.config)())),
            Page::Endpoints => respond(StatusCode::OK, JSON, format!("{:#}\n", (self.endpoints)())),
            Page::Log => text(StatusCode::OK, format!("{}\n", (self.level)())),
            Page::Explain => self.explained(query),
            Page::Quit => not_allowed(page),
        }
    }

    fn explained(&self, query: &str) -> Response<Full<Bytes>> {
        let asked = match from_query(query) {
            Ok(asked) => asked,
            Err(why) => return text(StatusCode::BAD_REQUEST, format!("{why}\n")),
        };
        match (self.explain)(&asked) {
            Ok(explanation) => match serde_json::to_string_pretty(&explanation) {
                Ok(json) => respond(StatusCode::OK, JSON, format!("{json}\n")),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            Err(unexplained) => text(StatusCode::BAD_REQUEST, format!("{unexplained}\n")),
        }
    }

    /// Takes the level from the query, or else from the body.
    async fn set_log(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let query = request.uri().query().unwrap_or_default();
        let level = match query.split('&').find_map(|pair| pair.strip_prefix("level=")) {
            Some(level) => level.to_owned(),
            None => match body(request.into_body()).await {
                Ok(body) => body,
                Err(refusal) => return refusal,
            },
        };
        let level = level.trim().to_ascii_lowercase();
        if !LEVELS.contains(&level.as_str()) {
            let why = format!("{level:?} is not a level; one of {} is\n", LEVELS.join(", "));
            return text(StatusCode::BAD_REQUEST, why);
        }
        match (self.set_level)(&level) {
            Ok(()) => text(StatusCode::OK, format!("{level}\n")),
            Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("the level was not set: {why}\n")),
        }
    }
}

/// One of the things to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Index,
    Ready,
    Live,
    Metrics,
    Config,
    Endpoints,
    Explain,
    Log,
    Quit,
}

impl Surface {
    fn page(self, path: &str) -> Option<Page> {
        match (path, self) {
            ("/", Self::All) => Some(Page::Index),
            ("/healthz/ready", Self::All | Self::Ready) => Some(Page::Ready),
            ("/healthz/live", Self::All) => Some(Page::Live),
            ("/metrics", Self::All | Self::Metrics) | ("/stats/prometheus", Self::Metrics) => {
                Some(Page::Metrics)
            }
            ("/config", Self::All) => Some(Page::Config),
            ("/endpoints", Self::All) => Some(Page::Endpoints),
            ("/explain", Self::All) => Some(Page::Explain),
            ("/log", Self::All) => Some(Page::Log),
            ("/quitquitquit", Self::All) => Some(Page::Quit),
            _ => None,
        }
    }

    /// Where somebody who is lost should look.
    fn entrance(self) -> &'static str {
        match self {
            Self::All => "/",
            Self::Metrics => "/metrics",
            Self::Ready => "/healthz/ready",
        }
    }
}

/// A body of at most a few bytes, as text.
async fn body(body: Incoming) -> Result<String, Response<Full<Bytes>>> {
    let collected = tokio::time::timeout(PATIENCE, Limited::new(body, 64).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned()),
        Ok(Err(_)) => Err(text(StatusCode::PAYLOAD_TOO_LARGE, "too long: the level's name is enough\n")),
        Err(_) => Err(text(StatusCode::REQUEST_TIMEOUT, "the body did not come\n")),
    }
}

/// False for what a web page of another host may have made a browser send: under a name that was made to
/// point here (DNS rebinding), or across origins.
fn is_from_here(request: &Request<Incoming>) -> bool {
    let asked = request.headers().get_all(HOST).iter().all(|host| is_local(host.to_str().ok()));
    let target = request.uri().authority().is_none_or(|authority| is_local(Some(authority.as_str())));
    let origin = request.headers().get_all(ORIGIN).iter().all(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        // A page of another host has an origin with that host's address, if it was asked for by that.
        is_host(origin.map(|(_scheme, authority)| authority), |address| address.is_loopback())
    });
    asked && target && origin
}

/// Whether `host[:port]` is `localhost` or an IP address, which no name server can make point elsewhere.
fn is_local(authority: Option<&str>) -> bool {
    is_host(authority, |_| true)
}

/// Whether `host[:port]` is `localhost`, or such an IP address.
fn is_host(authority: Option<&str>, address: impl Fn(IpAddr) -> bool) -> bool {
    let Some(authority) = authority.and_then(|text| text.parse::<Authority>().ok()) else { return false };
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(address)
}

fn not_allowed(page: Page) -> Response<Full<Bytes>> {
    let allowed = match page {
        Page::Log => "GET, HEAD, PUT, POST",
        Page::Quit => "POST",
        _ => "GET, HEAD",
    };
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("not allowed: {allowed} are\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond(status, TEXT, body)
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

//! Asking another service whether a request may pass.

use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, CONTENT_LENGTH, DATE, HOST, HeaderName, HeaderValue, SERVER};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt as _;
use outrigger_config::Snapshot;
use outrigger_config::backend::BackendProtocol;
use outrigger_config::route::ExternalAuth;
use outrigger_http::body::{RequestBody, ResponseBody};
use outrigger_http::filter::strip_hop_by_hop;
use outrigger_http::forward::{Policy, Progress, Speak, UNREACHED, Way, forward};
use outrigger_http::message::{Answered, Interim, Outgoing, Reply};
use outrigger_http::pool::Lease;
use outrigger_http::{Error, PROXY_STATUS, Reason};

use super::mirror::Nobody;
use super::target::with_query;
use crate::connection::Connection;
use crate::plan::authority;
use crate::record::Record;
use crate::request::{Answer, fail};

/// How long an answer is waited for where the rule has no timeout.
const PATIENCE: Duration = Duration::from_secs(10);

/// An authorization filter.
#[derive(Debug)]
pub(super) struct Auth {
    name: Box<str>,
    /// The backend's place in the table; `None` where it is not there.
    backend: Option<usize>,
    path: Box<str>,
    sent: Box<[HeaderName]>,
    /// What of its response goes on; everything where it is empty.
    kept: Box<[HeaderName]>,
}

/// What the service says.
pub(super) enum Verdict {
    /// The request may pass, with these headers.
    May(HeaderMap),
    /// This is the caller's answer.
    MayNot(Box<(Answered, Lease, Instant)>),
}

impl Auth {
    pub(super) fn new(auth: &ExternalAuth, snapshot: &Snapshot) -> Self {
        let names =
            |list: &[outrigger_config::scalar::HeaderName]| list.iter().map(|it| it.0.clone()).collect();
        let name = auth.backend_ref.name.as_str();
        Self {
            name: name.into(),
            backend: snapshot.backend(name),
            path: auth.http.path.as_deref().map_or("", |path| path.strip_suffix('/').unwrap_or(path)).into(),
            sent: names(&auth.http.allowed_headers),
            kept: names(&auth.http.allowed_response_headers),
        }
    }

    /// Asks; the request is changed as the answer says. The caller's answer, if it may not pass.
    pub(super) async fn judge<B>(
        &self,
        connection: &Connection,
        request: &mut Request<B>,
        deadline: Option<Instant>,
        record: Record,
    ) -> Result<Record, Answer> {
        match self.ask(connection, request, deadline, &record).await {
            Err(mut error) => {
                error.details = format!("authorization by backend {}: {}", self.name, error.details).into();
                Err(fail(error, record))
            }
            Ok(Verdict::MayNot(answer)) => Err(self.deny(*answer, record)),
            Ok(Verdict::May(headers)) => {
                self.kept.iter().for_each(|name| drop(request.headers_mut().remove(name)));
                for name in headers.keys() {
                    request.headers_mut().remove(name);
                    for value in headers.get_all(name) {
                        request.headers_mut().append(name.clone(), value.clone());
                    }
                }
                Ok(record)
            }
        }
    }

    async fn ask<B>(
        &self,
        connection: &Connection,
        request: &Request<B>,
        deadline: Option<Instant>,
        record: &Record,
    ) -> Result<Verdict, Error> {
        let local = record.local();
        let found = self.backend.and_then(|at| Some((local.backend(at)?, local.live.backends.get(at)?)));
        let (to, live) =
            found.ok_or_else(|| Error::unsent(Reason::DestinationUnavailable, "it is not known"))?;
        let started = Instant::now();
        let deadline = deadline.unwrap_or(started + PATIENCE);
        let policy = Policy {
            request_timeout: Some(deadline.saturating_duration_since(started)),
            ..Policy::default()
        };
        let way = Way {
            backend: &to.backend,
            pools: &to.pools,
            policy: &policy,
            dialer: &to.dialer,
            speak: if live.protocol == Some(BackendProtocol::H2c) { Speak::Http2 } else { Speak::Http1 },
            started,
            ready: started,
            deadline: Some(deadline),
            timed_call: false,
            limits: connection.settings.limits,
            prefer: None,
            hash: None,
            random: &connection.worker.random,
        };
        let outgoing =
            Outgoing { request: self.question(request)?, spelling: None, interim: Interim::default() };
        let (mut answered, lease) =
            forward(&way, &mut Some(outgoing), None, &mut Progress::default()).await?;
        if answered.response.status().is_informational() {
            return Err(Error::sent(Reason::HttpUpgradeFailed, "it changed the protocol unasked"));
        }
        // What its sidecar says is not for the caller's.
        answered.response.headers_mut().remove(UNREACHED);
        if answered.response.status() != StatusCode::OK {
            return Ok(Verdict::MayNot(Box::new((answered, lease, deadline))));
        }
        let (mut parts, body) = answered.response.into_parts();
        // Read to its end, so that its connection can be used again; what it says matters to nobody.
        let mut body = ResponseBody::stream(body, lease, Some(deadline), Nobody);
        while let Some(Ok(_)) = body.frame().await {}
        Ok(Verdict::May(self.kept_of(&mut parts.headers)))
    }

    /// The request that the service gets.
    fn question<B>(&self, request: &Request<B>) -> Result<Request<RequestBody>, Error> {
        let uri = request.uri();
        let target = with_query([&self.path, uri.path()].concat().into(), uri.query());
        let target = PathAndQuery::try_from(target)
            .map_err(|_| Error::unsent(Reason::HttpRequestError, "the request's target is not a path"))?;
        let mut question = Request::new(RequestBody::Empty);
        *question.method_mut() = request.method().clone();
        *question.uri_mut() = Uri::from(target);
        let headers = question.headers_mut();
        if let Some(host) = authority(request).and_then(|host| HeaderValue::from_str(host).ok()) {
            headers.insert(HOST, host);
        }
        for name in self.sent.iter().chain([&AUTHORIZATION]) {
            if !headers.contains_key(name) {
                for value in request.headers().get_all(name) {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        Ok(question)
    }

    /// What of the service's response goes on with the request.
    fn kept_of(&self, headers: &mut HeaderMap) -> HeaderMap {
        if !self.kept.is_empty() {
            let kept = |name: &HeaderName| Some((name.clone(), headers.get(name)?.clone()));
            return self.kept.iter().filter_map(kept).collect();
        }
        strip_hop_by_hop(headers, false);
        for name in [CONTENT_LENGTH, HOST, DATE, SERVER] {
            headers.remove(name);
        }
        std::mem::take(headers)
    }

    /// What the service says to the caller.
    fn deny(&self, (answered, lease, deadline): (Answered, Lease, Instant), mut record: Record) -> Answer {
        let (mut parts, incoming) = answered.response.into_parts();
        let error = Error::unsent(Reason::HttpRequestDenied, format!("by backend {}", self.name))
            .with_status(parts.status);
        if record.call.is_some() {
            return fail(error, record);
        }
        record.failed(&error);
        strip_hop_by_hop(&mut parts.headers, false);
        parts.headers.insert(PROXY_STATUS, error.proxy_status());
        let body = ResponseBody::stream(incoming, lease, Some(deadline), record);
        Reply { response: Response::from_parts(parts, body), spelling: answered.spelling }
    }
}

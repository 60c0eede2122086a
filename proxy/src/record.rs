//! What is recorded of a request once its response has ended: its counts, its times, its line in the access log.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use outrigger_balance::Place;
use outrigger_config::SpiffeId;
use outrigger_config::listener::Direction;
use outrigger_http::body::{End, Observe, Upload};
use outrigger_http::forward::{Again, Denied, Progress};
use outrigger_http::memory::Account;
use outrigger_http::{Error, Reason, grpc};
use outrigger_telemetry::{Entry, RequestEnd, Series};

use crate::connection::Connection;
use crate::local::{Local, LocalBackend};

/// A request under way, to be recorded when it ends. Boxed, for it goes through many hands.
#[derive(Debug)]
pub(crate) struct Record(Box<Known>);

/// What is known of a request.
#[derive(Debug)]
pub(crate) struct Known {
    connection: Rc<Connection>,
    local: Rc<Local>,
    started: Instant,
    /// Whether it is a HEAD, whose response has no body.
    head: bool,
    series: Option<Series>,
    rule: Option<usize>,
    pub(crate) to: Option<Rc<LocalBackend>>,
    /// The endpoint tried last, by its place in the backend.
    pub(crate) endpoint: Option<usize>,
    attempts: u32,
    /// Why it was sent again, and why it was not once more.
    again: Option<Again>,
    denied: Option<Denied>,
    pub(crate) upload: Option<Upload>,
    /// The media type of answers in gRPC, if it is a call.
    pub(crate) call: Option<&'static str>,
    /// The call's status, once that is known.
    pub(crate) grpc_status: Option<u16>,
    status: u16,
    reason: Option<Reason>,
    details: Cow<'static, str>,
    /// Whether it was told how the response ended.
    ended: bool,
    /// Whether its endpoint was chosen although so few were well that all were used.
    pub(crate) panic: bool,
    /// What only the access log wants to know.
    line: Option<Box<Line>>,
    /// Its place among the requests of the listener, where those are limited.
    place: Option<Place>,
}

impl Deref for Record {
    type Target = Known;

    fn deref(&self) -> &Known {
        &self.0
    }
}

impl DerefMut for Record {
    fn deref_mut(&mut self) -> &mut Known {
        &mut self.0
    }
}

#[derive(Debug)]
struct Line {
    time: SystemTime,
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
}

impl Record {
    /// Begins the record of a request, before anything of it is changed.
    pub(crate) fn begin<B>(connection: Rc<Connection>, local: Rc<Local>, request: &Request<B>) -> Self {
        let line = connection.worker.logs().then(|| {
            Box::new(Line {
                time: SystemTime::now(),
                method: request.method().clone(),
                uri: request.uri().clone(),
                version: request.version(),
                host: request.headers().get(HOST).cloned(),
                user_agent: request.headers().get(USER_AGENT).cloned(),
            })
        });
        Self(Box::new(Known {
            connection,
            local,
            started: Instant::now(),
            head: request.method() == Method::HEAD,
            series: None,
            rule: None,
            to: None,
            endpoint: None,
            attempts: 0,
            again: None,
            denied: None,
            upload: None,
            call: None,
            grpc_status: None,
            status: 0,
            reason: None,
            details: Cow::Borrowed(""),
            ended: false,
            panic: false,
            line,
            place: None,
        }))
    }

    /// The same, with a place that is free again when the record ends.
    pub(crate) fn holding(mut self, place: Option<Place>) -> Self {
        self.place = place;
        self
    }

    /// Its endpoint was chosen in panic.
    #[cold]
    fn panicked(&mut self, to: &LocalBackend) {
        self.panic = true;
        self.connection.worker.metrics.backend_panicked(to.series);
    }

    /// The table that it is decided by.
    pub(crate) fn local(&self) -> &Rc<Local> {
        &self.local
    }

    /// Where what is held for it is counted.
    pub(crate) fn memory(&self) -> &Rc<Account> {
        &self.connection.worker.memory
    }

    /// The body of a response that is made here. That to a HEAD has its length alone (RFC 9110, section 9.3.2).
    pub(crate) fn body(&self, bytes: Bytes, headers: &mut HeaderMap) -> Bytes {
        if !self.head || bytes.is_empty() {
            return bytes;
        }
        headers.insert(CONTENT_LENGTH, bytes.len().into());
        Bytes::new()
    }

    /// For how long nothing may move on its connection, once that is used for something else.
    pub(crate) fn stream_timeout(&self) -> Option<Duration> {
        self.connection.settings.stream_timeout
    }

    /// When the request came.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Whether it came from another sidecar, for the application beside this one: not only by mutual TLS, but in a protocol
    /// that sidecars alone agree on.
    pub(crate) fn is_of_a_sidecar(&self) -> bool {
        let Connection { direction, caller, application, .. } = &*self.connection;
        *direction == Direction::Inbound && caller.is_some() && application.is_some()
    }

    /// Notes what was decided; from here on the request counts as under way.
    pub(crate) fn decided(&mut self, rule: Option<usize>, series: Option<Series>) {
        self.rule = rule;
        self.series = series;
        if let Some(series) = series {
            self.connection.worker.metrics.request_started(series);
        }
    }

    /// Notes the status that the caller gets from the application.
    pub(crate) fn answered(&mut self, status: u16) {
        self.status = status;
    }

    /// Notes why the proxy answers itself.
    pub(crate) fn failed(&mut self, error: &Error) {
        self.status = error.status().as_u16();
        self.reason = Some(error.reason);
        self.details.clone_from(&error.details);
    }

    /// Leaves the request out of the access log.
    pub(crate) fn unlogged(&mut self) {
        self.line = None;
    }

    /// Notes which way it went, and how often.
    pub(crate) fn went(&mut self, to: &LocalBackend, progress: &Progress) {
        self.endpoint = progress.endpoint;
        self.attempts = progress.attempts;
        self.again = progress.again;
        self.denied = progress.denied;
        if let Some(series) = self.series
            && progress.denied.is_some_and(Denied::is_of_backend)
        {
            self.connection.worker.metrics.retry_refused(series);
        }
        if progress.panic {
            self.panicked(to);
        }
    }

    fn reason(&self, end: End) -> Option<Reason> {
        match (self.reason, end) {
            (Some(reason), _) | (None, End::Refused(reason) | End::Silent(reason)) => Some(reason),
            (None, End::Complete | End::CallerGone) => None,
            (None, End::BackendBroke) => Some(Reason::HttpResponseIncomplete),
            (None, End::Timeout) => Some(Reason::HttpResponseTimeout),
        }
    }

    fn write(&self, end: End, response_bytes: u64, duration: Duration) {
        let Some(line) = &self.line else { return };
        let rule = self.rule.and_then(|rule| self.local.live.snapshot.http_rules.get(rule));
        let backend = self.to.as_ref().map(|to| &to.backend);
        let endpoint = backend.zip(self.endpoint).and_then(|(backend, at)| backend.endpoints.get(at));
        let authority = line.uri.authority().map(|authority| authority.as_str().as_bytes());
        let gone =
            if end == End::CallerGone { "the caller left before the response was complete" } else { "" };
        let entry = Entry {
            time: line.time,
            direction: self.connection.direction.as_str(),
            listener: self.connection.listener.as_str(),
            method: line.method.as_str(),
            scheme: Some(if self.connection.secure { "https" } else { "http" }),
            host: authority.or(line.host.as_ref().map(HeaderValue::as_bytes)).unwrap_or_default(),
            path: line.uri.path_and_query().map_or("/", |path| path.as_str()),
            protocol: protocol(line.version),
            status: self.status,
            grpc_status: self.grpc_status,
            reason: self.reason(end).map(Reason::as_str),
            details: [&*self.details, gone].into_iter().find(|text| !text.is_empty()),
            request_bytes: self.upload.as_ref().map_or(0, Upload::bytes),
            response_bytes,
            duration,
            route: rule.map(|rule| rule.route.as_str()),
            rule: rule.map(|rule| &*rule.rule),
            backend: backend.map(|backend| &*backend.name).filter(|name| !name.is_empty()),
            endpoint: endpoint.map(|endpoint| endpoint.address).filter(|address| address.port() != 0),
            caller: self.connection.caller.as_ref().map(SpiffeId::as_str),
            caller_address: self.connection.peer,
            callee: endpoint.and_then(|endpoint| endpoint.identity()).map(SpiffeId::as_str),
            attempts: self.attempts,
            retried: self.again.map(Again::as_str),
            not_retried: self.denied.map(Denied::as_str),
            user_agent: line.user_agent.as_ref().map(HeaderValue::as_bytes),
        };
        self.connection.worker.log(|log| log.write(&entry));
    }
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

impl Observe for Record {
    fn ended(mut self, end: End, bytes: u64, now: Instant) {
        self.finish(end, bytes, now);
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if self.call.is_some() {
            self.grpc_status = grpc::status(trailers).or(self.grpc_status);
        }
    }

    fn timed_out(&mut self, error: &Error) -> Option<HeaderMap> {
        // gRPC-Web has its trailers in the body.
        self.call.filter(|call| *call == grpc::MEDIA_TYPE)?;
        let mut trailers = HeaderMap::new();
        self.grpc_status = Some(grpc::end(error, &mut trailers));
        Some(trailers)
    }
}

/// A caller that leaves before there is a response takes the whole request with it.
impl Drop for Record {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(End::CallerGone, 0, Instant::now());
        }
    }
}

impl Record {
    fn finish(&mut self, end: End, bytes: u64, now: Instant) {
        self.ended = true;
        drop(self.place.take());
        let duration = now.saturating_duration_since(self.started);
        if let Some(series) = self.series {
            self.connection.worker.metrics.request_finished(
                series,
                &RequestEnd {
                    status: self.status,
                    reason: self.reason(end).map(Reason::as_str),
                    duration,
                    request_bytes: self.upload.as_ref().map_or(0, Upload::bytes),
                    response_bytes: bytes,
                    retries: self.attempts.saturating_sub(1),
                },
            );
        }
        self.write(end, bytes, duration);
    }
}

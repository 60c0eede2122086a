//! What a snapshot decides for one request or connection: a plain value, made once, then acted on.

use std::rc::Rc;
use std::time::Instant;

use http::header::HOST;
use http::{Method, Request, Version};
use outrigger_config::backend::BackendProtocol;
use outrigger_config::listener::Direction;
use outrigger_config::matching::{Found, Head};
use outrigger_config::path;
use outrigger_http::forward::Speak;
use outrigger_http::transform::Transforms;
use outrigger_http::{Error, Reason, filter, grpc, serve, websocket};
use outrigger_telemetry::{Series, TcpSeries};

use crate::connection::Connection;
use crate::filters::Filters;
use crate::local::{Local, LocalBackend};
use crate::session::Visit;
use crate::state::{LiveListener, LiveRule, LiveShare};
use crate::told::Told;

/// Where a request goes and what is done to it on the way.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) to: Rc<LocalBackend>,
    pub(crate) speak: Speak,
    /// The rule that took it, with the share of its backend; `None` where it goes where it was addressed to.
    pub(crate) rule: Option<(&'a LiveRule, &'a LiveShare)>,
    /// What it has of a session, where the rule keeps them.
    pub(crate) visit: Option<Visit<'a>>,
    /// What its listener tells of its caller and of itself.
    pub(crate) told: Option<&'a Told>,
}

impl<'a> Plan<'a> {
    /// When a request that came then is ready to be sent: what filters do before may take long, such as to wait for all of
    /// its body.
    pub(crate) fn ready(&self, came: Instant) -> Instant {
        let filtered = self.rule.is_some_and(|(_, share)| share.filters.is_some());
        if filtered { Instant::now() } else { came }
    }

    /// What is changed in bodies, if anything is.
    pub(crate) fn bodies(&self) -> Option<&'a Transforms> {
        self.rule.and_then(|(_, share)| share.bodies())
    }
}

/// A plan, or why there is none; and what is known of the request either way.
#[derive(Debug)]
pub(crate) struct Decision<'a> {
    /// The rule that took the request, by its place in the snapshot.
    pub(crate) rule: Option<usize>,
    /// What counts it.
    pub(crate) series: Option<Series>,
    pub(crate) plan: Result<Plan<'a>, Error>,
    /// What the rule changes, or answers itself.
    pub(crate) filters: Option<&'a Filters>,
}

impl<'a> Decision<'a> {
    /// Decides what becomes of a request.
    pub(crate) fn make<B>(local: &'a Local, connection: &Connection, request: &Request<B>) -> Self {
        let refuse = |reason, why: String| Self::unrouted(None, Err(Error::unsent(reason, why)));
        let live = &local.live;
        let found = connection
            .at(local)
            .and_then(|at| Some((live.listeners.get(at)?, live.snapshot.listeners.get(at)?)));
        let Some((listener, entry)) = found else {
            return refuse(Reason::DestinationNotFound, format!("listener {} is gone", connection.listener));
        };
        let host = authority(request);
        let unrouted = |error| Self::unrouted(Some(listener.unrouted), Err(error));
        let Some(host) = host else {
            return unrouted(Error::unsent(Reason::HttpRequestError, "the request has no valid Host"));
        };
        let uri = request.uri();
        let path = if *request.method() == Method::CONNECT { "/" } else { uri.path() };
        let path = match path::normalize(path, entry.spec.http.path) {
            Ok(path) => path,
            Err(refused) => {
                return unrouted(Error::unsent(Reason::HttpRequestError, refused.to_string()));
            }
        };
        let head = Head {
            host,
            path: &path,
            query: uri.query(),
            method: request.method(),
            headers: request.headers(),
        };
        match entry.http.find(&head) {
            Some(Found { rule, .. }) => Self::by_rule(local, connection, request, listener, rule),
            None => Self::by_address(local, connection, request, listener),
        }
    }

    /// Where no rule takes the request.
    const fn unrouted(series: Option<Series>, plan: Result<Plan<'a>, Error>) -> Self {
        Self { rule: None, series, plan, filters: None }
    }

    fn by_rule<B>(
        local: &'a Local,
        connection: &Connection,
        request: &Request<B>,
        listener: &'a LiveListener,
        at: usize,
    ) -> Self {
        let live = &local.live;
        let found = live.http_rules.get(at).zip(live.snapshot.http_rules.get(at));
        let Some((rule, entry)) = found else {
            let error = Error::unsent(Reason::ProxyInternalError, "the rule is not in the table");
            return Self::unrouted(None, Err(error));
        };
        let visit = rule.session.as_ref().map(|session| {
            let path = request.uri().path();
            session.visit(request.headers(), path, connection.is_https(), &entry.shares, live)
        });
        let kept = visit.as_ref().and_then(|visit| visit.kept).map(|kept| kept.share);
        let picked = kept.or_else(|| entry.shares.pick(connection.worker.random.borrow_mut().u32(..)));
        let share = picked.and_then(|share| Some((share, rule.shares.get(share)?)));
        let Some((place, share)) = share else {
            let details =
                format!("route {}, rule {}: no backend with a weight above 0", entry.route, entry.rule);
            let error = Error::unsent(Reason::ProxyConfigurationError, details);
            let filters = rule.filters.as_deref();
            return Self { rule: Some(at), series: Some(rule.unrouted), plan: Err(error), filters };
        };
        let call = rule.grpc || share.bodies().is_some_and(|bodies| bodies.call(request).is_some());
        if rule.grpc && !speaks_grpc(share, request) {
            let details = format!(
                "route {}: gRPC needs HTTP/2; over HTTP/1.1 there is gRPC-Web, with the filter GrpcWeb",
                entry.route
            );
            let plan = Err(Error::unsent(Reason::HttpVersionNotSupported, details));
            let filters = share.filters.as_deref();
            return Self { rule: Some(at), series: Some(share.series), plan, filters };
        }
        let backend = entry.shares.backend(place);
        let plan = match backend.and_then(|b| Some((local.backend(b)?, live.backends.get(b)?.protocol))) {
            Some((to, protocol)) => {
                let speak = speak(protocol, connection, request, call);
                let told = listener.told.as_deref();
                Ok(Plan { to: to.clone(), speak, rule: Some((rule, share)), visit, told })
            }
            None => {
                let name =
                    entry.shares.refs().get(place).map(|share| share.name.as_str()).unwrap_or_default();
                let details = format!("route {}: backend {name} is not known", entry.route);
                Err(Error::unsent(Reason::DestinationUnavailable, details))
            }
        };
        Self { rule: Some(at), series: Some(share.series), plan, filters: share.filters.as_deref() }
    }

    /// Captured traffic that no route takes goes where it was addressed to.
    fn by_address<B>(
        local: &'a Local,
        connection: &Connection,
        request: &Request<B>,
        listener: &'a LiveListener,
    ) -> Self {
        let plan = match connection.original {
            Some(address) => {
                let to = local.direct(address, connection.direction == Direction::Outbound);
                let speak = as_received(connection, request);
                Ok(Plan { to, speak, rule: None, visit: None, told: listener.told.as_deref() })
            }
            None if *request.method() == Method::CONNECT => Err(Error::unsent(
                Reason::DestinationNotFound,
                format!("no route of listener {} has a match with the method CONNECT", connection.listener),
            )),
            None => Err(Error::unsent(Reason::DestinationNotFound, untaken(connection, request))),
        };
        Self::unrouted(Some(listener.unrouted), plan)
    }
}

/// What there is no route for.
fn untaken<B>(connection: &Connection, request: &Request<B>) -> String {
    let (listener, path) = (&connection.listener, request.uri().path());
    match authority(request) {
        Some(host) if !host.is_empty() => format!("no route of listener {listener} takes {path} for {host}"),
        _ => format!("no route of listener {listener} takes {path}"),
    }
}

/// The host that a request is for: of an absolute target its authority, otherwise the one `Host` (RFC 9112, section
/// 3.2). `None` if there is not exactly one, or it is not text. HTTP/1.0 need not have any.
pub(crate) fn authority<B>(request: &Request<B>) -> Option<&str> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.as_str());
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, _) if request.version() == Version::HTTP_10 => Some(""),
        _ => None,
    }
}

/// What the application is to be spoken to in: as the backend says, otherwise as the caller's sidecar says, otherwise
/// HTTP/1.1 but for gRPC. `call` says that it is gRPC by its route.
fn speak<B>(
    protocol: Option<BackendProtocol>,
    connection: &Connection,
    request: &Request<B>,
    call: bool,
) -> Speak {
    match (protocol, connection.application) {
        (Some(BackendProtocol::H2c), _) | (None, Some(serve::Version::Http2)) => http2(request),
        (None, _) if call => Speak::Http2,
        (None, None) if is_grpc(request) => Speak::Http2,
        _ => http1(request),
    }
}

/// What the application is spoken to in where nothing is known of it: what it was going to be spoken to in.
fn as_received<B>(connection: &Connection, request: &Request<B>) -> Speak {
    match connection.application {
        Some(serve::Version::Http2) => http2(request),
        None if request.version() == Version::HTTP_2 => http2(request),
        _ => http1(request),
    }
}

fn http1<B>(request: &Request<B>) -> Speak {
    match filter::upgrade(request.version(), request.headers()) {
        Some(_) => Speak::Http1Upgrade,
        None if *request.method() == Method::CONNECT => Speak::Http1Upgrade,
        None => Speak::Http1,
    }
}

/// Of the protocols that HTTP/1.1 can change to, HTTP/2 is asked for WebSocket alone (RFC 8441): what else an
/// application of HTTP/2 knows only a caller of HTTP/2 can say. An application may ignore any (RFC 9110, section 7.8).
fn http2<B>(request: &Request<B>) -> Speak {
    match filter::upgrade(request.version(), request.headers()) {
        Some(token) if request.version() == Version::HTTP_2 || websocket::is_asked(token) => {
            Speak::Http2Upgrade
        }
        _ => Speak::Http2,
    }
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2 && grpc::is_grpc(request.headers())
}

/// Whether a request that a GRPCRoute took can be a call: over HTTP/2, or in gRPC-Web where that becomes one.
fn speaks_grpc<B>(share: &LiveShare, request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2
        || share.bodies().is_some_and(|bodies| bodies.call(request).is_some())
}

/// Where a connection that is not HTTP goes.
#[derive(Debug)]
pub(crate) struct TcpPlan {
    pub(crate) series: TcpSeries,
    /// The rule that took it, by its place in the snapshot.
    pub(crate) rule: Option<usize>,
    pub(crate) to: Result<Rc<LocalBackend>, Error>,
}

impl TcpPlan {
    /// Decides what becomes of a connection; `None` if its listener is gone.
    pub(crate) fn make(local: &Local, connection: &Connection) -> Option<Self> {
        let live = &local.live;
        let at = connection.at(local)?;
        let listener = live.listeners.get(at)?;
        if let Some(refusal) = connection.refusal() {
            return Some(Self { series: listener.unrouted_tcp, rule: None, to: Err(refusal) });
        }
        let entry = live.snapshot.listeners.get(at)?;
        let named = connection.hello.as_ref().and_then(|hello| entry.tls.find(hello.server_name.as_deref()));
        if let Some(rule) = named.or(entry.tcp) {
            return Self::by_rule(local, connection, listener, rule);
        }
        let to = match connection.original {
            Some(address) => Ok(local.direct(address, connection.direction == Direction::Outbound)),
            None => Err(Error::unsent(Reason::DestinationNotFound, Self::nobody(connection))),
        };
        Some(Self { series: listener.unrouted_tcp, rule: None, to })
    }

    /// Whether there is somewhere for a connection to go.
    pub(crate) fn takes(connection: &Connection) -> bool {
        let plan = connection.worker.local().and_then(|local| Self::make(&local, connection));
        plan.is_some_and(|plan| plan.rule.is_some() || plan.to.is_ok())
    }

    fn nobody(connection: &Connection) -> String {
        let listener = &connection.listener;
        match connection.hello.as_ref().map(|hello| hello.server_name.as_deref()) {
            Some(Some(name)) => format!("no route of listener {listener} takes TLS for {name}"),
            Some(None) => format!("no route of listener {listener} takes TLS that asks for no name"),
            None => format!("no route of listener {listener} takes connections that are not HTTP"),
        }
    }

    fn by_rule(local: &Local, connection: &Connection, listener: &LiveListener, rule: usize) -> Option<Self> {
        let live = &local.live;
        let (entry, series) = live.snapshot.tcp_rules.get(rule).zip(live.tcp_rules.get(rule))?;
        let refused = |reason, why: String| Err(Error::unsent(reason, why));
        let Some(share) = entry.shares.pick(connection.worker.random.borrow_mut().u32(..)) else {
            let why = format!("route {}: no backend with a weight above 0", entry.route);
            let to = refused(Reason::ProxyConfigurationError, why);
            return Some(Self { series: listener.unrouted_tcp, rule: Some(rule), to });
        };
        let to = match entry.shares.backend(share).and_then(|backend| local.backend(backend)) {
            Some(backend) => Ok(backend.clone()),
            None => {
                let name =
                    entry.shares.refs().get(share).map(|share| share.name.as_str()).unwrap_or_default();
                refused(
                    Reason::DestinationUnavailable,
                    format!("route {}: backend {name} is not known", entry.route),
                )
            }
        };
        Some(Self { series: *series.get(share)?, rule: Some(rule), to })
    }
}

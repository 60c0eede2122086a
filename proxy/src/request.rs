//! The way of one request: load the table once, decide, filter, forward, and stream the response back.

use std::rc::Rc;
use std::time::Instant;

use http::header::{CONNECTION, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use outrigger_http::body::{End, Observe, RequestBody, ResponseBody, Upload};
use outrigger_http::filter;
use outrigger_http::forward::{Policy, Progress, Speak, UNREACHED, Way, forward};
use outrigger_http::pool::Lease;
use outrigger_http::upgrade::relay;
use outrigger_http::{Error, Reason};

use crate::connection::Connection;
use crate::plan::{Decision, Plan};
use crate::record::Record;
use crate::waiting::{Waiting, is_not_up, page};
use crate::worker::LocalBackend;

/// A response on its way to the caller.
pub(crate) type Answer = Response<ResponseBody<Record>>;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Answers one request.
pub(crate) async fn answer(connection: Rc<Connection>, request: Request<Incoming>) -> Answer {
    let Some(local) = connection.worker.local() else {
        // Nothing listens before the first table is there.
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    };
    let version = request.version();
    let mut record = Record::begin(connection.clone(), local.clone(), &request);
    let decision = Decision::make(&local, &connection, &request);
    record.decided(decision.rule, decision.series);
    let mut response = match decision.plan {
        Ok(plan) => carry_out(&connection, plan, request, record).await,
        Err(error) => fail(error, record),
    };
    if connection.worker.announces_end() && version != Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The answer to a request that is refused without a look at any route.
pub(crate) fn refused(connection: &Rc<Connection>, request: &Request<Incoming>, error: Error) -> Answer {
    let Some(local) = connection.worker.local() else {
        return Response::new(ResponseBody::empty());
    };
    let series = connection.at(&local).and_then(|at| local.live.listeners.get(at)).map(|l| l.unrouted);
    let mut record = Record::begin(connection.clone(), local, request);
    record.decided(None, series);
    fail(error, record)
}

async fn carry_out(
    connection: &Connection,
    plan: Plan<'_>,
    mut request: Request<Incoming>,
    mut record: Record,
) -> Answer {
    let unlimited = Policy::default();
    let policy = plan.rule.map_or(&unlimited, |(rule, _)| &rule.policy);
    let upgrade = (plan.speak == Speak::Http1Upgrade).then(|| hyper::upgrade::on(&mut request));
    let waiting = if plan.to.waiting_page { Waiting::of(&request) } else { None };
    let (request, upload) = prepare(&plan, policy, request);
    record.to = Some(plan.to.clone());
    record.upload.clone_from(&upload);
    let deadline = policy.request_timeout.map(|limit| record.started() + limit);
    let way = Way {
        backend: &plan.to.backend,
        pools: &plan.to.pools,
        policy,
        dialer: &plan.to.dialer,
        speak: plan.speak,
        started: record.started(),
        deadline,
        random: &connection.worker.random,
    };
    let mut progress = Progress::default();
    let result = forward(&way, request, upload.as_ref(), &mut progress).await;
    record.endpoint = progress.endpoint;
    record.attempts = progress.attempts;
    if progress.refused {
        record.retry_refused();
    }
    match result {
        Err(error) => {
            if error.reason == Reason::DnsError {
                // Without an address, no failed connection has the name looked up.
                plan.to.doubt();
            }
            match waiting.filter(|_| is_not_up(&error)) {
                Some(waiting) => wait(waiting, &plan.to, error, record),
                None => fail(error, record),
            }
        }
        Ok((response, lease)) => pass_on(&plan, response, lease, upgrade, deadline, record),
    }
}

/// Brings a request into the form in which it is forwarded, with the route's changes made.
fn prepare(
    plan: &Plan<'_>,
    policy: &Policy,
    request: Request<Incoming>,
) -> (Request<RequestBody>, Option<Upload>) {
    let (mut parts, incoming) = request.into_parts();
    filter::to_http1(&mut parts.uri, &mut parts.version, &mut parts.headers);
    filter::strip_hop_by_hop(&mut parts.headers, plan.speak == Speak::Http1Upgrade);
    parts.extensions.clear();
    if let Some((_, share)) = plan.rule {
        for modifier in &share.request {
            filter::modify(modifier, &mut parts.headers);
        }
    }
    if incoming.is_end_stream() {
        return (Request::from_parts(parts, RequestBody::Empty), None);
    }
    let upload = Upload::new(incoming, policy.kept_body());
    let body = upload.attempt().unwrap_or(RequestBody::Empty);
    (Request::from_parts(parts, body), Some(upload))
}

/// Passes a backend's response on to the caller.
fn pass_on(
    plan: &Plan<'_>,
    response: Response<Incoming>,
    lease: Lease,
    upgrade: Option<OnUpgrade>,
    deadline: Option<Instant>,
    mut record: Record,
) -> Answer {
    let (mut parts, incoming) = response.into_parts();
    let switching = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    filter::strip_hop_by_hop(&mut parts.headers, switching);
    if parts.status.is_server_error() {
        parts.headers.remove(UNREACHED);
    }
    if let Some((_, share)) = plan.rule {
        for modifier in &share.response {
            filter::modify(modifier, &mut parts.headers);
        }
    }
    parts.version = Version::HTTP_11;
    record.answered(parts.status.as_u16());
    if !switching {
        return Response::from_parts(parts, ResponseBody::stream(incoming, lease, deadline, record));
    }
    let Some(caller) = upgrade else {
        let error = Error::sent(Reason::HttpUpgradeFailed, "the application changed the protocol unasked");
        return fail(error, record);
    };
    let mut response = Response::from_parts(parts, incoming);
    let callee = hyper::upgrade::on(&mut response);
    let (parts, _) = response.into_parts();
    tokio::task::spawn_local(async move {
        let copied = relay(caller, callee).await;
        let end = if copied.is_some() { End::Complete } else { End::CallerGone };
        record.ended(end, copied.map_or(0, |copied| copied.b_to_a), Instant::now());
        drop(lease);
    });
    Response::from_parts(parts, ResponseBody::empty())
}

/// The answer that the proxy gives itself: a status, a `Proxy-Status` (RFC 9209), and a line of text.
fn fail(error: Error, mut record: Record) -> Answer {
    record.failed(&error);
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(PROXY_STATUS, error.proxy_status());
    if !error.reached && record.is_of_a_sidecar() {
        headers.insert(UNREACHED, HeaderValue::from_static(error.reason.as_str()));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    let mut response = Response::new(ResponseBody::full(format!("{error}\n"), record));
    *response.status_mut() = error.reason.status();
    *response.headers_mut() = headers;
    response
}

/// The answer to a browser while the application is not up.
fn wait(waiting: Waiting, to: &LocalBackend, error: Error, mut record: Record) -> Answer {
    let Waiting::Page(host) = waiting else {
        record.unlogged();
        return fail(error, record);
    };
    let (status, mut headers, text) = page(&host, to, &error);
    record.failed(&error);
    record.answered(status.as_u16());
    headers.insert(PROXY_STATUS, error.proxy_status());
    let mut response = Response::new(ResponseBody::full(text, record));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

//! The way of one request: load the table once, decide, filter, forward, and stream the response back.

use std::rc::Rc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use outrigger_http::body::{Incoming, RequestBody, ResponseBody, Upload};
use outrigger_http::filter;
use outrigger_http::forward::{Policy, Progress, Speak, UNREACHED, Way, forward};
use outrigger_http::memory::Account;
use outrigger_http::message::{Answered, Asked, Handler, Interim, Outgoing, Reply};
use outrigger_http::pool::Lease;
use outrigger_http::transform::{Asking, Transforms};
use outrigger_http::upgrade::OnUpgrade;
use outrigger_http::{Error, PROXY_STATUS, Reason, grpc};

use crate::connection::Connection;
use crate::hashing;
use crate::local::LocalBackend;
use crate::plan::{Decision, Plan};
use crate::record::Record;
use crate::tunnel::{self, Tunnel};
use crate::waiting::{Waiting, is_not_up, page};

/// A response on its way to the caller.
pub(crate) type Answer = Reply<ResponseBody<Record>>;

/// Up to so many bytes a body is no matter for memory: a caller that does not read it leaves it to the kernel.
const SMALL: u64 = 16 * 1024;

/// What `Proxy-Status` says of a response whose endpoint was chosen in panic (RFC 9209, section 2.1.5).
const PANIC: &str = r#"outrigger; details="panic: so few endpoints are well that all are used""#;

/// Answers what a connection asks.
pub(crate) struct Serving {
    pub(crate) connection: Rc<Connection>,
    /// What every request gets, without a look at any route.
    pub(crate) refusal: Option<Error>,
}

impl Handler for Serving {
    type Body = ResponseBody<Record>;

    fn answer(&self, asked: Asked) -> impl Future<Output = Answer> + use<> {
        answer(self.connection.clone(), self.refusal.clone(), asked)
    }

    fn refuse(&self, error: Error) -> Answer {
        let mut unknown = Request::new(());
        // What logs commonly say where they know no method.
        *unknown.method_mut() = Method::from_bytes(b"-").unwrap_or_default();
        refused(&self.connection, &unknown, error)
    }

    fn decline(&self, error: Error, request: &Request<()>) -> Answer {
        refused(&self.connection, request, error)
    }
}

/// Answers one request.
async fn answer(connection: Rc<Connection>, refusal: Option<Error>, asked: Asked) -> Answer {
    if let Some(error) = refusal {
        return refused(&connection, &asked.request, error);
    }
    if let Some(error) = connection.worker.memory.refusal() {
        return refused(&connection, &asked.request, error);
    }
    let Some(local) = connection.worker.local() else {
        // Nothing listens before the first table is there.
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return Reply::new(response);
    };
    let version = asked.request.version();
    let place = match connection.enter(&local) {
        Ok(place) => place,
        Err(error) => return refused(&connection, &asked.request, error),
    };
    let mut record = Record::begin(connection.clone(), local.clone(), &asked.request).holding(place);
    let decision = Decision::make(&local, &connection, &asked.request);
    record.decided(decision.rule, decision.series);
    if decision.filters.is_some() || decision.plan.is_err() {
        record.call = called(&asked.request);
    }
    let mut reply = match (decision.filters, decision.plan) {
        // Boxed, for every request would have the room for it.
        (Some(filters), plan) => Box::pin(filters.answer(&connection, plan, asked, record)).await,
        (None, Ok(plan)) => carry_out(&connection, plan, asked, record).await,
        (None, Err(error)) => fail(error, record),
    };
    if connection.worker.announces_end(connection.side) && version != Version::HTTP_2 {
        reply.response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}

fn refused<B>(connection: &Rc<Connection>, request: &Request<B>, error: Error) -> Answer {
    let Some(local) = connection.worker.local() else {
        return Reply::new(Response::new(ResponseBody::empty()));
    };
    let series = connection.at(&local).and_then(|at| local.live.listeners.get(at)).map(|l| l.unrouted);
    let mut record = Record::begin(connection.clone(), local, request);
    record.decided(None, series);
    record.call = called(request);
    fail(error, record)
}

/// Sends a request on as planned, and passes on what comes back.
pub(crate) async fn carry_out(
    connection: &Connection,
    plan: Plan<'_>,
    asked: Asked,
    mut record: Record,
) -> Answer {
    let unlimited = Policy::default();
    let policy = plan.rule.map_or(&unlimited, |(rule, _)| &rule.policy);
    let Asked { mut request, spelling, interim, upgrade } = asked;
    if let Some(spelling) = spelling.as_ref().filter(|_| request.version() == Version::HTTP_2) {
        filter::uncarry(&mut request, spelling);
    }
    let waiting = if plan.to.waiting_page { Waiting::of(&request) } else { None };
    let mut deadline = policy.request_timeout.map(|limit| record.started() + limit);
    if plan.speak == Speak::Http2 {
        record.call = called(&request);
    }
    let mut asking = None;
    if let Some(bodies) = plan.bodies() {
        record.call = bodies.call(&request).or(record.call);
        // Boxed, for every request would have the room for it.
        match Box::pin(transform(bodies, request, &interim, deadline, &connection.worker.memory)).await {
            Ok((changed, asked)) => (request, asking) = (changed, Some(Box::new(asked))),
            Err(error) => return fail(error, record),
        }
    }
    // What its caller says itself, where that is less.
    let patience = record.call.and_then(|_| grpc::timeout::read(request.headers()));
    let own = patience.and_then(|patience| record.started().checked_add(patience));
    deadline = deadline.into_iter().chain(own).min();
    let mut tunnel = Tunnel::wanted(&request, plan.speak);
    let hash = hashing::of_request(plan.to.backend.balancer.hash_keys(), &request, connection.peer.ip());
    let (request, upload) = prepare(connection, &plan, &mut tunnel, policy, request);
    let outgoing = Outgoing { request, spelling, interim };
    if let Some(filters) = plan.rule.and_then(|(_, share)| share.filters.as_deref()) {
        filters.mirror(connection, record.local(), &outgoing, upload.as_ref(), plan.speak);
    }
    let mut slot = Some(outgoing);
    record.to = Some(plan.to.clone());
    record.upload.clone_from(&upload);
    let way = Way {
        backend: &plan.to.backend,
        pools: &plan.to.pools,
        policy,
        dialer: &plan.to.dialer,
        speak: plan.speak,
        started: record.started(),
        ready: plan.ready(record.started()),
        deadline,
        timed_call: patience.is_some(),
        limits: connection.settings.limits,
        prefer: plan.visit.as_ref().and_then(|visit| visit.kept).map(|kept| kept.endpoint),
        hash,
        random: &connection.worker.random,
    };
    let mut progress = Progress::default();
    let result = forward(&way, &mut slot, upload.as_ref(), &mut progress).await;
    record.went(&plan.to, &progress);
    upload.iter().for_each(Upload::answered);
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
        Ok((mut answered, lease)) => {
            if let Some(reason) = progress.unreached.filter(|_| record.call.is_some()) {
                // To a sidecar it says so in plain HTTP.
                let details = "the callee's sidecar could not reach its application";
                return fail(Error::unsent(reason, details).with_reached(progress.reached), record);
            }
            if let Some((bodies, asking)) = plan.bodies().zip(asking)
                && answered.upgrade.is_none()
            {
                let (mut parts, body) = answered.response.into_parts();
                match bodies.response(&asking, &mut parts, body) {
                    Ok(body) => answered.response = Response::from_parts(parts, body),
                    Err(error) => return fail(error.with_reached(true), record),
                }
            }
            pass_on(&plan, &tunnel, answered, lease, upgrade, deadline, record)
        }
    }
}

/// Why a response cannot be passed on, if memory has come to an end since its request was taken on: what could wait for a
/// slow caller is not begun.
fn too_large_now(memory: &Rc<Account>, response: &Response<Incoming>) -> Option<Error> {
    let most = response.body().size_hint().upper().unwrap_or(u64::MAX);
    if most <= SMALL {
        return None;
    }
    memory.refusal().map(|refusal| refusal.with_reached(true))
}

/// The media type of the answers to a call of gRPC; `None` if it is none.
fn called<B>(request: &Request<B>) -> Option<&'static str> {
    let call = request.version() == Version::HTTP_2 && grpc::is_grpc(request.headers());
    call.then_some(grpc::MEDIA_TYPE)
}

/// Changes a request's body as its route asks for.
async fn transform(
    bodies: &Transforms,
    request: Request<Incoming>,
    interim: &Interim,
    deadline: Option<Instant>,
    memory: &Rc<Account>,
) -> Result<(Request<Incoming>, Asking), Error> {
    let (mut parts, body) = request.into_parts();
    let (body, asking) = bodies.request(&mut parts, body, interim, deadline, memory).await?;
    Ok((Request::from_parts(parts, body), asking))
}

/// Brings a request into the form in which it is forwarded, with the route's changes made.
fn prepare(
    connection: &Connection,
    plan: &Plan<'_>,
    tunnel: &mut Tunnel,
    policy: &Policy,
    request: Request<Incoming>,
) -> (Request<RequestBody>, Option<Upload>) {
    let (mut parts, incoming) = request.into_parts();
    let received = parts.version;
    filter::to_http1(&mut parts.uri, &mut parts.version, &mut parts.headers);
    filter::strip_passed_on(&mut parts.headers, tunnel.is_upgrade());
    tunnel.complete(&mut parts.headers, plan.speak, &mut connection.worker.random.borrow_mut());
    parts.extensions.clear();
    if let Some(told) = plan.told {
        told.request(connection, received, &mut parts.headers);
    }
    if let Some((_, share)) = plan.rule {
        if let Some(filters) = &share.filters {
            filters.rewrite(&mut parts);
        }
        for modifier in &share.request {
            filter::modify(modifier, &mut parts.headers);
        }
    }
    if incoming.is_end_stream() {
        return (Request::from_parts(parts, RequestBody::Empty), None);
    }
    let upload = Upload::new(incoming, policy.kept_body()).counted(&connection.worker.memory);
    let body = upload.attempt().unwrap_or(RequestBody::Empty);
    (Request::from_parts(parts, body), Some(upload))
}

/// Passes a backend's response on to the caller.
fn pass_on(
    plan: &Plan<'_>,
    tunnel: &Tunnel,
    answered: Answered,
    lease: Lease,
    upgrade: Option<OnUpgrade>,
    deadline: Option<Instant>,
    mut record: Record,
) -> Answer {
    let Answered { response, spelling, upgrade: callee } = answered;
    if let Some(error) = too_large_now(record.memory(), &response) {
        return fail(error, record);
    }
    let (mut parts, incoming) = response.into_parts();
    let agreed = match tunnel.agreed(parts.status, &parts.headers) {
        Ok(agreed) => agreed,
        Err(error) => return fail(error.with_reached(true), record),
    };
    filter::strip_passed_on(&mut parts.headers, agreed && tunnel.is_upgrade());
    if let Some(told) = plan.told {
        told.response(parts.version, &mut parts.headers);
    }
    if record.panic {
        parts.headers.append(PROXY_STATUS, HeaderValue::from_static(PANIC));
    }
    if let Some((_, share)) = plan.rule {
        for modifier in &share.response {
            filter::modify(modifier, &mut parts.headers);
        }
    }
    if let Some(visit) = &plan.visit {
        visit.answer(plan.to.names.of(&plan.to.backend), record.endpoint, &mut parts.headers);
    }
    parts.version = Version::HTTP_11;
    record.answered(parts.status.as_u16());
    if record.call.is_some() {
        record.grpc_status = grpc::status(&parts.headers);
    }
    if !agreed {
        let body = ResponseBody::stream(incoming, lease, deadline, record);
        return Reply { response: Response::from_parts(parts, body), spelling };
    }
    let Some((caller, callee)) = upgrade.zip(callee) else {
        let error = Error::sent(Reason::ProxyInternalError, "a side of the tunnel is missing");
        return fail(error, record);
    };
    tunnel::open(caller, callee, lease, record);
    Reply { response: Response::from_parts(parts, ResponseBody::empty()), spelling }
}

/// The answer that the proxy gives itself: a status, a `Proxy-Status` (RFC 9209), and a line of text.
pub(crate) fn fail(error: Error, mut record: Record) -> Answer {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(PROXY_STATUS, error.proxy_status());
    if error.reason == Reason::ProxyMemoryLimit {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(seconds) = error.reason.retry_after() {
        headers.insert(RETRY_AFTER, seconds.into());
        if record.call.is_some() {
            headers.insert(grpc::RETRY_PUSHBACK, (seconds * 1000).into());
        }
    }
    let unreached = !error.reached && record.is_of_a_sidecar();
    if unreached {
        headers.insert(UNREACHED, HeaderValue::from_static(error.reason.as_str()));
    } else if let Some(media_type) = record.call {
        record.failed(&error);
        record.grpc_status = Some(grpc::say(&error, media_type, &mut headers));
        record.answered(StatusCode::OK.as_u16());
        let mut response = Response::new(ResponseBody::full(Bytes::new(), record));
        *response.headers_mut() = headers;
        return made(response);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    refusal(&error, headers, format!("{error}\n").into(), record)
}

/// An answer that is made here, at this time (RFC 9110, section 6.6.1).
pub(crate) fn made(mut response: Response<ResponseBody<Record>>) -> Answer {
    if let Ok(now) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now())) {
        response.headers_mut().entry(DATE).or_insert(now);
    }
    Reply::new(response)
}

/// An answer to a request that failed, with this header and body.
pub(crate) fn refusal(error: &Error, mut headers: HeaderMap, body: Bytes, mut record: Record) -> Answer {
    record.failed(error);
    let body = record.body(body, &mut headers);
    let mut response = Response::new(ResponseBody::full(body, record));
    *response.status_mut() = error.status();
    *response.headers_mut() = headers;
    made(response)
}

/// The answer to a browser while the application is not up.
fn wait(waiting: Waiting, to: &LocalBackend, error: Error, mut record: Record) -> Answer {
    let Waiting::Page(host) = waiting else {
        record.unlogged();
        return fail(error, record);
    };
    let (headers, text) = page(&host, to, &error);
    refusal(&error, headers, text, record)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes the future takes that a function returns.
    const fn size<A, B, C, F>(_: &impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Each request under way has it, however many there are.
    #[test]
    fn the_future_of_a_request_is_small() {
        let size = size(&answer);
        assert!(size <= 6_500, "{size} bytes");
    }
}

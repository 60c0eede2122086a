//! The way of a request to a backend, top to bottom: pick an endpoint, take a connection, send; and again, where that
//! is safe and the route wants it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{HeaderName, Request, Response};
use outrigger_balance::{InFlight, Limits as BackendLimits, Wish, backoff};
use outrigger_config::route::{Retry, Timeouts};
use smallvec::SmallVec;

use crate::admission::Admitted;
use crate::body::Incoming;
use crate::body::{RequestBody, Upload};
use crate::connect::{Dialer, Wire};
use crate::endpoint::{Backend, Empty, Endpoint, Security};
use crate::error::{Error, Reason};
use crate::filter::is_idempotent;
use crate::h1::{Limits, Spelling};
use crate::message::{Answered, Interim, Outgoing};
use crate::pool::{Failed, Lease, Phase, Pool, Sending, Slot};
use crate::verdict;

/// How many endpoints are tried for one attempt when connections to them cannot be made.
const MAX_CONNECT_TRIES: usize = 5;
/// How much of a request's body is kept, so that it can be sent again, where the route does not say.
const DEFAULT_KEPT_BODY: usize = 64 * 1024;
/// The least wait between two attempts where the route does not say.
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);

/// What a rule says of time and of sending again.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// From the request's head until the response is complete.
    pub request_timeout: Option<Duration>,
    /// For one attempt, until the response's head.
    pub attempt_timeout: Option<Duration>,
    /// Whether and when a request is sent again.
    pub retry: Option<Retrying>,
}

/// Whether and when a request is sent again.
#[derive(Debug, Clone)]
pub struct Retrying {
    /// How often.
    pub attempts: u32,
    /// After which statuses.
    pub codes: Box<[u16]>,
    /// The least wait.
    pub backoff: Duration,
    /// How much of a body is kept for it.
    pub kept_body: usize,
}

impl Policy {
    /// The policy of a rule. A timeout of 0 is none (Gateway API).
    pub fn new(timeouts: &Timeouts, retry: Option<&Retry>) -> Self {
        let limit = |duration: Option<outrigger_config::Duration>| {
            duration.map(outrigger_config::Duration::get).filter(|d| !d.is_zero())
        };
        Self {
            request_timeout: limit(timeouts.request),
            attempt_timeout: limit(timeouts.backend_request),
            retry: retry.map(|retry| Retrying {
                attempts: retry.attempts,
                codes: retry.codes.clone().into(),
                backoff: retry.backoff.map_or(DEFAULT_BACKOFF, outrigger_config::Duration::get),
                kept_body: retry.max_body_bytes.map_or(DEFAULT_KEPT_BODY, |bytes| bytes as usize),
            }),
        }
    }

    /// How many bytes of a request's body are kept, so that it can be sent again.
    pub fn kept_body(&self) -> usize {
        self.retry.as_ref().map_or(DEFAULT_KEPT_BODY, |retry| retry.kept_body)
    }
}

/// Where a request goes, and by which means.
#[derive(Debug)]
pub struct Way<'a> {
    /// The backend.
    pub backend: &'a Backend,
    /// This worker's connections to its endpoints, in their order.
    pub pools: &'a [Rc<Pool>],
    /// What the rule says.
    pub policy: &'a Policy,
    /// How connections are made.
    pub dialer: &'a Dialer,
    /// Whether the application must be spoken to in HTTP/2, or must not be because the request is an upgrade.
    pub speak: Speak,
    /// When the request came.
    pub started: Instant,
    /// Until when the response's head must have come.
    pub deadline: Option<Instant>,
    /// How much header a response may have.
    pub limits: Limits,
    /// The endpoint that takes it if it can, by its place in the backend: an earlier request went there.
    pub prefer: Option<usize>,
    /// The hash of what decides which endpoint takes it, where the backend goes by one.
    pub hash: Option<u64>,
    /// This worker's randomness.
    pub random: &'a RefCell<fastrand::Rng>,
}

/// What the application behind an endpoint is to be spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speak {
    /// HTTP/1.1.
    Http1,
    /// HTTP/1.1, and so on the way there: the connection is to be upgraded.
    Http1Upgrade,
    /// HTTP/2.
    Http2,
    /// HTTP/2, and the connection is to be upgraded.
    Http2Upgrade,
}

impl Speak {
    /// Whether the connection is to be used for something else than HTTP.
    pub const fn upgrades(self) -> bool {
        matches!(self, Self::Http1Upgrade | Self::Http2Upgrade)
    }

    const fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Http2Upgrade)
    }
}

/// What has become known of a request so far; still there when its wait is cut short.
#[derive(Debug, Default)]
pub struct Progress {
    /// The endpoint tried last, by its place in the backend.
    pub endpoint: Option<usize>,
    /// How often the request was sent, or tried to be.
    pub attempts: u32,
    /// Whether it would have been sent again, had the backend's budget allowed it.
    pub refused: bool,
    /// Whether its endpoint was chosen although so few were well that all were used.
    pub panic: bool,
    /// When the attempt was begun that is under way.
    pub under_way: Option<Instant>,
}

/// What is needed to send a request again.
struct Spare<'a> {
    head: Option<Request<()>>,
    spelling: Option<Rc<Spelling>>,
    interim: Interim,
    upload: Option<&'a Upload>,
    /// Whether its body is a copy itself, which cannot be read twice.
    once: bool,
    idempotent: bool,
}

impl Spare<'_> {
    /// A request that was given back, unless a part of its body is gone.
    fn renewed(&self, mut outgoing: Outgoing) -> Option<Outgoing> {
        if matches!(outgoing.request.body(), RequestBody::Spent) {
            *outgoing.request.body_mut() = self.body()?;
        }
        Some(outgoing)
    }

    fn body(&self) -> Option<RequestBody> {
        match self.upload {
            None if self.once => None,
            None => Some(RequestBody::Empty),
            Some(upload) => upload.attempt(),
        }
    }

    /// The request once more, unless a part of it is gone.
    fn again(&self) -> Option<Outgoing> {
        let head = self.head.as_ref()?;
        let body = self.body()?;
        let request = copy_head(head).map(|()| body);
        Some(Outgoing { request, spelling: self.spelling.clone(), interim: self.interim.clone() })
    }
}

fn copy_head<B>(request: &Request<B>) -> Request<()> {
    let mut copy = Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// What follows an attempt that failed.
#[derive(Clone, Copy)]
enum Next {
    /// It is over.
    GiveUp,
    /// Another, at once: the connection had gone, or was never made.
    AtOnce,
    /// Another, after a wait: one of the route's retries.
    Later,
}

/// Sends the request in `slot`, whose body is `upload`'s, to an endpoint of the backend, and waits for the response's head.
///
/// It is sent again
/// - at once and elsewhere, if no connection could be made, by us or by the endpoint's sidecar, whatever its method;
/// - at once, but once, if its connection broke before the response, as those do that an application leaves behind when
///   it ends, if it is idempotent; within the backend's budget, unless the connection was a kept one;
/// - after a wait, as often as the route says and the backend's budget allows, after the route's statuses, a lost
///   connection or a timeout, if it is idempotent; if it is not, only where it provably did not reach the application.
///
/// # Errors
/// Why there is no response.
pub async fn forward(
    way: &Way<'_>,
    slot: &mut Slot,
    upload: Option<&Upload>,
    progress: &mut Progress,
) -> Result<(Answered, Lease), Error> {
    let interim = slot.as_ref().map(|outgoing| outgoing.interim.clone()).unwrap_or_default();
    let flown = async {
        let mut flight =
            Flight { way, progress, tried: SmallVec::new(), connects: 0, retries: 0, resent: false };
        let mut flown = pin!(flight.admitted(slot, upload));
        poll_fn(|cx| match flown.as_mut().poll(cx) {
            Poll::Ready(flown) => Poll::Ready(flown),
            Poll::Pending => interim.silence().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        })
        .await
    };
    let Some(deadline) = way.deadline else { return flown.await };
    tokio::time::timeout_at(deadline.into(), flown).await.unwrap_or_else(|_| {
        verdict::too_late(way.backend, progress);
        let limit = way.policy.request_timeout.unwrap_or_default();
        let details = format!("no response within the request timeout of {limit:?}");
        Err(Error::sent(Reason::HttpResponseTimeout, details))
    })
}

/// A request under way.
struct Flight<'a> {
    way: &'a Way<'a>,
    progress: &'a mut Progress,
    /// The endpoints where it failed.
    tried: SmallVec<[usize; 4]>,
    /// How many connections could not be made in this attempt.
    connects: usize,
    /// The route's retries so far.
    retries: u32,
    /// Whether it was already sent again because a connection had gone.
    resent: bool,
}

impl Flight<'_> {
    /// Goes on once it is let in.
    async fn admitted(
        &mut self,
        slot: &mut Slot,
        upload: Option<&Upload>,
    ) -> Result<(Answered, Lease), Error> {
        match &self.way.backend.limits {
            None => self.fly(slot, upload).await,
            // Boxed, for every request would have the room for it.
            Some(limits) => Box::pin(self.limited(limits, slot, upload)).await,
        }
    }

    async fn limited(
        &mut self,
        limits: &BackendLimits,
        slot: &mut Slot,
        upload: Option<&Upload>,
    ) -> Result<(Answered, Lease), Error> {
        let admitted = Admitted::at(limits, &self.way.backend.name).await?;
        let flown = self.fly(slot, upload).await;
        match flown {
            Ok((answered, lease)) => {
                let place = admitted.answered(&answered, self.progress.attempts);
                Ok((answered, lease.with_place(place)))
            }
            Err(error) => {
                admitted.failed(&error);
                Err(error)
            }
        }
    }

    async fn fly(&mut self, slot: &mut Slot, upload: Option<&Upload>) -> Result<(Answered, Lease), Error> {
        let Some(outgoing) = &*slot else {
            return Err(Error::unsent(Reason::ProxyInternalError, "there is no request to send"));
        };
        let request = &outgoing.request;
        let idempotent = is_idempotent(request.method());
        // Over HTTP/2 it can be known that a request of any method was not processed.
        let mesh = self.way.pools.first().is_some_and(|pool| pool.endpoint().identity().is_some());
        let once = matches!(request.body(), RequestBody::Copy(_));
        // Where it may have to be sent again after a response, or when HTTP/2 has taken it away. HTTP/1.1 gives it back.
        let retries = idempotent && self.way.policy.retry.is_some();
        let keep = !once && (retries || mesh || self.way.speak.is_http2());
        let spare = Spare {
            head: keep.then(|| copy_head(request)),
            spelling: outgoing.spelling.clone(),
            interim: outgoing.interim.clone(),
            upload,
            once,
            idempotent,
        };
        if self.way.policy.retry.is_some() {
            self.way.backend.budget.request(self.way.started);
        }
        loop {
            let now = if self.progress.attempts == 0 { self.way.started } else { Instant::now() };
            let (at, pool) = self.pick(now)?;
            self.progress.attempts += 1;
            let in_flight = pool.endpoint().load.start(now);
            let mut in_flight = in_flight.watched(self.way.backend.outliers.as_ref());
            self.progress.under_way = Some(now);
            let tried = self.attempt(&pool, slot, now).await;
            self.progress.under_way = None;
            let failed = match tried {
                Ok((answered, lease)) => {
                    let next = self.after_response(&pool, &mut in_flight, &answered.response, &spare);
                    let Some((next, again)) = next else {
                        return Ok((answered, lease.with_load(in_flight)));
                    };
                    drop((answered, lease, in_flight));
                    self.tried.push(at);
                    *slot = Some(again);
                    self.turn(next).await;
                    continue;
                }
                Err(failed) => failed,
            };
            if let Some(failure) = upload.and_then(Upload::failure) {
                return Err(failure);
            }
            self.note(at, &pool, &mut in_flight, &failed);
            *slot = slot.take().and_then(|outgoing| spare.renewed(outgoing)).or_else(|| spare.again());
            match self.next(&failed, &spare, slot.is_some()) {
                Next::GiveUp => return Err(failed.error),
                next => self.turn(next).await,
            }
        }
    }

    /// Whether a response is not the last word: how it goes on then, and with which request.
    fn after_response(
        &mut self,
        pool: &Pool,
        in_flight: &mut InFlight,
        response: &Response<Incoming>,
        spare: &Spare<'_>,
    ) -> Option<(Next, Outgoing)> {
        let (endpoint, now) = (pool.endpoint(), Instant::now());
        if unreached(endpoint, response) {
            // As where no connection is made: it says nothing of how fast it will be when it is back. Where it only has
            // enough to do, others may have less, and it is well.
            if !is_busy(response) {
                endpoint.load.failed(now);
            }
            in_flight.unconnected(now);
            if let Some(again) = self.elsewhere(spare) {
                return Some((Next::AtOnce, again));
            }
        } else {
            verdict::answered(in_flight, response, now);
            endpoint.load.succeeded();
        }
        self.refuse_status(response, spare).map(|again| (Next::Later, again))
    }

    /// Waits until it is time for the next attempt.
    async fn turn(&self, next: Next) {
        if matches!(next, Next::Later) {
            self.wait().await;
        }
    }

    /// The request for another endpoint, where this one turned out not to be reachable, if there is another.
    fn elsewhere(&mut self, spare: &Spare<'_>) -> Option<Outgoing> {
        self.connects += 1;
        let others = self.way.backend.loads.len().min(MAX_CONNECT_TRIES);
        if self.connects < others { spare.again() } else { None }
    }

    /// The endpoint for the next attempt.
    fn pick(&mut self, now: Instant) -> Result<(usize, Rc<Pool>), Error> {
        let backend = self.way.backend;
        let preferred = self.way.prefer.filter(|at| {
            let usable = backend.loads.get(*at).is_some_and(|load| load.available(now));
            usable && self.progress.attempts == 0
        });
        let picked = preferred.or_else(|| {
            let mut random = self.way.random.borrow_mut();
            let mut pick = |tried: &[usize]| {
                let wish = Wish { tried, hash: self.way.hash };
                backend.balancer.pick(&backend.loads, wish, now, &mut random)
            };
            let picked = pick(&self.tried).or_else(|| {
                // All were tried: a retry of the route begins anew.
                self.tried.clear();
                pick(&[])
            })?;
            self.progress.panic |= picked.panic;
            Some(picked.at)
        });
        let found = picked.and_then(|at| Some((at, self.way.pools.get(at)?.clone())));
        if let Some((at, _)) = found {
            self.progress.endpoint = Some(at);
        }
        found.ok_or_else(|| match &backend.empty {
            Some(Empty::Unresolved(host)) => {
                Error::unsent(Reason::DnsError, format!("backend {}: {host} does not resolve", backend.name))
            }
            Some(Empty::Insecure) => Error::unsent(
                Reason::TlsCertificateError,
                format!("backend {}: its caCertificates could not be used", backend.name),
            ),
            _ => Error::unsent(
                Reason::DestinationUnavailable,
                format!("backend {} has no endpoint", backend.name),
            ),
        })
    }

    async fn attempt(
        &self,
        pool: &Rc<Pool>,
        slot: &mut Slot,
        now: Instant,
    ) -> Result<(Answered, Lease), Failed> {
        let wire = match (self.way.speak, &pool.endpoint().security) {
            (Speak::Http2 | Speak::Http2Upgrade, _) => Wire::Http2,
            (Speak::Http1, Security::Mesh { .. }) => MESH_HTTP1,
            (Speak::Http1 | Speak::Http1Upgrade, _) => Wire::Http1,
        };
        let sending = Sending { limits: self.way.limits, fresh: self.resent, now };
        let sent = pool.send(wire, slot, self.way.dialer, sending);
        let Some(limit) = self.way.policy.attempt_timeout else { return sent.await };
        tokio::time::timeout(limit, sent).await.unwrap_or_else(|_| {
            let details = format!(
                "{} did not answer within the backendRequest timeout of {limit:?}",
                pool.endpoint().address
            );
            Err(Failed { error: Error::sent(Reason::HttpResponseTimeout, details), phase: Phase::New })
        })
    }

    /// Lets the balancer know of a failure.
    fn note(&mut self, at: usize, pool: &Pool, in_flight: &mut InFlight, failed: &Failed) {
        let now = Instant::now();
        match failed.phase {
            Phase::Connect => {
                verdict::unconnected(in_flight, pool.endpoint(), self.way.dialer, &failed.error);
                self.tried.push(at);
            }
            Phase::New => {
                in_flight.failure(now);
                self.tried.push(at);
            }
            // Not the endpoint's fault: it may close a connection that nobody uses. That it resets a stream is.
            Phase::Reused => {
                if failed.error.reached && failed.error.reason == Reason::HttpResponseIncomplete {
                    in_flight.failure(now);
                }
            }
        }
    }

    /// Whether a response's status is one that the route sends the request again for, and if so, the request.
    fn refuse_status(&mut self, response: &Response<Incoming>, spare: &Spare<'_>) -> Option<Outgoing> {
        let retry = self.way.policy.retry.as_ref()?;
        let wanted = retry.codes.contains(&response.status().as_u16());
        if !wanted || !spare.idempotent || self.retries >= retry.attempts {
            return None;
        }
        let again = spare.again()?;
        self.spend().then_some(again)
    }

    /// What follows; `whole` says whether there is all of the request to send.
    fn next(&mut self, failed: &Failed, spare: &Spare<'_>, whole: bool) -> Next {
        let Failed { error, phase } = failed;
        if spare.interim.has_finished() {
            // The application has ended the connection because the caller has.
            return Next::GiveUp;
        }
        if !whole || (error.reached && !spare.idempotent) {
            return Next::GiveUp;
        }
        if *phase == Phase::Connect {
            self.connects += 1;
            let others = self.way.backend.loads.len().min(MAX_CONNECT_TRIES);
            if self.connects < others {
                return Next::AtOnce;
            }
        } else if self.resends(failed) {
            return Next::AtOnce;
        }
        let allowed = self.way.policy.retry.as_ref().is_some_and(|retry| self.retries < retry.attempts);
        if allowed && self.spend() { Next::Later } else { Next::GiveUp }
    }

    /// Whether a request is sent again at once, and but once, because its connection had gone or it was not processed.
    /// A new connection that breaks may be the request's own doing: that counts against the backend's budget, and is left to
    /// who called where there is no other endpoint. Else each sidecar on the way would add its share to what one adds.
    fn resends(&mut self, Failed { error, phase }: &Failed) -> bool {
        let gone = error.reason == Reason::ConnectionTerminated;
        let granted = !self.resent
            && (!error.reached
                || (gone && *phase == Phase::Reused)
                || (gone
                    && self.way.backend.loads.len() > 1
                    && self.way.backend.budget.try_retry(Instant::now())));
        self.resent |= granted;
        granted
    }

    /// Takes one retry out of the backend's budget.
    fn spend(&mut self) -> bool {
        let granted = self.way.backend.budget.try_retry(Instant::now());
        if granted {
            self.retries += 1;
            self.connects = 0;
        }
        self.progress.refused = !granted;
        granted
    }

    async fn wait(&self) {
        let base = self.way.policy.retry.as_ref().map_or(DEFAULT_BACKOFF, |retry| retry.backoff);
        let wait = backoff(base, self.retries, &mut self.way.random.borrow_mut());
        tokio::time::sleep(wait).await;
    }
}

/// By this field a sidecar says that it could not reach its application, which is as good as no connection to it. It is
/// between sidecars alone: each takes it off what its application or endpoint says. Its value is the reason.
pub const UNREACHED: HeaderName = HeaderName::from_static("outrigger-unreached");

/// Whether a sidecar answers that the request did not reach its application.
fn unreached<B>(endpoint: &Endpoint, response: &Response<B>) -> bool {
    response.status().is_server_error()
        && matches!(endpoint.security, Security::Mesh { .. } | Security::Own)
        && response.headers().contains_key(UNREACHED)
}

/// Whether a sidecar could not pass a request on for nothing but that much is under way there.
fn is_busy<B>(response: &Response<B>) -> bool {
    let reason = response.headers().get(UNREACHED).and_then(|name| Reason::find(name.to_str().ok()?));
    reason.is_some_and(|reason| reason.retry_after().is_some())
}

/// What HTTP/1.1 requests travel in between two sidecars. Measured with `outrigger-bench run --saturate --paths sidecars`,
/// 32 connections of callers, both proxies together, medians of three rounds, twice: over HTTP/2 27.3 and 26.7 µs of CPU
/// per request, over HTTP/1.1 32.2 and 33.7. Many requests share a record and a system call.
const MESH_HTTP1: Wire = Wire::Carried;

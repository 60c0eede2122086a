//! A request under way: attempt after attempt, until one of them is the last word.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use http::Response;
use http_body::Body as _;
use outrigger_balance::{Granted, InFlight, Wish, backoff};
use smallvec::SmallVec;

use super::spare::Spare;
use super::{Again, Denied, Progress, Retrying, Speak, Way, hedge, poll_in_time, proof, wait};
use crate::admission::Admitted;
use crate::body::{Incoming, Upload};
use crate::connect::Wire;
use crate::endpoint::{Empty, Security};
use crate::error::{Error, Reason, Source};
use crate::grpc;
use crate::message::{Answered, Outgoing};
use crate::pool::{Failed, Lease, Phase, Pool, Sending, Slot};
use crate::verdict;

/// How many endpoints are tried for one attempt when connections to them cannot be made.
const MAX_CONNECT_TRIES: usize = 5;

/// What HTTP/1.1 requests travel in between two sidecars. Measured with `outrigger-bench run mesh`,
/// 32 connections of callers, both proxies together, medians of three rounds, twice: over HTTP/2 27.3 and 26.7 µs of CPU
/// per request, over HTTP/1.1 32.2 and 33.7. Many requests share a record and a system call.
const MESH_HTTP1: Wire = Wire::Carried;

/// When another attempt follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// At once: the connection had gone, or was never made.
    AtOnce,
    /// After a wait: one of the route's retries.
    After(Duration),
}

/// What came of one attempt.
pub(super) type Outcome = Result<(Answered, Lease), Failed>;

/// An attempt at one endpoint.
pub(super) struct Try {
    /// The endpoint, by its place in the backend.
    pub(super) at: usize,
    pub(super) pool: Rc<Pool>,
    pub(super) in_flight: InFlight,
}

/// A request under way.
pub(super) struct Flight<'a> {
    pub(super) way: &'a Way<'a>,
    pub(super) progress: &'a mut Progress,
    /// The endpoints where it failed.
    tried: SmallVec<[usize; 4]>,
    /// How many connections could not be made in this attempt.
    connects: usize,
    /// The route's retries so far.
    pub(super) retries: u32,
    /// Whether it was already sent again because a connection had gone.
    pub(super) resent: bool,
    /// Its place among the backend's retries, until it is answered.
    granted: Option<Granted>,
    /// When it may be sent for the first time.
    ready: Instant,
}

impl<'a> Flight<'a> {
    pub(super) fn new(way: &'a Way<'a>, progress: &'a mut Progress) -> Self {
        let (tried, ready) = (SmallVec::new(), way.ready);
        Self { way, progress, tried, connects: 0, retries: 0, resent: false, granted: None, ready }
    }

    /// Sends it, once it is let in, until an answer or a failure is the last word. What is rare on the way is boxed, and what
    /// need not be a future of its own is none: each is copied into the one around it.
    pub(super) async fn fly(
        &mut self,
        slot: &mut Slot,
        upload: Option<&Upload>,
    ) -> Result<(Answered, Lease), Error> {
        let backend = self.way.backend;
        let admitted = match &backend.limits {
            None => None,
            Some(limits) => {
                let admitted = Box::pin(Admitted::at(limits, &backend.name)).await?;
                self.ready = admitted.since();
                Some(admitted)
            }
        };
        let Some(outgoing) = &*slot else {
            return Err(Error::unsent(Reason::ProxyInternalError, "there is no request to send"));
        };
        let spare = Spare::new(self.way, outgoing, upload);
        if self.way.policy.retry.is_some() {
            backend.budget.request(self.way.started);
        }
        let flown = loop {
            let now = if self.progress.attempts == 0 { self.ready } else { Instant::now() };
            let mut one = match self.begin(now) {
                Ok(one) => one,
                Err(error) => break Err(error),
            };
            self.progress.under_way = Some(now);
            let outcome = match self.hedge_delay(&spare) {
                None => attempt(self.way, &one.pool, slot, self.resent, now).await,
                Some(delay) => Box::pin(hedge::race(self, &mut one, slot, &spare, (delay, now))).await,
            };
            self.progress.under_way = None;
            let next = match outcome {
                Ok((answered, lease)) => {
                    let Some((next, again)) = self.after_response(&mut one, &answered.response, &spare)
                    else {
                        break Ok((answered, lease.with_load(one.in_flight)));
                    };
                    drop((answered, lease, one.in_flight));
                    self.tried.push(one.at);
                    *slot = Some(again);
                    next
                }
                Err(failed) => {
                    self.progress.reached |= failed.error.reached;
                    if let Some(failure) = upload.and_then(Upload::failure) {
                        break Err(failure.with_reached(self.progress.reached));
                    }
                    self.note(&mut one, &failed);
                    // It is not there while a retry waits.
                    drop(one);
                    *slot =
                        slot.take().and_then(|outgoing| spare.renewed(outgoing)).or_else(|| spare.again());
                    let Some(next) = self.after_failure(&failed, &spare, slot.is_some(), now) else {
                        break Err(failed.error);
                    };
                    next
                }
            };
            if let Next::After(wait) = next {
                Box::pin(tokio::time::sleep(wait)).await;
            }
        };
        match admitted {
            None => flown,
            Some(admitted) => self.leave(admitted, flown),
        }
    }

    /// What becomes of its place among the backend's requests.
    fn leave(
        &self,
        admitted: Admitted,
        flown: Result<(Answered, Lease), Error>,
    ) -> Result<(Answered, Lease), Error> {
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

    /// Begins an attempt at an endpoint.
    fn begin(&mut self, now: Instant) -> Result<Try, Error> {
        let (at, pool) = self.pick(now)?;
        self.progress.attempts += 1;
        let in_flight = pool.endpoint().load.start(now).watched(self.way.backend.outliers.as_ref());
        Ok(Try { at, pool, in_flight })
    }

    /// The endpoint for the next attempt.
    fn pick(&mut self, now: Instant) -> Result<(usize, Rc<Pool>), Error> {
        let backend = self.way.backend;
        let preferred = self.way.prefer.filter(|at| {
            let usable = backend.loads.get(*at).is_some_and(|load| load.available(now));
            usable && self.progress.attempts == 0
        });
        let picked = preferred.or_else(|| {
            choose(self.way, self.progress, &self.tried, now).or_else(|| {
                // All were tried: a retry of the route begins anew.
                self.tried.clear();
                choose(self.way, self.progress, &[], now)
            })
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

    /// Another endpoint for the same request while it is under way at this one, if there is another.
    pub(super) fn beside(&mut self, at: usize, now: Instant) -> Option<Try> {
        let mut tried = self.tried.clone();
        tried.push(at);
        let at = choose(self.way, self.progress, &tried, now)?;
        let pool = self.way.pools.get(at)?.clone();
        let in_flight = pool.endpoint().load.start(now).watched(self.way.backend.outliers.as_ref());
        Some(Try { at, pool, in_flight })
    }

    /// After how long this attempt may have another beside it.
    fn hedge_delay(&self, spare: &Spare<'_>) -> Option<Duration> {
        let retry = self.way.policy.retry.as_ref()?;
        let delay = retry.hedge_delay?;
        (spare.idempotent && self.retries < retry.attempts && !self.way.speak.upgrades()).then_some(delay)
    }

    /// Whether a response is not the last word: when it goes on then, and with which request.
    fn after_response(
        &mut self,
        one: &mut Try,
        response: &Response<Incoming>,
        spare: &Spare<'_>,
    ) -> Option<(Next, Outgoing)> {
        if self.hear(one, response).is_some() {
            return self.after_unreached(response, spare);
        }
        if let Some(reason) = proof::lost(&one.pool, response).filter(|_| spare.idempotent)
            && let Some(again) = spare.again()
            && self.resends_lost(reason == Reason::ConnectionRefused)
        {
            return Some((Next::AtOnce, again));
        }
        let why = self.wanted(response, spare)?;
        self.later(why, response, spare)
    }

    /// One of the route's retries, after such a response.
    fn later(
        &mut self,
        why: Again,
        response: &Response<Incoming>,
        spare: &Spare<'_>,
    ) -> Option<(Next, Outgoing)> {
        self.way.policy.retry.as_ref()?;
        let again = self.spared(spare)?;
        let next = self.admit(why, wait::asked(response, SystemTime::now()))?;
        Some((next, again))
    }

    /// Lets the balancer know of a response, and notes whether it says that the application was not reached.
    pub(super) fn hear(&mut self, one: &mut Try, response: &Response<Incoming>) -> Option<Reason> {
        let (endpoint, now) = (one.pool.endpoint(), Instant::now());
        let unreached = proof::unreached(&one.pool, response);
        match unreached {
            // As where no connection is made: it says nothing of how fast it will be when it is back.
            Some(reason) if reason.source() == Source::Callee => {
                endpoint.load.failed(now);
                one.in_flight.unconnected(now);
            }
            // The sidecar refuses it: the way there is well.
            Some(_) => endpoint.load.succeeded(),
            None => {
                verdict::answered(&mut one.in_flight, response, now);
                endpoint.load.succeeded();
                self.progress.reached = true;
            }
        }
        self.progress.unreached = unreached;
        unreached
    }

    /// What follows where a sidecar says that its application was not reached: the same as where no connection was made.
    fn after_unreached(
        &mut self,
        response: &Response<Incoming>,
        spare: &Spare<'_>,
    ) -> Option<(Next, Outgoing)> {
        // What the caller itself is to blame for would be refused elsewhere too, and what fails on purpose is to fail.
        if matches!(self.progress.unreached, Some(Reason::FaultInjected | Reason::HttpRequestDenied)) {
            return None;
        }
        let status = response.status();
        let listed =
            self.way.policy.retry.as_ref().is_some_and(|retry| retry.codes.contains(&status.as_u16()));
        if !(status.is_server_error() || listed) {
            return None;
        }
        if status.is_server_error() && self.elsewhere() {
            return Some((Next::AtOnce, self.spared(spare)?));
        }
        self.later(Again::Unreached, response, spare)
    }

    /// Whether there is another endpoint to try for this attempt, where this one turned out not to be reachable.
    fn elsewhere(&mut self) -> bool {
        self.connects += 1;
        let others = self.connects < self.way.backend.loads.len().min(MAX_CONNECT_TRIES);
        if others {
            self.progress.again = Some(Again::Unreached);
        }
        others
    }

    /// Whether the route sends a request again after such a response, and why.
    pub(super) fn wanted(&mut self, response: &Response<Incoming>, spare: &Spare<'_>) -> Option<Again> {
        let retry = self.way.policy.retry.as_ref()?;
        if retry.codes.contains(&response.status().as_u16()) {
            if spare.idempotent {
                return Some(Again::Status);
            }
            self.progress.denied = Some(Denied::Unsafe);
            return None;
        }
        // Only an answer that is nothing but its trailers: of any other the caller has seen something already, or will.
        let refused = !retry.grpc_statuses.is_empty()
            && response.body().is_end_stream()
            && grpc::status(response.headers()).is_some_and(|status| retry.grpc_statuses.contains(status));
        refused.then_some(Again::GrpcStatus)
    }

    /// The request once more.
    pub(super) fn spared(&mut self, spare: &Spare<'_>) -> Option<Outgoing> {
        let again = spare.again();
        if again.is_none() {
            self.progress.denied = Some(Denied::Body);
        }
        again
    }

    /// Lets the balancer know of a failure.
    pub(super) fn note(&mut self, one: &mut Try, failed: &Failed) {
        let now = Instant::now();
        self.progress.reached |= failed.error.reached;
        match failed.phase {
            Phase::Connect => {
                let endpoint = one.pool.endpoint();
                // Else it may have waited for what others have, and nothing was tried.
                if failed.error.reason != Reason::HttpResponseTimeout || !self.way.is_crowded() {
                    verdict::unconnected(&mut one.in_flight, endpoint, self.way.dialer, &failed.error);
                }
                self.tried.push(one.at);
            }
            Phase::New => {
                one.in_flight.failure(now);
                self.tried.push(one.at);
            }
            // Not the endpoint's fault: it may close a connection that nobody uses. That it resets a stream is.
            Phase::Reused => {
                if failed.error.reached && failed.error.reason == Reason::HttpResponseIncomplete {
                    one.in_flight.failure(now);
                }
            }
        }
    }

    /// What follows a failure of an attempt that began then; `whole` says whether there is all of the request to send.
    fn after_failure(
        &mut self,
        failed: &Failed,
        spare: &Spare<'_>,
        whole: bool,
        began: Instant,
    ) -> Option<Next> {
        let Failed { error, phase } = failed;
        if spare.is_abandoned() {
            // The application has ended the connection because the caller has.
            return None;
        }
        if error.reached && !spare.idempotent {
            self.progress.denied = self.way.policy.retry.as_ref().map(|_| Denied::Unsafe);
            return None;
        }
        if !whole {
            self.progress.denied = self.way.policy.retry.as_ref().map(|_| Denied::Body);
            return None;
        }
        let at_once = match phase {
            Phase::Connect => !self.has_waited(error, began) && self.elsewhere(),
            Phase::New | Phase::Reused => self.resends(failed),
        };
        if at_once {
            return Some(Next::AtOnce);
        }
        let why = match error.reason {
            _ if !error.reached => Again::Unreached,
            Reason::HttpResponseTimeout => Again::Timeout,
            _ => Again::Lost,
        };
        self.admit(why, Duration::ZERO)
    }

    /// Whether an attempt that began then has waited in vain for one of the connections that its backend may have: they are
    /// for all endpoints together.
    fn has_waited(&self, error: &Error, began: Instant) -> bool {
        let room = self.way.dialer.room.as_ref().filter(|_| error.reason == Reason::ConnectionLimitReached);
        room.is_some_and(|room| began.elapsed() >= room.patience())
    }

    /// Whether a request is sent again at once, and but once, because its connection had gone or it was not processed.
    /// A new connection that breaks may be the request's own doing: that counts against the backend's budget, and is left to
    /// who called where there is no other endpoint. Else each sidecar on the way would add its share to what one adds.
    fn resends(&mut self, Failed { error, phase }: &Failed) -> bool {
        if self.resent {
            return false;
        }
        let gone = error.reason == Reason::ConnectionTerminated;
        let free = !error.reached || (gone && *phase == Phase::Reused);
        self.resent = free || (gone && self.granted_elsewhere());
        if self.resent {
            self.progress.again = Some(if error.reached { Again::Lost } else { Again::Unreached });
        }
        self.resent
    }

    /// The same where the connection that broke was the one of the endpoint's sidecar to its application; with `kept`, an
    /// application that is gone has left a kept connection behind.
    fn resends_lost(&mut self, kept: bool) -> bool {
        if self.resent || self.way.backend.loads.len() < 2 {
            return false;
        }
        self.resent = kept || self.granted_elsewhere();
        if self.resent {
            self.progress.again = Some(Again::Lost);
        }
        self.resent
    }

    /// Whether there is another endpoint, and the backend's budget grants another attempt.
    fn granted_elsewhere(&mut self) -> bool {
        // The one before is over.
        self.granted = None;
        let backend = self.way.backend;
        self.granted = (backend.loads.len() > 1).then(|| backend.budget.admit(Instant::now()).ok()).flatten();
        self.granted.is_some()
    }

    /// Admits one of the route's retries, to be made after a wait: at least as long as the backend `asked` for.
    fn admit(&mut self, why: Again, asked: Duration) -> Option<Next> {
        let way = self.way;
        let retry = way.policy.retry.as_ref()?;
        let admitted = self.wait(retry, asked).and_then(|wait| self.take(retry).map(|()| wait));
        self.progress.denied = admitted.err();
        let wait = admitted.ok()?;
        self.progress.again = Some(why);
        Some(Next::After(wait))
    }

    /// How long to wait before the next retry.
    fn wait(&self, retry: &Retrying, asked: Duration) -> Result<Duration, Denied> {
        if self.retries >= retry.attempts {
            return Err(Denied::Attempts);
        }
        if asked > retry.max_backoff {
            return Err(Denied::RetryAfter);
        }
        let mut random = self.way.random.borrow_mut();
        let wait = backoff(retry.backoff, retry.max_backoff, self.retries + 1, &mut random);
        // Not all that were told the same come back at the same moment.
        let wait = if asked.is_zero() { wait } else { wait.max(asked + retry.backoff.mul_f64(random.f64())) };
        match self.way.deadline {
            Some(deadline) if Instant::now() + wait >= deadline => Err(Denied::Deadline),
            _ => Ok(wait),
        }
    }

    /// Takes one retry out of what the route and the backend's budget allow.
    pub(super) fn take(&mut self, retry: &Retrying) -> Result<(), Denied> {
        if self.retries >= retry.attempts {
            return Err(Denied::Attempts);
        }
        // The one before is over.
        self.granted = None;
        self.granted = Some(self.way.backend.budget.admit(Instant::now())?);
        self.retries += 1;
        self.connects = 0;
        Ok(())
    }
}

/// An endpoint other than these.
fn choose(way: &Way<'_>, progress: &mut Progress, tried: &[usize], now: Instant) -> Option<usize> {
    let (backend, wish) = (way.backend, Wish { tried, hash: way.hash });
    let picked = backend.balancer.pick(&backend.loads, wish, now, &mut way.random.borrow_mut())?;
    progress.panic |= picked.panic;
    Some(picked.at)
}

/// Sends the request in `slot` to an endpoint, and waits for the response's head. With `fresh`, HTTP/1.1 takes a connection of
/// its own.
pub(super) async fn attempt(
    way: &Way<'_>,
    pool: &Rc<Pool>,
    slot: &mut Slot,
    fresh: bool,
    now: Instant,
) -> Outcome {
    let wire = match (way.speak, &pool.endpoint().security) {
        (Speak::Http2 | Speak::Http2Upgrade, _) => Wire::Http2,
        (Speak::Http1, Security::Mesh { .. }) => MESH_HTTP1,
        (Speak::Http1 | Speak::Http1Upgrade, _) => Wire::Http1,
    };
    if way.timed_call
        && let (Some(deadline), Some(outgoing)) = (way.deadline, slot.as_mut())
    {
        let left = deadline.saturating_duration_since(Instant::now());
        grpc::timeout::write(outgoing.request.headers_mut(), left);
    }
    let limit = way.policy.attempt_timeout;
    let mut timer = pin!(limit.map(tokio::time::sleep));
    let sent = {
        let sending = Sending { limits: way.limits, fresh, now };
        let mut sent = pin!(pool.send(wire, slot, way.dialer, sending));
        poll_fn(|cx| poll_in_time(sent.as_mut(), timer.as_mut(), cx)).await
    };
    sent.unwrap_or_else(|| {
        let (address, limit) = (pool.endpoint().address, limit.unwrap_or_default());
        let details = format!("{address} did not answer within the backendRequest timeout of {limit:?}");
        // Who still waits for a connection has the request still in its slot.
        Err(if slot.is_some() {
            Failed { error: Error::unsent(Reason::HttpResponseTimeout, details), phase: Phase::Connect }
        } else {
            Failed { error: Error::sent(Reason::HttpResponseTimeout, details), phase: Phase::New }
        })
    })
}

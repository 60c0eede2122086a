//! The way of a request to a backend: pick an endpoint, take a connection, send; and again, where that is safe and the
//! route wants it. `flight.rs` reads top to bottom.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

use crate::body::Upload;
use crate::connect::Dialer;
use crate::endpoint::Backend;
use crate::error::{Error, Reason};
use crate::h1::Limits;
use crate::message::Answered;
use crate::pool::{Lease, Pools, Slot};
use crate::verdict;

mod flight;
mod hedge;
mod policy;
mod proof;
mod reason;
mod spare;
mod wait;

pub use policy::{GrpcStatuses, Policy, Retrying};
pub use proof::UNREACHED;
pub use reason::{Again, Denied};

use flight::Flight;

/// Where a request goes, and by which means.
#[derive(Debug)]
pub struct Way<'a> {
    /// The backend.
    pub backend: &'a Backend,
    /// This worker's connections to its endpoints.
    pub pools: &'a Pools,
    /// What the rule says.
    pub policy: &'a Policy,
    /// How connections are made.
    pub dialer: &'a Dialer,
    /// Whether the application must be spoken to in HTTP/2, or must not be because the request is an upgrade.
    pub speak: Speak,
    /// When the request came.
    pub started: Instant,
    /// When all was there that it had to wait for before it could be sent.
    pub ready: Instant,
    /// Until when the response's head must have come.
    pub deadline: Option<Instant>,
    /// Whether it is a call of gRPC that says how long its caller waits. Each attempt says how long that still is.
    pub timed_call: bool,
    /// How much header a response may have.
    pub limits: Limits,
    /// The endpoint that takes it if it can, by its place in the backend: an earlier request went there.
    pub prefer: Option<usize>,
    /// The hash of what decides which endpoint takes it, where the backend goes by one.
    pub hash: Option<u64>,
    /// This worker's randomness.
    pub random: &'a RefCell<fastrand::Rng>,
}

impl Way<'_> {
    /// Whether the backend has as many connections as it may, so that who has none yet waits for one.
    fn is_crowded(&self) -> bool {
        self.dialer.room.as_ref().is_some_and(|room| room.is_full())
    }
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
    /// Why it was sent again, the last time that it was.
    pub again: Option<Again>,
    /// Why it was not sent again once more, where the route would have.
    pub denied: Option<Denied>,
    /// Whether a byte of it can have reached an application.
    pub reached: bool,
    /// Why not, where a response is its endpoint's sidecar's own, which says so.
    pub unreached: Option<Reason>,
    /// Whether its endpoint was chosen although so few were well that all were used.
    pub panic: bool,
    /// When the attempt was begun that is under way.
    pub under_way: Option<Instant>,
}

/// Sends the request in `slot`, whose body is `upload`'s, to an endpoint of the backend, and waits for the response's head.
///
/// It is sent again
/// - at once and elsewhere, if no connection could be made, by us or by the endpoint's sidecar, whatever its method;
/// - at once, but once, if not a byte of it was written or HTTP/2 says that it was not processed, whatever its method;
/// - at once, but once, if its connection broke before the response, as those do that an application leaves behind when
///   it ends, if it is idempotent; within the backend's budget, unless the connection was a kept one. Elsewhere, where it
///   was the one of the endpoint's sidecar to its application;
/// - after a wait, as often as the route says and the backend's budget allows, after the route's statuses, a lost
///   connection or a timeout, if it is idempotent; if it is not, only where it provably did not reach the application, or
///   was answered by a status of gRPC that the route names;
/// - beside the first, elsewhere, if it is idempotent and was not answered within the route's hedge delay.
///
/// # Errors
/// Why there is no response. It has `reached` the application if any attempt may have.
pub async fn forward(
    way: &Way<'_>,
    slot: &mut Slot,
    upload: Option<&Upload>,
    progress: &mut Progress,
) -> Result<(Answered, Lease), Error> {
    let interim = slot.as_ref().map(|outgoing| outgoing.interim.clone()).unwrap_or_default();
    let mut timer = pin!(way.deadline.map(|deadline| tokio::time::sleep_until(deadline.into())));
    let flown = {
        let mut flight = Flight::new(way, progress);
        let mut flown = pin!(flight.fly(slot, upload));
        poll_fn(|cx| {
            let polled = poll_in_time(flown.as_mut(), timer.as_mut(), cx);
            match interim.silence().filter(|_| polled.is_pending()) {
                Some(error) => Poll::Ready(Some(Err(error))),
                None => polled,
            }
        })
        .await
    };
    let flown = flown.unwrap_or_else(|| Err(late(way, slot.is_some(), progress)));
    flown.map_err(|error| {
        let reached = error.reached || progress.reached;
        error.with_reached(reached)
    })
}

/// What a future yields, or `None` once the timer has run out, if there is one. (`tokio::time::timeout` would be one more
/// future around it, and a copy of it.)
fn poll_in_time<F: Future>(
    future: Pin<&mut F>,
    timer: Pin<&mut Option<Sleep>>,
    cx: &mut Context<'_>,
) -> Poll<Option<F::Output>> {
    match (future.poll(cx), timer.as_pin_mut()) {
        (Poll::Ready(output), _) => Poll::Ready(Some(output)),
        (Poll::Pending, Some(timer)) => timer.poll(cx).map(|()| None),
        (Poll::Pending, None) => Poll::Pending,
    }
}

/// What is said once the deadline has passed; `unsent`: while there was no connection for the request.
fn late(way: &Way<'_>, unsent: bool, progress: &Progress) -> Error {
    let limit =
        way.deadline.map(|deadline| deadline.saturating_duration_since(way.started)).unwrap_or_default();
    let of_route = way.policy.request_timeout.is_some_and(|of_route| of_route <= limit);
    let whose = if of_route || !way.timed_call { "request timeout" } else { "call's own timeout" };
    if of_route && !(unsent && way.is_crowded()) {
        // How long its caller waits says nothing of an endpoint, nor does what others have.
        verdict::too_late(way.backend, progress);
    }
    Error::sent(Reason::HttpResponseTimeout, format!("no response within the {whose} of {limit:?}"))
}

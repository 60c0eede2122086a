//! A second attempt beside the first, where that has not been answered for a while: the first good answer counts, and the
//! other attempt is given up. Only of requests whose method is idempotent: a status of gRPC that a route names says that an
//! answered call may be sent again, not that it may be carried out twice at a time.

use std::pin::pin;
use std::time::{Duration, Instant};

use super::flight::{Flight, Outcome, Try, attempt};
use super::spare::Spare;
use super::{Again, Denied, proof};
use crate::message::Outgoing;
use crate::pool::Slot;

/// Makes the attempt `one` at `now`, and after `delay` another beside it, if there is another endpoint, the body is kept, and the route's
/// attempts and the backend's budget allow it. Gives what came of the one that counts, which then is `one`.
///
/// What is given up is dropped: over HTTP/1.1 its connection is closed, over HTTP/2 its stream is reset.
pub(super) async fn race(
    flight: &mut Flight<'_>,
    one: &mut Try,
    slot: &mut Slot,
    spare: &Spare<'_>,
    (delay, now): (Duration, Instant),
) -> Outcome {
    let (way, fresh, pool) = (flight.way, flight.resent, one.pool.clone());
    let mut first = pin!(attempt(way, &pool, slot, fresh, now));
    if let Ok(outcome) = tokio::time::timeout(delay, &mut first).await {
        return outcome;
    }
    let Some((mut other, outgoing)) = begin(flight, one.at, spare) else { return first.await };
    let (pool, mut slot) = (other.pool.clone(), Some(outgoing));
    let mut second = pin!(attempt(way, &pool, &mut slot, fresh, Instant::now()));
    let (outcome, by_first) = tokio::select! {
        biased;
        outcome = &mut first => (outcome, true),
        outcome = &mut second => (outcome, false),
    };
    let (mut winner, mut loser) = if by_first { (&mut *one, &mut other) } else { (&mut other, &mut *one) };
    let outcome = if is_good(flight, winner, &outcome, spare) {
        if !by_first {
            // It has taken longer than the second, and would have taken more. Of that nothing is known: it has just begun.
            loser.in_flight.response(Instant::now());
        }
        outcome
    } else {
        give_up(flight, winner, outcome);
        std::mem::swap(&mut winner, &mut loser);
        if by_first { second.await } else { first.await }
    };
    flight.progress.endpoint = Some(winner.at);
    if winner.at == other.at {
        std::mem::swap(one, &mut other);
    }
    outcome
}

/// The second attempt, with its endpoint and its request.
fn begin(flight: &mut Flight<'_>, at: usize, spare: &Spare<'_>) -> Option<(Try, Outgoing)> {
    let retry = flight.way.policy.retry.as_ref()?;
    if !spare.is_whole() {
        flight.progress.denied = Some(Denied::Body);
        return None;
    }
    let other = flight.beside(at, Instant::now())?;
    let outgoing = flight.spared(spare)?;
    if let Err(denied) = flight.take(retry) {
        flight.progress.denied = Some(denied);
        return None;
    }
    flight.progress.attempts += 1;
    flight.progress.again = Some(Again::Hedge);
    Some((other, outgoing))
}

/// Whether an outcome is a response after which the request would not be sent again.
fn is_good(flight: &mut Flight<'_>, one: &Try, outcome: &Outcome, spare: &Spare<'_>) -> bool {
    let Ok((answered, _)) = outcome else { return false };
    let response = &answered.response;
    proof::unreached(&one.pool, response).is_none() && flight.wanted(response, spare).is_none()
}

/// Notes what came of an attempt that does not count.
fn give_up(flight: &mut Flight<'_>, one: &mut Try, outcome: Outcome) {
    match outcome {
        Ok((answered, _)) => drop(flight.hear(one, &answered.response)),
        Err(failed) => flight.note(one, &failed),
    }
}

//! The load: requests at a constant rate that does not wait for answers, or as fast as the answers come.

use std::{
    future::Future,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    caller::CallError,
    timer::{Timer, Wait},
};

/// How long a request may take before it counts as an error.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How far a constant rate may fall behind before what is left of it counts as errors.
const BEHIND: Duration = Duration::from_secs(10);

/// One connection's worth of a caller: sends a request and waits for its whole answer.
pub trait Call: Send + 'static {
    /// Sends the next request.
    fn call(&mut self) -> impl Future<Output = Result<(), CallError>> + Send;
}

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// The n-th of `requests` is due n / `per_second` seconds after the start, whatever became of those before it.
    /// Its latency counts from then, so one that had to wait for a free connection is not left out (Gil Tene's
    /// "coordinated omission").
    Open {
        /// Requests in a second.
        per_second: u32,
        /// How many there are.
        requests: u64,
    },
    /// Each connection sends its next request when it has the answer to the last, for `time`.
    Closed {
        /// How long.
        time: Duration,
    },
}

/// What was seen.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Of the requests that were answered, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Requests that failed, were not answered in 10 s, or could not be sent because the rate was 10 s behind.
    pub errors: u64,
    /// What went wrong first.
    pub first_error: Option<String>,
    /// From the start to the last answer.
    pub elapsed: Duration,
}

impl Measured {
    /// Nothing, yet.
    pub fn empty() -> Self {
        // Up to 60 s, three digits: the bounds are constants that hdrhistogram accepts.
        let latency = Histogram::new_with_bounds(100, 60_000_000_000, 3).unwrap_or_else(|_| unreachable!());
        Self { latency, errors: 0, first_error: None, elapsed: Duration::ZERO }
    }

    /// How many requests were answered.
    pub fn requests(&self) -> u64 {
        self.latency.len()
    }

    /// Adds what another round saw.
    pub fn merge(&mut self, other: &Self) {
        // The bounds are the same, so nothing is out of range.
        let _ = self.latency.add(&other.latency);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or_else(|| other.first_error.clone());
        self.elapsed += other.elapsed;
    }
}

/// Sends requests by all `callers` at once, and gives them back with what they saw.
///
/// # Errors
///
/// If the system has no timer left to give.
pub async fn run<C: Call>(callers: Vec<C>, pace: Pace) -> io::Result<(Vec<C>, Measured)> {
    let timers = callers.iter().map(|_| Timer::new()).collect::<io::Result<Vec<_>>>()?;
    run_with(callers.into_iter().zip(timers), pace).await
}

pub(crate) async fn run_with<C: Call, W: Wait>(
    callers: impl IntoIterator<Item = (C, W)>,
    pace: Pace,
) -> io::Result<(Vec<C>, Measured)> {
    let schedule = Arc::new(Schedule::new(pace));
    let mut tasks = JoinSet::new();
    for (mut caller, mut timer) in callers {
        let schedule = Arc::clone(&schedule);
        tasks.spawn(async move {
            while let Some(due) = schedule.next() {
                timer.until(due).await?;
                let answer = tokio::time::timeout(GIVE_UP, caller.call()).await;
                schedule.record(due, answer.unwrap_or(Err(CallError::TimedOut)));
            }
            Ok::<_, io::Error>(caller)
        });
    }
    let callers = tasks.join_all().await.into_iter().collect::<io::Result<Vec<_>>>()?;
    let measured = schedule.state().measured.clone();
    Ok((callers, measured))
}

/// What the connections share: which request is next, and what was seen of those before.
struct Schedule {
    pace: Pace,
    start: Instant,
    state: Mutex<State>,
}

struct State {
    next: u64,
    measured: Measured,
}

impl Schedule {
    fn new(pace: Pace) -> Self {
        let state = State { next: 0, measured: Measured::empty() };
        Self { pace, start: Instant::now(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the next request is due; none is left once this is `None`.
    fn next(&self) -> Option<Instant> {
        let now = Instant::now();
        let (per_second, requests) = match self.pace {
            Pace::Closed { time } => return (now < self.start + time).then_some(now),
            Pace::Open { per_second, requests } => (per_second, requests),
        };
        let mut state = self.state();
        if state.next >= requests {
            return None;
        }
        let due = self.start + Duration::from_secs_f64(state.next as f64 / f64::from(per_second.max(1)));
        if now > due + BEHIND {
            state.measured.errors += requests - state.next;
            state.next = requests;
            state.measured.first_error.get_or_insert_with(|| CallError::Behind.to_string());
            return None;
        }
        state.next += 1;
        Some(due)
    }

    fn record(&self, due: Instant, answer: Result<(), CallError>) {
        let now = Instant::now();
        let measured = &mut self.state().measured;
        measured.elapsed = now - self.start;
        match answer {
            Ok(()) => measured.latency.saturating_record((now - due).as_nanos() as u64),
            Err(error) => {
                measured.errors += 1;
                measured.first_error.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests;

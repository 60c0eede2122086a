//! Sending requests when they are due: to the lane that has been free for longest or, where none is, to the next that
//! will be.
//!
//! One timer wakes for all of them, and whoever waits for a lane waits in one queue, so that a stall of one connection
//! delays nobody who could be sent on another.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{task::JoinSet, task::yield_now, time::Instant};

use super::{Measured, error::CallError, schedule::Schedule};
use crate::timer::Wait;

/// How long after the end answers are waited for, and how far the load may fall behind its rate, before the rest are
/// errors.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long before a request is due the generator wakes, to be awake when it is. (A virtual core needs up to 150 µs often
/// enough to be seen at the 99th percentile.)
const EARLY: Duration = Duration::from_micros(500);

/// How long a lane takes to be ready for what it is told to send, at most.
const HEAD_START: Duration = Duration::from_micros(1);

/// What sends one request at a time: a connection, or a stream of one.
pub(super) trait Lane: Send + 'static {
    /// Sends the next request, and waits for the whole answer.
    fn call(&mut self) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Makes ready for the next, outside of what is measured: connects where there is no connection, or not any more.
    fn prepare(&mut self) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Another that takes its place where it is lost.
    fn fresh(&self) -> Self;
}

/// When requests are sent, and for how long.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// When each is due; none where each lane sends its next when it has the answer to the last.
    pub(super) schedule: Option<Schedule>,
    /// For how long.
    pub(super) time: Duration,
    /// Whether the thread stays awake while a request is due soon or under way.
    pub(super) awake: bool,
}

/// Sends requests by all `lanes` at once, and says what was seen. Those that are stuck at the end are replaced.
pub(super) async fn run<L: Lane, W: Wait>(
    lanes: &mut Vec<L>,
    pace: Pace,
    mut timer: W,
) -> io::Result<Measured> {
    let fresh: Vec<L> = lanes.iter().map(Lane::fresh).collect();
    let board = Arc::new(Board::new(lanes.len(), &pace));
    let mut tasks = JoinSet::new();
    for (number, lane) in std::mem::replace(lanes, fresh).into_iter().enumerate() {
        tasks.spawn(work(lane, number, Arc::clone(&board)));
    }
    let end = board.start + pace.time;
    if let Some(schedule) = pace.schedule {
        dispatch(schedule, &board, &mut timer, pace.awake).await?;
    }
    timer.until(end).await?;
    board.close();
    let drained = tokio::time::timeout_at(end + PATIENCE, async {
        while let Some(done) = tasks.join_next().await {
            if let Ok((number, lane)) = done
                && let Some(place) = lanes.get_mut(number)
            {
                *place = lane;
            }
        }
    });
    let stuck = drained.await.is_err();
    tasks.shutdown().await;
    Ok(board.finish(stuck))
}

async fn work<L: Lane>(mut lane: L, number: usize, board: Arc<Board>) -> (usize, L) {
    while let Some(due) = board.next(number).await {
        let answer = lane.call().await;
        board.record(due, answer);
        // If it fails, the next call tries again, and says so.
        let _ = lane.prepare().await;
    }
    (number, lane)
}

async fn dispatch<W: Wait>(
    mut schedule: Schedule,
    board: &Board,
    timer: &mut W,
    awake: bool,
) -> io::Result<()> {
    while let Some(due) = schedule.next() {
        let due = board.start + due;
        if awake {
            stay_awake(due, board, timer).await?;
        } else {
            timer.until(due).await?;
        }
        if !board.push(due) {
            board.give_up(schedule.left());
            break;
        }
    }
    Ok(())
}

/// Waits, but sleeps only where nothing can happen in the meantime: waking an idle core takes as long as what is measured,
/// and would be counted as the proxy's.
async fn stay_awake<W: Wait>(due: Instant, board: &Board, timer: &mut W) -> io::Result<()> {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        if left > EARLY && board.idle() {
            timer.until(due - EARLY).await?;
        } else {
            // Looks for what has come in, and returns at once.
            yield_now().await;
        }
    }
}

/// What the lanes share: who is free, what waits, and what was seen.
struct Board {
    start: Instant,
    end: Instant,
    /// Whether requests are due whenever a lane is free.
    saturated: bool,
    state: Mutex<State>,
}

struct State {
    slots: Vec<Slot>,
    /// The lanes that are free, the one that has been so for longest first.
    free: VecDeque<usize>,
    /// When those were due that no lane was free for.
    waiting: VecDeque<Instant>,
    /// Whether no more fall due.
    closed: bool,
    /// How many answers came after the end, and how long after it.
    late: Vec<u64>,
    measured: Measured,
}

/// Where a lane that is free is told what to do.
struct Slot {
    free: bool,
    due: Option<Instant>,
    waker: Option<Waker>,
}

impl Board {
    fn new(lanes: usize, pace: &Pace) -> Self {
        let saturated = pace.schedule.is_none();
        let head_start = if saturated { 0 } else { lanes as u32 };
        let start = Instant::now() + HEAD_START.saturating_mul(head_start);
        let measured = Measured { time: pace.time, ..Measured::empty() };
        let state = State {
            slots: (0..lanes).map(|_| Slot { free: true, due: None, waker: None }).collect(),
            free: (0..lanes).collect(),
            waiting: VecDeque::new(),
            closed: false,
            late: Vec::new(),
            measured,
        };
        Self { start, end: start + pace.time, saturated, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the request is due that this lane is to send; none is left once this is `None`.
    async fn next(&self, lane: usize) -> Option<Instant> {
        if self.saturated {
            let now = Instant::now();
            return (now < self.end).then(|| {
                self.state().measured.due += 1;
                now
            });
        }
        poll_fn(|cx| self.poll_next(lane, cx)).await
    }

    fn poll_next(&self, lane: usize, cx: &mut Context<'_>) -> Poll<Option<Instant>> {
        let mut state = self.state();
        let state = &mut *state;
        let Some(slot) = state.slots.get_mut(lane) else { return Poll::Ready(None) };
        if let Some(due) = slot.due.take() {
            state.measured.lag.saturating_record(since(due));
            return Poll::Ready(Some(due));
        }
        if !slot.free {
            if let Some(due) = state.waiting.pop_front() {
                return Poll::Ready(Some(due));
            }
            if state.closed {
                return Poll::Ready(None);
            }
            slot.free = true;
            state.free.push_back(lane);
        } else if state.closed {
            return Poll::Ready(None);
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// A request has fallen due. False if those before it wait for too long.
    fn push(&self, due: Instant) -> bool {
        let mut state = self.state();
        let state = &mut *state;
        state.measured.due += 1;
        let free = state.free.pop_front().and_then(|lane| state.slots.get_mut(lane));
        if let Some(slot) = free {
            slot.free = false;
            slot.due = Some(due);
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
            return true;
        }
        state.measured.lag.saturating_record(since(due));
        state.waiting.push_back(due);
        state.waiting.front().is_none_or(|first| since(*first) < PATIENCE.as_nanos() as u64)
    }

    /// Whether nothing is under way.
    fn idle(&self) -> bool {
        let state = self.state();
        state.free.len() == state.slots.len()
    }

    /// What waits and what has not fallen due yet are errors.
    fn give_up(&self, left: u64) {
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.waiting).len() as u64;
        state.measured.due += left;
        state.measured.fail(left + waiting, CallError::Behind);
    }

    /// No more fall due.
    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.slots.iter_mut().filter_map(|slot| slot.waker.take()).for_each(Waker::wake);
    }

    fn record(&self, due: Instant, answer: Result<(), CallError>) {
        let now = Instant::now();
        let mut state = self.state();
        state.measured.elapsed = now.saturating_duration_since(self.start);
        match answer {
            Ok(()) => {
                state.measured.answered += 1;
                state.measured.latency.saturating_record((now - due).as_nanos() as u64);
                if now > self.end {
                    state.late.push((now - self.end).as_nanos() as u64);
                }
            }
            Err(error) => state.measured.fail(1, error),
        }
    }

    fn finish(&self, stuck: bool) -> Measured {
        let mut state = self.state();
        let state = &mut *state;
        let measured = &mut state.measured;
        let unanswered = measured.due - measured.answered - measured.errors;
        if unanswered > 0 {
            let why = if stuck { CallError::TimedOut } else { CallError::Panicked };
            measured.fail(unanswered, why);
        }
        // In saturation every answer is the start of the next request: those after the end have no part in the rate.
        let grace = if self.saturated { 0 } else { measured.latency.min() };
        let late = state.late.iter().filter(|late| **late > grace).count() as u64;
        measured.in_time = measured.answered - late;
        measured.clone()
    }
}

impl Measured {
    fn fail(&mut self, requests: u64, error: CallError) {
        if requests > 0 {
            self.errors += requests;
            self.first_error.get_or_insert_with(|| error.to_string());
        }
    }
}

/// Nanoseconds.
fn since(due: Instant) -> u64 {
    Instant::now().saturating_duration_since(due).as_nanos() as u64
}

#[cfg(test)]
mod tests;

//! The cells in which one worker counts. Each is written by one thread only, so that adding is a load and a store
//! and no locked instruction; whoever scrapes reads them meanwhile and sums those of all workers.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::series::MAX_SERIES;

/// A number that one thread changes and others read.
#[derive(Default)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    pub(crate) fn subtract(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(amount), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The upper bounds of the durations of requests, in nanoseconds; one more bucket takes all beyond.
pub(crate) const REQUEST_BOUNDS: [u64; 14] = bounds([
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
]);

/// The upper bounds of the durations of connections that are not HTTP: 10 ms to a day.
pub(crate) const CONNECTION_BOUNDS: [u64; 14] = bounds([
    10_000,
    50_000,
    100_000,
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    900_000_000,
    3_600_000_000,
    14_400_000_000,
    86_400_000_000,
]);

/// Microseconds as nanoseconds.
const fn bounds(micros: [u64; 14]) -> [u64; 14] {
    let mut nanos = micros;
    let mut index = 0;
    while index < nanos.len() {
        nanos[index] *= 1_000;
        index += 1;
    }
    nanos
}

/// How many durations fell into each bucket, and their sum in nanoseconds.
#[derive(Default)]
pub(crate) struct Durations {
    pub(crate) buckets: [Cell; 15],
    pub(crate) sum: Cell,
}

impl Durations {
    pub(crate) fn observe(&self, bounds: &[u64; 14], duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // Counting is branchless, and quicker than a search among so few.
        let bucket: usize = bounds.iter().map(|&bound| usize::from(nanos > bound)).sum();
        self.buckets[bucket].add(1);
        self.sum.add(nanos);
    }
}

/// What one worker counts for one series of requests.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct RequestCell {
    pub(crate) in_flight: Cell,
    pub(crate) request_bytes: Cell,
    pub(crate) response_bytes: Cell,
    pub(crate) retries: Cell,
    pub(crate) retries_refused: Cell,
    pub(crate) durations: Durations,
    /// By status, 0 to 999; a page for each hundred that occurs.
    codes: [OnceLock<Box<[Cell; 100]>>; 10],
    /// Answers that the proxy made.
    answers: OnceLock<Box<[OnceLock<Answer>; ANSWERS]>>,
}

/// How many pairs of status and reason are told apart in a series. The reasons are a closed list, of which a rule can
/// meet a few.
const ANSWERS: usize = 32;

/// How often the proxy itself answered with a status for a reason.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    pub(crate) count: Cell,
}

impl RequestCell {
    /// Counts a finished request; a status beyond 999 is counted as 999.
    pub(crate) fn finished(&self, status: u16, reason: Option<&'static str>) {
        let status = status.min(999);
        if reason.is_some_and(|reason| self.answered(status, reason)) {
            return;
        }
        let page = self.codes[usize::from(status / 100)]
            .get_or_init(|| Box::new(std::array::from_fn(|_| Cell::default())));
        page[usize::from(status % 100)].add(1);
    }

    /// Whether there was room to count it with its reason.
    fn answered(&self, status: u16, reason: &'static str) -> bool {
        let answers = self.answers.get_or_init(|| Box::new([const { OnceLock::new() }; ANSWERS]));
        let answer = answers
            .iter()
            .map(|answer| answer.get_or_init(|| Answer { status, reason, count: Cell::default() }))
            .find(|answer| answer.status == status && answer.reason == reason);
        answer.inspect(|answer| answer.count.add(1)).is_some()
    }

    /// The finished requests, by status, that do not have a reason.
    pub(crate) fn codes(&self) -> impl Iterator<Item = (u16, u64)> {
        let pages = (0u16..).zip(&self.codes).filter_map(|(class, page)| Some((class, page.get()?)));
        pages
            .flat_map(|(class, page)| {
                (0u16..).zip(page.iter()).map(move |(code, cell)| (class * 100 + code, cell.get()))
            })
            .filter(|&(_, count)| count > 0)
    }

    pub(crate) fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.answers.get().into_iter().flat_map(|answers| answers.iter()).map_while(OnceLock::get)
    }
}

/// What one worker counts for one series of connections that are not HTTP.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct TcpCell {
    pub(crate) opened: Cell,
    pub(crate) closed: Cell,
    pub(crate) failed: Cell,
    pub(crate) sent: Cell,
    pub(crate) received: Cell,
    pub(crate) durations: Durations,
}

/// What one worker counts for one listener.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct ConnectionCell {
    pub(crate) opened: Cell,
    pub(crate) closed: Cell,
    /// By [`CallerTimeout`](crate::CallerTimeout).
    pub(crate) timed_out: [Cell; 7],
}

/// What one worker counts for the connections to one backend.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct BackendCell {
    /// By [`ConnectResult`](crate::ConnectResult).
    pub(crate) attempts: [Cell; 6],
    pub(crate) closed: Cell,
    /// By [`MirrorResult`](crate::MirrorResult).
    pub(crate) mirrored: [Cell; 3],
    /// Requests while so few endpoints are well that all are used.
    pub(crate) panicked: Cell,
}

/// All that one worker counts.
#[derive(Default)]
pub(crate) struct Block {
    pub(crate) requests: Table<RequestCell>,
    pub(crate) tcp: Table<TcpCell>,
    pub(crate) connections: Table<ConnectionCell>,
    pub(crate) backends: Table<BackendCell>,
}

/// How many series a part of a [`Table`] has.
const PART: usize = 64;
const PARTS: usize = MAX_SERIES / PART + 1;

/// Cells by the number of their series, each made when the worker first counts in it.
pub(crate) struct Table<C> {
    parts: [OnceLock<Box<Part<C>>>; PARTS],
}

type Part<C> = [OnceLock<Box<C>>; PART];

impl<C> Default for Table<C> {
    fn default() -> Self {
        Self { parts: [const { OnceLock::new() }; PARTS] }
    }
}

impl<C: Default> Table<C> {
    /// The cell of a series, for the worker.
    pub(crate) fn cell(&self, series: u16) -> &C {
        let number = usize::from(series).min(MAX_SERIES);
        let part = self.parts[number / PART].get_or_init(|| Box::new([const { OnceLock::new() }; PART]));
        part[number % PART].get_or_init(Box::default)
    }

    /// The cells there are, with the numbers of their series.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &C)> {
        let parts = self.parts.iter().enumerate().filter_map(|(part, cells)| Some((part, cells.get()?)));
        parts.flat_map(|(part, cells)| {
            cells
                .iter()
                .enumerate()
                .filter_map(move |(index, cell)| Some((part * PART + index, &**cell.get()?)))
        })
    }
}

//! Traffic at a constant rate, whose every request ends as a success or as a failure with its cause.
//!
//! The rate is open: a request begins when its time has come, whether those before it have ended or not, so that what is
//! slow is not asked less. Nothing is ever tried again here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

mod call;
mod raw;

use call::Callers;
pub use raw::{Ended, RawCaller};

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1.1, on as many connections as are needed at once; each is kept.
    Http1,
    /// HTTP/2, on one connection.
    Http2,
    /// A call of gRPC with one message each way, on one connection. A success has the status 0 and its own message.
    Unary,
    /// A call of gRPC with messages both ways: each is sent once the one before came back. On as many connections as it
    /// takes, with 100 such calls at once on each.
    Streaming {
        /// How many.
        messages: u32,
        /// How long is waited between two.
        gap: Duration,
    },
}

/// How many calls that last share a connection, about.
const STREAMS: f64 = 100.0;

/// What is asked for, and how often.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// What each request is.
    pub kind: Kind,
    /// How many begin in a second.
    pub per_second: u32,
    /// The method of HTTP; that of gRPC is always POST.
    pub method: Method,
    /// The path, which for gRPC must be one that echoes.
    pub path: String,
    /// How long one may take: after that it counts as a failure.
    pub patience: Duration,
}

impl Traffic {
    /// Requests that an [`crate::app::App`] answers: GETs, or calls of gRPC, each within ten seconds.
    pub fn new(kind: Kind, per_second: u32) -> Self {
        let path = match kind {
            Kind::Http1 | Kind::Http2 => "/status/200",
            Kind::Unary | Kind::Streaming { .. } => "/grpc/Echo",
        };
        let patience = Duration::from_secs(10);
        Self { kind, per_second, method: Method::GET, path: path.into(), patience }
    }

    /// Over how many connections of HTTP/2 the requests are spread. A sidecar takes 256 at once on each, so that more
    /// calls that last would wait for each other on one.
    fn shared(&self) -> usize {
        let Kind::Streaming { messages, gap } = self.kind else { return 1 };
        let at_once = gap.as_secs_f64() * f64::from(messages) * f64::from(self.per_second);
        1 + (at_once / STREAMS) as usize
    }
}

/// Traffic under way.
#[derive(Debug)]
pub struct Load {
    running: JoinHandle<Tally>,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<u64>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many requests were begun.
    pub requests: u64,
    /// How each failure came about, and how long after the beginning.
    pub failures: Vec<(Duration, String)>,
    /// How long the slowest took.
    pub slowest: Duration,
}

/// When a request began, how long it took, and why it is a failure, if it is.
type Ending = (Duration, Duration, Result<(), String>);

impl Tally {
    /// Counts the requests of both.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failures.extend(other.failures);
        self.slowest = self.slowest.max(other.slowest);
    }

    /// Takes note of how a request ended; one that panicked has failed, too.
    fn count(&mut self, begun: Instant, ended: Result<Ending, JoinError>) {
        match ended {
            Ok((at, took, ended)) => {
                self.slowest = self.slowest.max(took);
                self.failures.extend(ended.err().map(|why| (at, why)));
            }
            Err(error) => self.failures.push((begun.elapsed(), error.to_string())),
        }
    }

    /// That there were at least so many requests, and that none failed.
    ///
    /// # Panics
    /// If there were less, or one did; the causes are named.
    pub fn is_whole(&self, requests: u64) {
        // Each cause, how often, and when first and last.
        let mut causes = BTreeMap::<_, (usize, Duration, Duration)>::new();
        for (at, why) in &self.failures {
            let (times, first, last) = causes.entry(why).or_insert((0, *at, *at));
            (*times, *first, *last) = (*times + 1, (*first).min(*at), (*last).max(*at));
        }
        assert!(causes.is_empty(), "{} of {} failed: {causes:#?}", self.failures.len(), self.requests);
        assert!(self.requests >= requests, "{} requests, not {requests}", self.requests);
    }
}

impl Load {
    /// Begins traffic to the sidecar, or application, that listens at `at`.
    pub fn start(at: SocketAddr, traffic: Traffic) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (progress, ended) = watch::channel(0);
        let running = tokio::spawn(run(at, traffic, stopped, progress));
        Self { running, stop, ended }
    }

    /// Waits until so many more requests have ended, one way or the other.
    pub async fn more(&mut self, requests: u64) {
        let goal = *self.ended.borrow() + requests;
        // An error is traffic that has ended itself, which its end tells.
        let _ = self.ended.wait_for(|ended| *ended >= goal).await;
    }

    /// Begins no more requests, and waits for those under way.
    ///
    /// # Panics
    /// If the traffic itself did.
    #[allow(clippy::expect_used, reason = "a panic of the traffic is one of its test")]
    pub async fn end(self) -> Tally {
        self.stop.send_replace(true);
        self.running.await.expect("the traffic goes on until it is ended")
    }
}

async fn run(
    at: SocketAddr,
    traffic: Traffic,
    mut stopped: watch::Receiver<bool>,
    progress: watch::Sender<u64>,
) -> Tally {
    let callers = Arc::new(Callers::new(at, traffic.clone()));
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / traffic.per_second.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut under_way, mut tally) = (JoinSet::new(), Tally::default());
    loop {
        tokio::select! {
            biased;
            _ = stopped.changed() => break,
            Some(ended) = under_way.join_next() => {
                tally.count(begun, ended);
                progress.send_modify(|ended| *ended += 1);
            }
            _ = ticks.tick() => {
                tally.requests += 1;
                let callers = callers.clone();
                under_way.spawn(async move {
                    let started = Instant::now();
                    let ended = tokio::time::timeout(callers.patience(), callers.call()).await;
                    let late = || Err(format!("{:?}: no answer within {:?}", callers.kind(), callers.patience()));
                    let ended = ended.unwrap_or_else(|_| late());
                    (started - begun, started.elapsed(), ended)
                });
            }
        }
    }
    while let Some(ended) = under_way.join_next().await {
        tally.count(begun, ended);
    }
    tally
}

//! Traffic at a constant rate, whose every request ends as a success or as a failure with its cause.
//!
//! The rate is open: a request begins when its time has come, whether those before it have ended or not, so that what is
//! slow is not asked less. Nothing is ever tried again here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
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
    /// A call of gRPC with messages both ways, on one connection: each is sent once the one before came back.
    Streaming {
        /// How many.
        messages: u32,
        /// How long is waited between two.
        gap: Duration,
    },
}

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
}

/// Traffic under way.
#[derive(Debug)]
pub struct Load {
    running: JoinHandle<Tally>,
    stop: watch::Sender<bool>,
    succeeded: Arc<AtomicU64>,
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

impl Tally {
    /// Counts the requests of both.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failures.extend(other.failures);
        self.slowest = self.slowest.max(other.slowest);
    }

    fn count(&mut self, (at, took, ended): (Duration, Duration, Result<(), String>)) {
        self.slowest = self.slowest.max(took);
        self.failures.extend(ended.err().map(|why| (at, why)));
    }

    /// That there were at least so many requests, and that none failed.
    ///
    /// # Panics
    /// If there were less, or one did; the first failures are named.
    pub fn is_whole(&self, requests: u64) {
        let some: Vec<_> = self.failures.iter().take(8).collect();
        assert!(some.is_empty(), "{} of {} failed: {some:#?}", self.failures.len(), self.requests);
        assert!(self.requests >= requests, "{} requests, not {requests}", self.requests);
    }
}

impl Load {
    /// Begins traffic to the sidecar, or application, that listens at `at`.
    pub fn start(at: SocketAddr, traffic: Traffic) -> Self {
        let (stop, stopped) = watch::channel(false);
        let succeeded = Arc::<AtomicU64>::default();
        let running = tokio::spawn(run(at, traffic, stopped, succeeded.clone()));
        Self { running, stop, succeeded }
    }

    /// How many requests have succeeded so far.
    pub fn succeeded(&self) -> u64 {
        self.succeeded.load(Ordering::Relaxed)
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
    succeeded: Arc<AtomicU64>,
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
            Some(Ok(ended)) = under_way.join_next() => tally.count(ended),
            _ = ticks.tick() => {
                tally.requests += 1;
                let (callers, succeeded) = (callers.clone(), succeeded.clone());
                under_way.spawn(async move {
                    let started = Instant::now();
                    let ended = tokio::time::timeout(callers.patience(), callers.call()).await;
                    let late = || Err(format!("{:?}: no answer within {:?}", callers.kind(), callers.patience()));
                    let ended = ended.unwrap_or_else(|_| late());
                    succeeded.fetch_add(u64::from(ended.is_ok()), Ordering::Relaxed);
                    (started - begun, started.elapsed(), ended)
                });
            }
        }
    }
    while let Some(ended) = under_way.join_next().await {
        match ended {
            Ok(ended) => tally.count(ended),
            Err(error) => tally.failures.push((begun.elapsed(), error.to_string())),
        }
    }
    tally
}

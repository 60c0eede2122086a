use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use super::*;

/// The runtime's timer, which follows the paused clock.
struct Coarse;

impl Wait for Coarse {
    async fn until(&mut self, due: Instant) -> io::Result<()> {
        sleep_until(due).await;
        Ok(())
    }
}

/// A caller whose answers take `takes` of the (paused) clock, and that stalls once, for `stall`, at `stall_at`.
struct Fake {
    takes: Duration,
    stall_at: Instant,
    stall: Duration,
    sent: Arc<AtomicU64>,
}

impl Call for Fake {
    async fn call(&mut self) -> Result<(), CallError> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        if Instant::now() >= self.stall_at {
            self.stall_at += Duration::from_hours(1);
            sleep(self.stall).await;
        }
        sleep(self.takes).await;
        Ok(())
    }
}

struct Fakes {
    takes: Duration,
    stall: Duration,
    connections: usize,
}

impl Fakes {
    async fn run(self, pace: Pace) -> (u64, Measured) {
        let sent = Arc::new(AtomicU64::new(0));
        let stall_at = Instant::now() + Duration::from_secs(1);
        let (takes, stall) = (self.takes, self.stall);
        let fakes: Vec<_> = (0..self.connections)
            .map(|_| (Fake { takes, stall_at, stall, sent: Arc::clone(&sent) }, Coarse))
            .collect();
        let (callers, measured) = run_with(fakes, pace).await.unwrap();
        assert_eq!(callers.len(), self.connections);
        (sent.load(Ordering::Relaxed), measured)
    }
}

fn at(measured: &Measured, quantile: f64) -> Duration {
    Duration::from_nanos(measured.latency.value_at_quantile(quantile))
}

#[tokio::test(start_paused = true)]
async fn a_constant_rate_keeps_its_schedule() {
    let fakes = Fakes { takes: Duration::from_millis(3), stall: Duration::ZERO, connections: 8 };
    let (sent, measured) = fakes.run(Pace::Open { per_second: 100, requests: 500 }).await;
    assert_eq!((sent, measured.requests(), measured.errors), (500, 500, 0));
    // The last of 500 is due 4.99 s after the first.
    assert_eq!(measured.elapsed.as_millis(), 4993);
    assert!(at(&measured, 0.999) < Duration::from_millis(5), "{:?}", at(&measured, 0.999));
}

#[tokio::test(start_paused = true)]
async fn a_stall_delays_every_request_that_was_due_meanwhile() {
    let fakes = Fakes { takes: Duration::from_millis(1), stall: Duration::from_secs(1), connections: 1 };
    let (_, measured) = fakes.run(Pace::Open { per_second: 100, requests: 1000 }).await;
    assert_eq!(measured.requests(), 1000);
    assert!(at(&measured, 0.5) < Duration::from_millis(3));
    // About 110 of 1000 requests were due during the stall or while it was made up for.
    assert!(at(&measured, 0.95) > Duration::from_millis(300), "{:?}", at(&measured, 0.95));
    assert!(at(&measured, 0.999) > Duration::from_millis(950), "{:?}", at(&measured, 0.999));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_any_more_counts_as_errors() {
    // 30 s each are given up after 10 s, which leaves no time for the others.
    let fakes = Fakes { takes: Duration::from_secs(30), stall: Duration::ZERO, connections: 1 };
    let (sent, measured) = fakes.run(Pace::Open { per_second: 10, requests: 10 }).await;
    assert_eq!(measured.requests(), 0);
    assert_eq!(measured.errors, 10);
    assert!(sent < 10);
    assert_eq!(measured.first_error.unwrap(), "no answer within 10 s");
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_goes_as_fast_as_answers_come() {
    let fakes = Fakes { takes: Duration::from_millis(10), stall: Duration::ZERO, connections: 4 };
    let (_, measured) = fakes.run(Pace::Closed { time: Duration::from_secs(1) }).await;
    // The timer of the paused clock rounds up to its next millisecond.
    assert!((4 * 90..=4 * 100).contains(&measured.requests()), "{}", measured.requests());
}

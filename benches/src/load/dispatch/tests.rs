use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::{
    load::{Arrivals, tests::load},
    timer::Timer,
};

/// A timer that follows the paused clock.
struct Paused;

impl Wait for Paused {
    async fn until(&mut self, due: Instant) -> io::Result<()> {
        tokio::time::sleep_until(due).await;
        Ok(())
    }
}

/// A server that answers after some time, and stalls once, when the tenth request comes.
#[derive(Clone)]
struct Fake {
    sent: Arc<AtomicU64>,
    takes: Duration,
    stall: Duration,
}

impl Lane for Fake {
    async fn call(&mut self) -> Result<(), CallError> {
        let stalls = self.sent.fetch_add(1, Ordering::Relaxed) == 10;
        let takes = if stalls { self.stall.max(self.takes) } else { self.takes };
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        Ok(())
    }

    async fn prepare(&mut self) -> Result<(), CallError> {
        Ok(())
    }

    fn fresh(&self) -> Self {
        self.clone()
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn fakes(connections: usize, takes: Duration, stall: Duration) -> (Arc<AtomicU64>, Vec<Fake>) {
    let sent = Arc::new(AtomicU64::new(0));
    (Arc::clone(&sent), vec![Fake { sent, takes, stall }; connections])
}

fn pace(arrivals: Arrivals, time: Duration) -> Pace {
    Pace { schedule: Schedule::new(arrivals, time, 1), time, awake: false }
}

fn at(measured: &Measured, quantile: f64) -> Duration {
    Duration::from_nanos(measured.latency.value_at_quantile(quantile))
}

#[tokio::test(start_paused = true)]
async fn a_rate_keeps_its_schedule() {
    let (sent, mut lanes) = fakes(8, millis(3), Duration::ZERO);
    let arrivals = Arrivals::Fixed { rate: 100.0 };
    let measured = run(&mut lanes, pace(arrivals, millis(5000)), Paused).await.unwrap();
    assert_eq!(sent.load(Ordering::Relaxed), 500);
    assert_eq!((measured.due, measured.answered, measured.in_time, measured.errors), (500, 500, 500, 0));
    // The last of 500 is due 4.99 s after the first.
    assert_eq!(measured.elapsed.as_millis(), 4993);
    assert!(at(&measured, 0.999) < millis(5), "{:?}", at(&measured, 0.999));
    assert_eq!(measured.rejected(&load(arrivals)), None);
}

#[tokio::test(start_paused = true)]
async fn a_stall_delays_every_request_that_was_due_meanwhile() {
    let (_, mut lanes) = fakes(1, millis(1), millis(1000));
    let measured =
        run(&mut lanes, pace(Arrivals::Fixed { rate: 100.0 }, millis(10_000)), Paused).await.unwrap();
    assert_eq!(measured.answered, 1000);
    assert!(at(&measured, 0.5) < millis(4));
    // About 110 of 1000 requests were due during the stall or while it was made up for.
    assert!(at(&measured, 0.95) > millis(300), "{:?}", at(&measured, 0.95));
    assert!(at(&measured, 0.999) > millis(950), "{:?}", at(&measured, 0.999));
    // None of it was the generator's fault.
    assert!(measured.lag.max() < 2_000_000, "{}", measured.lag.max());
}

#[tokio::test(start_paused = true)]
async fn a_stalled_connection_delays_nobody_who_finds_another() {
    let (_, mut lanes) = fakes(4, millis(1), millis(1000));
    let measured =
        run(&mut lanes, pace(Arrivals::Fixed { rate: 100.0 }, millis(10_000)), Paused).await.unwrap();
    assert_eq!(measured.answered, 1000);
    assert!(at(&measured, 0.998) < millis(4), "{:?}", at(&measured, 0.998));
    assert!(measured.latency.max() >= 1_000_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_too_slow_misses_the_rate() {
    // Two connections answer 200 in a second at most.
    let (_, mut lanes) = fakes(2, millis(10), Duration::ZERO);
    let arrivals = Arrivals::Poisson { rate: 210.0 };
    let measured = run(&mut lanes, pace(arrivals, millis(5000)), Paused).await.unwrap();
    assert_eq!((measured.due, measured.answered, measured.errors), (1050, 1050, 0));
    let why = measured.rejected(&load(arrivals)).unwrap();
    assert!(why.ends_with("requests a second were answered, not 210: off by more than 1%"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn answers_that_all_take_long_do_not_miss_the_rate() {
    let (_, mut lanes) = fakes(100, millis(400), Duration::ZERO);
    let arrivals = Arrivals::Poisson { rate: 100.0 };
    let measured = run(&mut lanes, pace(arrivals, millis(5000)), Paused).await.unwrap();
    assert_eq!(measured.rejected(&load(arrivals)), None, "{measured:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_answered_counts_as_an_error_and_its_lane_is_replaced() {
    let (sent, mut lanes) = fakes(1, millis(30_000), Duration::ZERO);
    let measured = run(&mut lanes, pace(Arrivals::Fixed { rate: 10.0 }, millis(1000)), Paused).await.unwrap();
    assert_eq!((measured.due, measured.answered, measured.errors), (10, 0, 10));
    assert_eq!(sent.load(Ordering::Relaxed), 1);
    assert_eq!(measured.first_error.as_deref(), Some("no answer within 10 s of the end"));
    assert_eq!(lanes.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_is_10_s_behind_is_given_up() {
    let (_, mut lanes) = fakes(1, millis(10_500), Duration::ZERO);
    let measured =
        run(&mut lanes, pace(Arrivals::Fixed { rate: 10.0 }, millis(30_000)), Paused).await.unwrap();
    assert_eq!((measured.due, measured.answered + measured.errors), (300, 300));
    assert!(measured.elapsed < millis(45_000));
    assert_eq!(
        measured.first_error.as_deref(),
        Some("more than 10 s behind the rate: requests were not sent")
    );
}

#[tokio::test(start_paused = true)]
async fn saturation_goes_as_fast_as_answers_come() {
    let (_, mut lanes) = fakes(4, millis(10), Duration::ZERO);
    let measured = run(&mut lanes, pace(Arrivals::Saturated, millis(1000)), Paused).await.unwrap();
    // The timer of the paused clock rounds up to its next millisecond.
    assert!((4 * 90..=4 * 100).contains(&measured.answered), "{}", measured.answered);
    assert_eq!(measured.due, measured.answered);
    assert!(measured.lag.is_empty());
    assert_eq!(measured.rejected(&load(Arrivals::Saturated)), None);
}

#[tokio::test]
async fn a_runtime_that_is_blocked_lags_and_is_rejected() {
    for awake in [false, true] {
        let (_, mut lanes) = fakes(16, Duration::ZERO, Duration::ZERO);
        let blocking = tokio::spawn(async {
            loop {
                std::thread::sleep(millis(20));
                tokio::time::sleep(millis(5)).await;
            }
        });
        let arrivals = Arrivals::Fixed { rate: 100.0 };
        let pace = Pace { awake, ..pace(arrivals, millis(500)) };
        let mut measured = run(&mut lanes, pace, Timer::new().unwrap()).await.unwrap();
        blocking.abort();
        assert_eq!((measured.answered, measured.lag.len()), (50, 50));
        assert!(measured.lag.value_at_quantile(0.99) > 5_000_000, "{}", measured.lag.max());
        // Where it was blocked at the end, that comes first.
        measured.in_time = measured.answered;
        let why = measured.rejected(&load(arrivals)).unwrap();
        assert!(why.starts_with("the generator lagged by"), "{why}");
    }
}

use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use outrigger_config::backend::{AdaptiveConcurrency, BackendLimits};
use proptest::prelude::*;

use super::{Limit, Limits, Place, Queue};

/// What a waiting caller gets at once.
fn poll(waiting: &mut std::pin::Pin<Box<impl Future<Output = Place>>>) -> Option<Place> {
    match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(place) => Some(place),
        Poll::Pending => None,
    }
}

#[derive(Debug, Clone)]
enum Deed {
    Take,
    Wait,
    GiveBack(usize),
    GiveUp(usize),
    Resize(u32),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        3 => Just(Deed::Take),
        2 => Just(Deed::Wait),
        4 => (0..64usize).prop_map(Deed::GiveBack),
        1 => (0..64usize).prop_map(Deed::GiveUp),
        1 => (0..8u32).prop_map(Deed::Resize),
    ];
    prop::collection::vec(deed, 1..200)
}

proptest! {
    /// Whatever is done, no more places are given out than there are, those who wait get theirs in turn, and in the end
    /// all are back.
    #[test]
    fn places_are_neither_lost_nor_made(size in 0..8u32, deeds in deeds()) {
        let limit = Limit::new(size);
        let (mut held, mut waiting) = (Vec::new(), Vec::new());
        for deed in deeds {
            let taken = held.len();
            match deed {
                Deed::Take => {
                    let place = limit.try_take();
                    prop_assert_eq!(place.is_some(), waiting.is_empty() && taken < limit.size() as usize);
                    held.extend(place);
                }
                Deed::Wait => {
                    let mut coming = Box::pin({ let limit = limit.clone(); async move { limit.take().await } });
                    match poll(&mut coming) {
                        Some(place) => held.push(place),
                        None => waiting.push(coming),
                    }
                }
                Deed::GiveBack(at) if taken > 0 => drop(held.swap_remove(at % taken)),
                Deed::GiveUp(at) if !waiting.is_empty() => drop(waiting.remove(at % waiting.len())),
                Deed::GiveBack(_) | Deed::GiveUp(_) => {}
                Deed::Resize(size) => limit.resize(size),
            }
            // In the order of coming.
            while let Some(first) = waiting.first_mut() {
                let Some(place) = poll(first) else { break };
                held.push(place);
                drop(waiting.remove(0));
            }
            prop_assert!(held.len() <= taken.max(limit.size() as usize));
            prop_assert!(waiting.is_empty() || held.len() >= limit.size() as usize);
            prop_assert_eq!(limit.taken() as usize, held.len());
        }
        drop(waiting);
        drop(held);
        prop_assert_eq!(limit.taken(), 0);
        let all: Vec<_> = std::iter::from_fn(|| limit.try_take()).collect();
        prop_assert_eq!(all.len(), limit.size() as usize);
    }
}

#[test]
fn who_waits_gets_the_place_before_who_comes() {
    let limit = Limit::new(1);
    let place = limit.try_take().unwrap();
    let mut first = Box::pin(limit.take());
    let mut second = Box::pin(limit.take());
    assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
    drop(place);
    assert!(limit.try_take().is_none());
    let place = poll(&mut first).unwrap();
    assert!(poll(&mut second).is_none());
    drop(place);
    assert!(poll(&mut second).is_some());
}

/// Threads that take, wait, give up and give back, while the number of places changes: never more at once than there ever
/// were, and none is lost.
#[test]
fn threads_share_the_places() {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    let (limit, inside, most) = (Limit::new(8), AtomicU32::new(0), AtomicU32::new(0));
    let enter = || {
        most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
        std::thread::yield_now();
        inside.fetch_sub(1, SeqCst);
    };
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (limit, enter) = (&limit, &enter);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                for _ in 0..20_000 {
                    let mut coming = Box::pin(limit.take());
                    if let Some(place) = limit.try_take().or_else(|| poll(&mut coming)) {
                        enter();
                        drop(place);
                    }
                    if seed == 0 && random.u8(..) == 0 {
                        limit.resize(random.u32(1..=8));
                    }
                }
            });
        }
    });
    assert!(most.load(SeqCst) <= 8, "{most:?}");
    assert_eq!(limit.taken(), 0);
}

#[test]
fn a_queue_is_bounded() {
    let queue = Queue::new(2, Duration::from_secs(1));
    let first = queue.join().unwrap();
    let _second = queue.join().unwrap();
    assert!(queue.join().is_none());
    drop(first);
    assert!(queue.join().is_some());
    assert_eq!(queue.waiting(), 1);
    assert!(Queue::new(0, Duration::from_secs(1)).join().is_none());
}

#[test]
fn what_is_under_way_counts_under_new_limits() {
    let now = Instant::now();
    let spec = |requests| BackendLimits { requests, ..BackendLimits::default() };
    assert!(Limits::new(&BackendLimits::default(), None, now).is_none());
    let before = Limits::new(&spec(Some(2)), None, now).unwrap();
    let requests = before.requests.clone();
    let held = [requests.try_take().unwrap(), requests.try_take().unwrap()];
    let after = Limits::new(&spec(Some(1)), Some(&before), now).unwrap();
    let requests = after.requests.clone();
    assert_eq!((requests.taken(), requests.size()), (2, 1));
    let [first, second] = held;
    drop(first);
    assert!(requests.try_take().is_none());
    drop(second);
    assert!(requests.try_take().is_some());
    assert!(Limits::new(&spec(None), Some(&after), now).is_none());
}

#[test]
fn what_was_found_out_is_kept_while_its_configuration_is() {
    let now = Instant::now();
    let spec = |requests, max| BackendLimits {
        requests,
        adaptive: Some(AdaptiveConcurrency { max, ..AdaptiveConcurrency::default() }),
        ..BackendLimits::default()
    };
    let before = Limits::new(&spec(Some(15), 100), None, now).unwrap();
    // The least of both holds.
    assert_eq!(before.requests.size(), 15);
    let same = Limits::new(&spec(Some(15), 100), Some(&before), now).unwrap();
    assert!(std::sync::Arc::ptr_eq(same.adaptive.as_ref().unwrap(), before.adaptive.as_ref().unwrap()));
    let other = Limits::new(&spec(None, 200), Some(&before), now).unwrap();
    assert!(!std::sync::Arc::ptr_eq(other.adaptive.as_ref().unwrap(), before.adaptive.as_ref().unwrap()));
}

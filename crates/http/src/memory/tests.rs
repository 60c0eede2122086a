#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::task::Waker;

use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::body::{Incoming, RequestBody, Upload};

const LIMIT: u64 = 64 * MIB;

fn sum(budget: &Budget) -> u64 {
    Kind::ALL.into_iter().map(|kind| budget.of(kind)).sum()
}

#[test]
fn without_a_budget_everything_is_allowed_and_nothing_counted() {
    let account = Account::new(None);
    let _held = account.hold(Kind::Bodies, usize::MAX);
    assert_eq!(account.level(), Level::Plenty);
    assert!(account.refusal().is_none());
}

#[test]
fn marks_are_passed_as_memory_is_taken_and_given_back() {
    let budget = Budget::new(LIMIT, 1);
    let account = Account::new(Some(budget.clone()));
    budget.measured(8 * MIB);
    let mut charge = account.hold(Kind::Stalled, 0);
    let mut at = |mib: u64| {
        charge.set((mib * MIB) as usize);
        account.settle();
        budget.level()
    };
    // What was there before traffic counts too.
    assert_eq!(at(30), Level::Plenty);
    assert_eq!(at(31), Level::Scarce);
    assert_eq!(at(40), Level::Full);
    assert_eq!(at(50), Level::Spent);
    // A container may be given more while it runs, or less.
    budget.resize(2 * LIMIT);
    assert_eq!(at(50), Level::Plenty);
    budget.resize(LIMIT);
    assert_eq!(at(50), Level::Spent);
    assert_eq!(at(0), Level::Plenty);
}

#[test]
fn what_the_system_says_counts_where_it_is_more_than_was_promised() {
    let budget = Budget::new(LIMIT, 1);
    let account = Account::new(Some(budget.clone()));
    budget.measured(8 * MIB);
    let charge = account.hold(Kind::Stalled, 16 * MIB as usize);
    account.settle();
    assert_eq!(budget.used(), 24 * MIB);
    budget.measured(50 * MIB);
    assert_eq!(budget.used(), 50 * MIB);
    let refusal = account.refusal().unwrap();
    assert_eq!(refusal.status(), 503);
    assert!(refusal.details.starts_with("50 of the 64 MiB"), "{refusal}");
    // What was given back since is known before the system says so.
    drop(charge);
    account.settle();
    assert_eq!(budget.used(), 34 * MIB);
    // What was promised may still be asked for: a low figure is not believed.
    let _charge = account.hold(Kind::Stalled, 45 * MIB as usize);
    account.settle();
    budget.measured(10 * MIB);
    assert_eq!(budget.used(), 53 * MIB);
}

#[test]
fn the_shared_number_is_touched_once_for_many_requests() {
    let budget = Budget::new(LIMIT, 1);
    let account = Account::new(Some(budget.clone()));
    let first = account.hold(Kind::Bodies, 1);
    let taken = budget.held.load(Ordering::Relaxed);
    let many: Vec<_> = (0..60).map(|_| account.hold(Kind::Bodies, 4096)).collect();
    drop((first, many));
    assert_eq!(budget.held.load(Ordering::Relaxed), taken);
    account.settle();
    assert_eq!(budget.held.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_connection_is_charged_for_while_its_peer_does_not_read() {
    let budget = Budget::new(LIMIT, 1);
    let account = Account::new(Some(budget.clone()));
    let stalled = || {
        account.settle();
        budget.of(Kind::Stalled)
    };
    let (ours, mut theirs) = tokio::io::duplex(16);
    let mut ours = Charged::new(ours, &account);
    ours.write_all(&[0; 16]).await.unwrap();
    assert_eq!(stalled(), 0);
    {
        let mut more = Box::pin(ours.write_all(&[0; 16]));
        assert!(more.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(stalled(), 64 * KIB + ASIDE);
        theirs.read_exact(&mut [0; 16]).await.unwrap();
        more.await.unwrap();
    }
    assert_eq!(stalled(), 0);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut ours).poll_write(&mut cx, &[0; 16]).is_pending());
    drop(ours);
    assert_eq!(stalled(), 0);
    assert_eq!(budget.used(), 0);
}

proptest! {
    /// Whatever is held, changed and dropped in whatever order by several workers: the budget knows what is held, to a
    /// portion or two for each, and in the end nothing is.
    #[test]
    fn nothing_is_left_behind(steps in prop::collection::vec((0_usize..3, 0_usize..4, 0_usize..8, 0_usize..3_000_000), 0..200)) {
        let budget = Budget::new(LIMIT, 3);
        let accounts: Vec<_> = (0..3).map(|_| Account::new(Some(budget.clone()))).collect();
        let mut held: Vec<Charge> = Vec::new();
        for (worker, kind, place, bytes) in steps {
            match held.get_mut(place) {
                Some(_) if bytes % 3 == 0 => drop(held.swap_remove(place)),
                Some(charge) => charge.set(bytes),
                None => held.push(accounts[worker].hold(Kind::ALL[kind], bytes)),
            }
            let exact: i64 = held.iter().map(|charge| charge.bytes as i64).sum();
            let told = budget.held.load(Ordering::Relaxed);
            prop_assert!((exact..=exact + 3 * 2 * budget.portion).contains(&told), "{told} of {exact}");
        }
        for account in &accounts {
            account.settle();
        }
        prop_assert_eq!(sum(&budget), held.iter().map(|charge| charge.bytes as u64).sum::<u64>());
        drop((held, accounts));
        prop_assert_eq!(sum(&budget), 0);
        prop_assert_eq!(budget.used(), 0);
    }
}

/// A body of two parts of 10,000 bytes.
fn upload(memory: &Rc<Account>) -> Upload {
    let parts = (0..2).map(|_| Ok(Frame::data(Bytes::from(vec![0; 10_000]))));
    let body = StreamBody::new(futures_util::stream::iter(parts.collect::<Vec<_>>()));
    Upload::new(Incoming::changed(body), 1024 * 1024).counted(memory)
}

/// Reads a body, and says how many bytes it has.
async fn read(body: RequestBody) -> usize {
    body.collect().await.unwrap().to_bytes().len()
}

/// What is sent on after an answer, as in a call that streams both ways, is not kept for as long as that lasts.
#[tokio::test]
async fn nothing_is_kept_of_the_body_of_a_request_that_was_answered() {
    let budget = Budget::new(LIMIT, 1);
    let account = Account::new(Some(budget.clone()));
    let held = || {
        account.settle();
        budget.of(Kind::Bodies)
    };
    let body = upload(&account);
    let mut sent = body.attempt().unwrap();
    assert!(sent.frame().await.unwrap().is_ok());
    assert_eq!(held(), 10_000);
    body.answered();
    assert_eq!(held(), 0);
    assert_eq!((read(sent).await, held(), body.bytes()), (10_000, 0, 20_000), "the rest comes all the same");
    // What is being sent for a second time is there until then.
    let body = upload(&account);
    assert_eq!(read(body.attempt().unwrap()).await, 20_000);
    let again = body.attempt().unwrap();
    body.answered();
    assert_eq!(read(again).await, 20_000);
}

#[tokio::test]
async fn what_is_kept_and_copied_of_a_body_is_counted_and_left_out_where_memory_is_scarce() {
    let budget = Budget::new(LIMIT, 1);
    let account = Account::new(Some(budget.clone()));
    let held = |kind| {
        account.settle();
        budget.of(kind)
    };
    let body = upload(&account);
    let Some(RequestBody::Copy(mut copy)) = body.copy() else { panic!("a copy") };
    assert_eq!(read(body.attempt().unwrap()).await, 20_000);
    assert_eq!((held(Kind::Bodies), held(Kind::Copies)), (20_000, 20_000));
    // It can be sent again, and its copy is read as fast as it is.
    assert_eq!(read(body.attempt().unwrap()).await, 20_000);
    assert!(copy.frame().await.unwrap().is_ok());
    assert_eq!(held(Kind::Copies), 10_000);
    drop(copy);
    drop(body);
    assert_eq!((held(Kind::Bodies), held(Kind::Copies)), (0, 0));

    budget.measured(39 * MIB);
    let body = upload(&account);
    let Some(RequestBody::Copy(copy)) = body.copy() else { panic!("a copy") };
    assert_eq!(read(body.attempt().unwrap()).await, 20_000);
    assert!(body.attempt().is_none(), "it was not kept");
    assert!(copy.collect().await.is_err(), "it was broken off");
    assert_eq!((held(Kind::Bodies), held(Kind::Copies)), (0, 0));
}

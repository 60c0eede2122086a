//! What the balancers that go by a hash promise: few keys move, weights are honoured, and everybody has the same table.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use outrigger_balance::{Balancer, Load, Member, Wish, hash};
use outrigger_config::backend::{Balance, BalanceKind};
use proptest::prelude::*;

const KINDS: [BalanceKind; 2] = [BalanceKind::RingHash, BalanceKind::Maglev];
const KEYS: u64 = 10_000;

/// Endpoints at random addresses, with weights.
fn members(seed: u64, weights: &[u32]) -> Vec<Member> {
    let address = |at: usize| format!("10.{}.{}.{}:8080", seed % 256, seed / 256 % 256, at);
    let member = |(at, &weight)| Member { key: hash(address(at).as_bytes()), ..Member::new(weight) };
    weights.iter().enumerate().map(member).collect()
}

struct Table {
    balancer: Balancer,
    members: Vec<Member>,
    loads: Vec<Arc<Load>>,
    now: Instant,
}

impl Table {
    fn new(kind: BalanceKind, members: &[Member]) -> Self {
        let now = Instant::now();
        let loads = members.iter().map(|member| Arc::new(Load::new(member.weight, now))).collect();
        let balancer = Balancer::new(&Balance { kind, ..Balance::default() }, members, now);
        Self { balancer, members: members.to_vec(), loads, now }
    }

    /// The endpoint of a key, known by its own.
    fn owner(&self, key: u64, tried: &[usize]) -> u64 {
        let wish = Wish { tried, hash: Some(hash(&key.to_be_bytes())) };
        // Two workers have two sources of randomness.
        let mut rng = Rng::with_seed(key);
        self.members[self.balancer.pick(&self.loads, wish, self.now, &mut rng).expect("an endpoint").at].key
    }

    fn owners(&self) -> Vec<u64> {
        (0..KEYS).map(|key| self.owner(key, &[])).collect()
    }
}

fn moved(a: &[u64], b: &[u64]) -> f64 {
    a.iter().zip(b).filter(|(a, b)| a != b).count() as f64 / a.len() as f64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    /// Adding one of ten endpoints, or taking it away, moves at most 12% of the keys.
    #[test]
    fn one_of_ten_endpoints_moves_few_keys(seed in 0..65_536u64, which in 0..10usize) {
        let ten = members(seed, &[1; 10]);
        let mut nine = ten.clone();
        nine.remove(which);
        let eleven = members(seed, &[1; 11]);
        for kind in KINDS {
            let [nine, ten, eleven] = [&nine, &ten, &eleven].map(|it| Table::new(kind, it).owners());
            prop_assert!(moved(&nine, &ten) <= 0.12, "{:?}: {}", kind, moved(&nine, &ten));
            prop_assert!(moved(&ten, &eleven) <= 0.12, "{:?}: {}", kind, moved(&ten, &eleven));
        }
    }

    #[test]
    fn weights_are_honoured(seed in 0..65_536u64, weights in proptest::collection::vec(1..=20u32, 2..8)) {
        let members = members(seed, &weights);
        let total: u32 = weights.iter().sum();
        for kind in KINDS {
            let owners = Table::new(kind, &members).owners();
            for member in &members {
                let got = owners.iter().filter(|owner| **owner == member.key).count() as f64 / KEYS as f64;
                let due = f64::from(member.weight) / f64::from(total);
                let slack = due * 0.15 + 0.01;
                prop_assert!((got - due).abs() < slack, "{:?}: {} instead of {} of {:?}", kind, got, due, weights);
            }
        }
    }

    /// The order of the endpoints does not matter, nor does who asks.
    #[test]
    fn the_table_is_the_same_everywhere(seed in 0..65_536u64, weights in proptest::collection::vec(1..=9u32, 1..30)) {
        let members = members(seed, &weights);
        let mut shuffled = members.clone();
        Rng::with_seed(seed).shuffle(&mut shuffled);
        for kind in KINDS {
            prop_assert_eq!(Table::new(kind, &members).owners(), Table::new(kind, &shuffled).owners());
        }
    }

    /// Of endpoints that fail, the keys go to the others, and only these keys; with the endpoints they come back.
    #[test]
    fn only_the_keys_of_those_that_fail_move(seed in 0..65_536u64, failing in 0..10usize) {
        let members = members(seed, &[1; 10]);
        for kind in KINDS {
            let mut table = Table::new(kind, &members);
            let before = table.owners();
            table.loads[failing].failed(table.now);
            let during = table.owners();
            let mut heirs = std::collections::BTreeMap::<u64, usize>::new();
            for (before, during) in before.iter().zip(&during) {
                if *before == members[failing].key {
                    *heirs.entry(*during).or_default() += 1;
                } else {
                    prop_assert_eq!(before, during);
                }
            }
            prop_assert_eq!(heirs.len(), 9, "{:?}", heirs);
            let tried: Vec<u64> = (0..200).map(|key| table.owner(key, &[failing])).collect();
            prop_assert_eq!(&tried[..], &during[..200], "tried and failed are the same");
            table.loads[failing].succeeded();
            table.now += Duration::from_mins(1);
            prop_assert_eq!(before, table.owners());
        }
    }
}

#[test]
fn a_known_key_stays_where_it_is_from_release_to_release() {
    let members = members(1, &[1; 10]);
    let at = |kind| {
        let table = Table::new(kind, &members);
        let place = |key| members.iter().position(|member| member.key == table.owner(key, &[]));
        (0..12).filter_map(place).collect::<Vec<_>>()
    };
    assert_eq!(hash(b"outrigger"), 43_185_844_561_302_495);
    assert_eq!(at(BalanceKind::RingHash), [0, 9, 8, 7, 5, 0, 1, 4, 2, 7, 5, 3]);
    assert_eq!(at(BalanceKind::Maglev), [9, 0, 8, 4, 3, 3, 0, 8, 6, 8, 3, 4]);
}

//! The choice by a hash: a ring (Karger et al., "Consistent Hashing and Random Trees", 1997) and Maglev's table
//! (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", 2016, section 3.4).
//!
//! Both depend on the endpoints' keys and weights alone, not on their order, the process or the machine: every worker
//! and every node sends the same key to the same endpoint.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::Hasher;

use outrigger_config::backend::BalanceKind;
use siphasher::sip::SipHasher13;

use super::Member;

/// The most points that a ring has, but for one for each endpoint.
const MOST_POINTS: u64 = 1 << 19;
/// The sizes of Maglev's table: the first for up to [`FEW`] endpoints. Primes, so that every endpoint's walk through the
/// table meets each of its places.
pub(super) const SIZES: [usize; 2] = [65_537, 1_000_003];
/// With more endpoints than this each has less than 64 places of the smaller table.
const FEW: usize = 1_024;
/// How many places of a table are looked at for an endpoint that can take the request.
const LOOKS: usize = 4_096;

/// A hash that is the same in every process and on every machine, for [`Member::key`] and [`Wish::hash`](super::Wish::hash).
pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x6f75_7472_6967_6765, 0x7262_616c_616e_6365);
    hasher.write(bytes);
    hasher.finish()
}

/// Spreads a hash over all bits anew (the finalizer of SplitMix64).
pub(super) const fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^ (hash >> 31)
}

/// Which endpoint takes a hash.
#[derive(Debug)]
pub(super) struct Table {
    slots: Slots,
    /// The endpoints by their keys: what the slots say is a place in here, which has the endpoint's own place.
    order: Box<[u32]>,
}

#[derive(Debug)]
enum Slots {
    /// Points on a circle of 2^32, in order: the point in the upper half, whose it is in the lower. A hash belongs to the
    /// next one.
    Ring(Box<[u64]>),
    /// Whose each slot is.
    Maglev(Box<[u32]>),
}

impl Table {
    /// A table over endpoints; `None` where the choice is not by a hash, or there are none.
    pub(super) fn new(kind: BalanceKind, members: &[Member]) -> Option<Self> {
        if !kind.is_by_hash() || members.is_empty() {
            return None;
        }
        let mut order: Vec<u32> = (0..members.len() as u32).collect();
        order.sort_by_key(|&place| members.get(place as usize).map(|member| member.key));
        let ordered: Vec<Entry> = order
            .iter()
            .filter_map(|&place| members.get(place as usize))
            .map(|member| Entry { key: member.key, weight: u64::from(member.weight.max(1)) })
            .collect();
        let slots = match kind {
            BalanceKind::Maglev => Slots::Maglev(maglev(&ordered)),
            _ => Slots::Ring(ring(&ordered)),
        };
        Some(Self { slots, order: order.into() })
    }

    /// The first usable endpoint from where a hash belongs; `None` where none is near.
    pub(super) fn find(&self, hash: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let length = self.len();
        let start = match &self.slots {
            Slots::Ring(points) => {
                let sought = hash & !u64::from(u32::MAX);
                points.partition_point(|&point| point < sought) % length
            }
            Slots::Maglev(_) => ((u128::from(hash) * length as u128) >> 64) as usize,
        };
        let mut refused = None;
        (start..length).chain(0..start).take(LOOKS).find_map(|slot| {
            let owner = self.owner(slot)?;
            if refused == Some(owner) || !usable(owner) {
                refused = Some(owner);
                return None;
            }
            Some(owner)
        })
    }

    fn len(&self) -> usize {
        match &self.slots {
            Slots::Ring(points) => points.len(),
            Slots::Maglev(slots) => slots.len(),
        }
    }

    fn owner(&self, slot: usize) -> Option<usize> {
        let rank = match &self.slots {
            Slots::Ring(points) => *points.get(slot)? as u32,
            Slots::Maglev(slots) => *slots.get(slot)?,
        };
        self.order.get(rank as usize).map(|&place| place as usize)
    }
}

/// An endpoint, where its place among the others does not matter.
struct Entry {
    key: u64,
    weight: u64,
}

/// How many points an endpoint has on a ring for each unit of weight. It depends on the others as little as it can,
/// for where it changes, requests change places: on the heaviest of them, in three steps, which gives the heaviest
/// 1,024 to 16,000, so that its share is exact to 3%.
fn points_per_weight(heaviest: u64) -> u64 {
    match heaviest {
        0..=8 => 1_024,
        9..=64 => 128,
        _ => 16,
    }
}

fn ring(entries: &[Entry]) -> Box<[u64]> {
    let unit = points_per_weight(entries.iter().map(|entry| entry.weight).max().unwrap_or(1));
    let wanted: u64 = entries.iter().map(|entry| entry.weight * unit).sum();
    let mut points = Vec::with_capacity(wanted.min(MOST_POINTS + entries.len() as u64) as usize);
    for (rank, entry) in (0u64..).zip(entries) {
        let mut count = entry.weight * unit;
        if wanted > MOST_POINTS {
            count = (count * MOST_POINTS / wanted).max(1);
        }
        points.extend((1..=count).map(|point| {
            let at = mixed(entry.key.wrapping_add(point.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
            (at & !u64::from(u32::MAX)) | rank
        }));
    }
    points.sort_unstable();
    points.into()
}

/// What is left of the walk of an endpoint through Maglev's table.
struct Walk {
    at: usize,
    step: usize,
}

fn maglev(entries: &[Entry]) -> Box<[u32]> {
    const FREE: u32 = u32::MAX;
    let size = if entries.len() <= FEW { SIZES[0] } else { SIZES[1] };
    let mut slots = vec![FREE; size];
    let mut walks: Vec<Walk> = entries
        .iter()
        .map(|entry| Walk {
            at: (mixed(entry.key) % size as u64) as usize,
            step: (mixed(!entry.key) % (size as u64 - 1)) as usize + 1,
        })
        .collect();
    let mut take = |rank: usize| {
        let Some(walk) = walks.get_mut(rank) else { return };
        loop {
            let slot = slots.get_mut(walk.at);
            walk.at =
                if walk.at + walk.step < size { walk.at + walk.step } else { walk.at + walk.step - size };
            if let Some(slot) = slot.filter(|slot| **slot == FREE) {
                *slot = rank as u32;
                break;
            }
        }
    };
    let equal = entries.windows(2).all(|pair| pair[0].weight == pair[1].weight);
    if equal {
        (0..entries.len()).cycle().take(size).for_each(take);
    } else {
        // Each takes a slot when its weight has earned it one; the times are in units of one slot for a weight of 1.
        let every = |entry: &Entry| (1u64 << 32) / entry.weight;
        let mut turns: BinaryHeap<_> =
            (0..).zip(entries).map(|(rank, entry)| Reverse((every(entry), rank))).collect();
        for _ in 0..size {
            if let Some(mut turn) = turns.peek_mut() {
                let Reverse((time, rank)) = &mut *turn;
                take(*rank);
                *time += entries.get(*rank).map_or(0, every);
            }
        }
    }
    slots.into()
}

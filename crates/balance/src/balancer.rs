//! The choice of an endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use fastrand::Rng;
use outrigger_config::backend::{Balance, BalanceKind};

use crate::Load;

/// How often a draw that fell on an endpoint to be left out is repeated before all endpoints are looked at.
const REDRAWS: usize = 4;
/// Of two endpoints, the second must cost less than this share of the first to be taken instead: less is noise, and
/// then the draw decides, which goes by weight.
const CLEARLY_LESS: f32 = 0.8;

/// What is known of an endpoint before any request goes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its share among the others.
    pub weight: u32,
    /// Endpoints of a higher number take requests only as far as those of lower ones are not well.
    pub priority: u32,
    /// Whether it is in this node's own zone.
    pub near: bool,
    /// What it is known by where a hash decides: the same wherever and whenever it is computed.
    pub key: u64,
}

impl Member {
    /// An endpoint of this weight, like any other.
    pub const fn new(weight: u32) -> Self {
        Self { weight, priority: 0, near: false, key: 0 }
    }
}

/// What a request asks of the choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish<'a> {
    /// The endpoints to be left out, by their places: they were tried.
    pub tried: &'a [usize],
    /// The hash of what decides where the request goes, if it has that.
    pub hash: Option<u64>,
}

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// The endpoint, by its place.
    pub at: usize,
    /// Whether so few endpoints are well that all of them are used.
    pub panic: bool,
}

/// Chooses among the endpoints of one backend. Shared by all workers.
#[derive(Debug)]
pub struct Balancer {
    kind: BalanceKind,
    weights: Weights,
    /// Requests so far, where each has its turn.
    turn: AtomicU64,
}

impl Balancer {
    /// A balancer over these endpoints, in the order in which their loads will stand.
    pub fn new(spec: &Balance, members: &[Member]) -> Self {
        let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
        Self { kind: spec.kind, weights: Weights::new(&weights), turn: AtomicU64::new(0) }
    }

    /// The endpoint for a request, where `loads` stand in the order of the endpoints given.
    ///
    /// Those that the wish names as tried are left out, and so are those that are not [available](Load::available), unless no other is
    /// left: better a try than a refusal. `None` where there is no endpoint, or all were tried.
    pub fn pick(&self, loads: &[Arc<Load>], wish: Wish<'_>, now: Instant, rng: &mut Rng) -> Option<Pick> {
        let tried = wish.tried;
        let usable = |index: usize| {
            loads.get(index).is_some_and(|load| load.available(now)) && !tried.contains(&index)
        };
        match self.kind {
            BalanceKind::PeakEwma => {
                self.better_of_two(loads, usable, rng, |load| load.expected(now) * self.weights.queue(load))
            }
            BalanceKind::LeastRequest => {
                self.better_of_two(loads, usable, rng, |load| self.weights.queue(load))
            }
            // The turn of an endpoint that is left out goes to whoever is next in turn, not to its neighbour, who would
            // get all of its share.
            BalanceKind::RoundRobin => (0..=REDRAWS)
                .map(|_| self.weights.in_turn(self.turn.fetch_add(1, Relaxed)))
                .find(|&index| usable(index))
                .or_else(|| scan(loads.len(), rng.usize(..), usable)),
            BalanceKind::Random | BalanceKind::RingHash | BalanceKind::Maglev => {
                self.draw(loads.len(), usable, rng)
            }
        }
        .or_else(|| scan(loads.len(), rng.usize(..), |index| !tried.contains(&index)))
        .map(|at| Pick { at, panic: false })
    }

    /// Power of two choices: the one that costs less of two endpoints drawn at random.
    fn better_of_two(
        &self,
        loads: &[Arc<Load>],
        usable: impl Fn(usize) -> bool,
        rng: &mut Rng,
        cost: impl Fn(&Load) -> f32,
    ) -> Option<usize> {
        let first = self.draw(loads.len(), &usable, rng)?;
        let second = self.draw_other(loads.len(), first, &usable, rng);
        let (Some(a), Some(b)) = (loads.get(first), second.and_then(|index| loads.get(index))) else {
            return Some(first);
        };
        if cost(b) < cost(a) * CLEARLY_LESS { second } else { Some(first) }
    }

    /// A usable endpoint, drawn by weight.
    fn draw(&self, count: usize, usable: impl Fn(usize) -> bool, rng: &mut Rng) -> Option<usize> {
        (0..REDRAWS)
            .map(|_| self.weights.draw(rng))
            .find(|&index| usable(index))
            .or_else(|| scan(count, rng.usize(..), usable))
    }

    /// A usable endpoint other than the first: drawn by weight; any, where the first outweighs the others so much that
    /// it is drawn again and again; none, where few others are usable.
    fn draw_other(
        &self,
        count: usize,
        first: usize,
        usable: impl Fn(usize) -> bool,
        rng: &mut Rng,
    ) -> Option<usize> {
        let others = count.checked_sub(1).filter(|&others| others > 0)?;
        (0..2 * REDRAWS)
            .map(|draw| {
                if draw < REDRAWS {
                    self.weights.draw(rng)
                } else {
                    (first + 1 + rng.usize(..others)) % count
                }
            })
            .find(|&index| index != first && usable(index))
    }
}

/// The first usable endpoint from `start` on, around the end.
fn scan(count: usize, start: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
    let start = start.checked_rem(count)?;
    (start..count).chain(0..start).find(|&index| usable(index))
}

/// The endpoints' shares of `0..total`, laid end to end.
#[derive(Debug)]
struct Weights {
    /// Where each one's share ends; empty where all weigh the same.
    ends: Box<[u64]>,
    total: u64,
    /// A step around `total` that meets each of its numbers once, and every share at an even pace.
    step: u64,
    /// The mean weight.
    mean: f32,
}

impl Weights {
    fn new(weights: &[u32]) -> Self {
        let sum: u64 = weights.iter().copied().map(u64::from).sum();
        let mean = if sum == 0 { 1.0 } else { sum as f32 / weights.len() as f32 };
        let equal = sum == 0 || weights.windows(2).all(|pair| pair[0] == pair[1]);
        if equal {
            return Self { ends: Box::default(), total: weights.len() as u64, step: 1, mean };
        }
        let divisor = weights.iter().copied().map(u64::from).fold(0, greatest_common_divisor);
        let ends: Box<[u64]> = weights
            .iter()
            .scan(0, |end, &weight| {
                *end += u64::from(weight) / divisor;
                Some(*end)
            })
            .collect();
        let total = sum / divisor;
        Self { ends, total, step: even_step(total), mean }
    }

    /// The endpoint whose share has this position.
    fn at(&self, position: u64) -> usize {
        if self.ends.is_empty() {
            position as usize
        } else {
            self.ends.partition_point(|&end| end <= position)
        }
    }

    fn draw(&self, rng: &mut Rng) -> usize {
        if self.total == 0 { 0 } else { self.at(rng.u64(..self.total)) }
    }

    fn in_turn(&self, turn: u64) -> usize {
        let position = u128::from(turn) * u128::from(self.step) % u128::from(self.total.max(1));
        self.at(position as u64)
    }

    /// How long the queue at an endpoint is with the request that looks for a place: one, and those in flight in
    /// proportion to the endpoint's weight. Idle endpoints are alike, whatever their weight, so that among them the
    /// draw decides.
    fn queue(&self, load: &Load) -> f32 {
        1.0 + load.in_flight() as f32 * self.mean / load.weight() as f32
    }
}

/// The number nearest above `total` divided by the golden ratio that has no divisor in common with it. Steps of that
/// size around `total` return to any stretch of it at intervals as even as can be (the three-distance theorem).
fn even_step(total: u64) -> u64 {
    let golden = (total as f64 * 0.618_033_988_749_895).round() as u64;
    (golden.max(1)..=total.max(1)).find(|&step| greatest_common_divisor(step, total) == 1).unwrap_or(1)
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests;

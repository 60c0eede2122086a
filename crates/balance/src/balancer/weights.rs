//! The endpoints' shares, and draws from them.

use fastrand::Rng;

use crate::Load;

/// The fraction of the golden ratio, as a part of 2^64.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The endpoints' shares of `0..total`, laid end to end.
#[derive(Debug)]
pub(super) struct Weights {
    /// Where each one's share ends; empty where all weigh the same.
    ends: Box<[u64]>,
    total: u64,
    /// A step around `total` that meets each of its numbers once, and every share at an even pace.
    step: u64,
    /// The mean weight.
    mean: f32,
}

impl Weights {
    pub(super) fn new(weights: &[u32]) -> Self {
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

    /// One at random.
    pub(super) fn draw(&self, rng: &mut Rng) -> usize {
        if self.total == 0 { 0 } else { self.at(rng.u64(..self.total)) }
    }

    /// Another one at random; `None` where there is none, or it was not met at once for its small share.
    pub(super) fn draw_other(&self, first: usize, rng: &mut Rng) -> Option<usize> {
        if !self.ends.is_empty() {
            return Some(self.draw(rng)).filter(|&at| at != first);
        }
        let others = self.total.checked_sub(1).filter(|&others| others > 0)?;
        let at = rng.u64(..others) as usize;
        Some(at + usize::from(at >= first))
    }

    /// Whose turn it is, where each has as many as its share says.
    pub(super) fn in_turn(&self, turn: u64) -> usize {
        let total = self.total.max(1);
        // Almost always there is room in 64 bits, which is quicker.
        let position = match turn.checked_mul(self.step) {
            Some(way) => way % total,
            None => (u128::from(turn) * u128::from(self.step) % u128::from(total)) as u64,
        };
        self.at(position)
    }

    /// One that looks drawn at random, but in as many turns as there are endpoints each comes about as often as its share
    /// says: multiples of the golden ratio fill a circle evenly.
    pub(super) fn even(&self, turn: u64) -> usize {
        let position = (u128::from(turn.wrapping_mul(GOLDEN)) * u128::from(self.total)) >> 64;
        self.at(position as u64)
    }

    /// How long the queue at an endpoint is with the request that looks for a place: one, and those in flight in
    /// proportion to the endpoint's weight. Idle endpoints are alike, whatever their weight, so that among them the
    /// turn decides. `warmth` is the part of its weight that it has come to.
    pub(super) fn queue(&self, load: &Load, warmth: f32) -> f32 {
        1.0 + load.in_flight() as f32 * self.mean / (load.weight() as f32 * warmth)
    }
}

/// The number nearest above `total` divided by the golden ratio that has no divisor in common with it. Steps of that
/// size around `total` return to any stretch of it at intervals as even as can be (the three-distance theorem).
fn even_step(total: u64) -> u64 {
    let golden = (total as f64 * 0.618_033_988_749_895).round() as u64;
    (golden.max(1)..=total.max(1)).find(|&step| greatest_common_divisor(step, total) == 1).unwrap_or(1)
}

pub(super) fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

//! A share of the requests, such as those that are mirrored or delayed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A share of the requests as a fraction (Gateway API, `Fraction`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fraction {
    /// How many.
    pub numerator: u32,
    /// Of how many. 100 where it is absent.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1))]
    pub denominator: u32,
}

const fn hundred() -> u32 {
    100
}

/// A share of the requests, as it is drawn from a worker's random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    /// Of 2³² equally likely numbers, how many from 0 on are in it.
    below: u64,
}

impl Portion {
    /// The share that a percentage or a fraction says, whichever is given; all where neither is.
    pub fn new(percent: Option<u32>, fraction: Option<Fraction>) -> Self {
        let (part, whole) = match (percent, fraction) {
            (Some(percent), _) => (percent, 100),
            (None, Some(fraction)) => (fraction.numerator, fraction.denominator.max(1)),
            (None, None) => (1, 1),
        };
        Self { below: (u64::from(part.min(whole)) << 32) / u64::from(whole) }
    }

    /// Whether a request is in it; `random` is uniform over `u32`.
    pub const fn has(self, random: u32) -> bool {
        (random as u64) < self.below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portion_is_exact_at_its_ends_and_fair_between() {
        let fraction = |numerator, denominator| Some(Fraction { numerator, denominator });
        for (percent, fraction, least, most) in [
            (Some(0), None, false, false),
            (Some(100), None, true, true),
            (None, None, true, true),
            (None, fraction(7, 7), true, true),
            (None, fraction(0, 1), false, false),
            (Some(50), None, true, false),
            (None, fraction(1, u32::MAX), true, false),
        ] {
            let portion = Portion::new(percent, fraction);
            assert_eq!((portion.has(0), portion.has(u32::MAX)), (least, most), "{percent:?} {fraction:?}");
        }
        assert!(Portion::new(Some(50), None).has(u32::MAX / 2) && !Portion::new(Some(50), None).has(1 << 31));
    }
}

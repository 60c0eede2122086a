//! What follows from samples, and how sure it is.
//!
//! A *repetition* is one turn of all subjects of a scenario (there and back: ABBA); what drifts on a machine, drifts under
//! all of them. So whatever compares two subjects compares them within each repetition, and repetitions are what is
//! resampled: two samples of one repetition are not independent, nor are two requests of one sample.
//!
//! - A ratio, a difference or a level is the **median over the repetitions**: one repetition that a neighbour on the
//!   machine disturbed does not move it.
//! - A latency is a quantile of the **merged histograms** of all repetitions, and an added latency the difference of two
//!   such quantiles; percentiles are never averaged.
//! - The interval is a **percentile bootstrap** over repetitions. With few of them that is known to be too narrow, so its
//!   tails are those that Hesterberg ("What Teachers Should Know About the Bootstrap", The American Statistician 69(4),
//!   2015) gives: as much wider as Student's t is than the normal distribution, and √(n/(n−1)) more.
//!
//! # What it cannot say
//!
//! A bootstrap cannot reach beyond what was seen. A median of n repetitions lies outside of all of them with a probability
//! of 2/2ⁿ, so no interval of theirs holds more than 75% with three, 88% with four, 94% with five: six are needed for 95%,
//! fewer than three give no interval at all. A tail quantile's interval needs the tail to show in most repetitions.
//! And it speaks of this run only: the same processes, memory layout, machine and hour. How much two processes of
//! the same program differ is what an A/A run shows, which is why figures stand beside one.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::{Log, Sample, Series, SubjectResult, series};

#[cfg(test)]
mod tests;

/// How often repetitions are drawn anew.
const RESAMPLES: usize = 2000;
/// The same samples give the same interval, wherever it is computed.
const SEED: u64 = 0x6f75_7472_6967;
/// So few repetitions have no interval.
const FEWEST: usize = 3;

/// A number with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Its 95% interval, as far as so many repetitions can give one (see [the module](self)).
    pub interval: Option<(f64, f64)>,
    /// How many repetitions it comes from.
    pub repetitions: usize,
}

impl Estimate {
    /// The median of one value for each repetition; `None` of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        bootstrap(values.len(), |picks| {
            let mut picked: Vec<f64> = picks.iter().filter_map(|pick| values.get(*pick).copied()).collect();
            median(&mut picked)
        })
    }

    /// The number and its interval times `factor`, as into another unit.
    pub fn scaled(self, factor: f64) -> Self {
        let (low, high) =
            (self.interval.map(|(low, _)| low * factor), self.interval.map(|(_, high)| high * factor));
        let interval = low.zip(high).map(|(low, high)| (low.min(high), low.max(high)));
        Self { value: self.value * factor, interval, ..self }
    }

    /// `self` less `other`, which was measured apart from it: its interval by the method of variance estimates recovery
    /// (Zou and Donner, Statistics in Medicine 27, 2008), which needs only the two intervals.
    pub fn minus(self, other: Self) -> Self {
        let value = self.value - other.value;
        let interval = self.interval.zip(other.interval).map(|((low, high), (other_low, other_high))| {
            let down = (self.value - low).hypot(other_high - other.value);
            let up = (high - self.value).hypot(other.value - other_low);
            (value - down, value + up)
        });
        Self { value, interval, repetitions: self.repetitions.min(other.repetitions) }
    }
}

/// What `value` is of a subject.
pub fn level(of: &SubjectResult, value: impl Fn(&Sample) -> Option<f64>) -> Option<Estimate> {
    Estimate::of(&of.by_repetition(value).into_values().collect::<Vec<_>>())
}

/// How many times `to`'s value is `of`'s, repetition by repetition.
pub fn ratio(
    of: &SubjectResult,
    to: &SubjectResult,
    value: impl Fn(&Sample) -> Option<f64>,
) -> Option<Estimate> {
    let ratios = paired(of, to, value).into_iter().filter(|(_, to)| *to > 0.0).map(|(of, to)| of / to);
    Estimate::of(&ratios.collect::<Vec<_>>())
}

/// How much `of`'s value is above `to`'s, repetition by repetition.
pub fn difference(
    of: &SubjectResult,
    to: &SubjectResult,
    value: impl Fn(&Sample) -> Option<f64>,
) -> Option<Estimate> {
    Estimate::of(&paired(of, to, value).into_iter().map(|(of, to)| of - to).collect::<Vec<_>>())
}

/// How much later `of` answers than `to`, in microseconds, at a quantile (0.99) of all requests.
pub fn added(of: &Series, to: &Series, quantile: f64) -> Option<Estimate> {
    let (of, to) = (histograms(&of.result, &of.log), histograms(&to.result, &to.log));
    // Only what both have is paired.
    let common: Vec<u32> = of.keys().filter(|repetition| to.contains_key(repetition)).copied().collect();
    let select = |of: BTreeMap<u32, Histogram<u64>>| {
        Merged::new(of.into_iter().filter(|(key, _)| common.contains(key)).map(|(_, histogram)| histogram))
    };
    let (of, to) = (select(of), select(to));
    bootstrap(common.len(), |picks| Some(of.quantile(quantile, picks)? - to.quantile(quantile, picks)?))
}

/// How long `of`, whose histograms are in `log`, takes to answer, in microseconds, at a quantile of all requests.
pub fn latency(of: &SubjectResult, log: &Log, quantile: f64) -> Option<Estimate> {
    let histograms = histograms(of, log);
    let repetitions = histograms.len();
    let merged = Merged::new(histograms.into_values());
    bootstrap(repetitions, |picks| merged.quantile(quantile, picks))
}

/// The histograms in `log` of all of a subject's samples that count, in one.
pub fn merged(of: &SubjectResult, log: &Log) -> Option<Histogram<u64>> {
    series::merged(histograms(of, log).values())
}

/// The values of each repetition that both have.
fn paired(of: &SubjectResult, to: &SubjectResult, value: impl Fn(&Sample) -> Option<f64>) -> Vec<(f64, f64)> {
    let (of, to) = (of.by_repetition(&value), to.by_repetition(&value));
    of.iter().filter_map(|(repetition, of)| Some((*of, *to.get(repetition)?))).collect()
}

/// `statistic` of repetitions 0 to `repetitions` as they are, and its interval when as many are drawn from them.
fn bootstrap(repetitions: usize, statistic: impl Fn(&[usize]) -> Option<f64>) -> Option<Estimate> {
    let mut picks: Vec<usize> = (0..repetitions).collect();
    let value = statistic(&picks)?;
    if repetitions < FEWEST {
        return Some(Estimate { value, interval: None, repetitions });
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut drawn = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        for pick in &mut picks {
            *pick = random.usize(..repetitions);
        }
        drawn.extend(statistic(&picks));
    }
    drawn.sort_by(f64::total_cmp);
    let outside = (tail(repetitions) * drawn.len() as f64) as usize;
    let low = drawn.get(outside).copied();
    let high = drawn.iter().rev().nth(outside).copied();
    // Rounding of medians aside, the number itself is always within.
    let interval = low.zip(high).map(|(low, high)| (low.min(value), high.max(value)));
    Some(Estimate { value, interval, repetitions })
}

/// What is left out on either side, as a share of all draws: Φ(−√(n/(n−1))·t₀.₉₇₅,ₙ₋₁).
fn tail(repetitions: usize) -> f64 {
    match repetitions {
        0..=4 => 0.0001,
        5 => 0.0010,
        6 => 0.0024,
        7 => 0.0041,
        8 => 0.0057,
        9 => 0.0072,
        10 => 0.0086,
        // Within 0.0005 of it from here on, and 0.025 in the end.
        more => 0.025 - 0.18 / more as f64,
    }
}

/// The middle one, or the mean of the middle two; `None` of none.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get(values.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

fn histograms(of: &SubjectResult, log: &Log) -> BTreeMap<u32, Histogram<u64>> {
    let mut by_repetition = BTreeMap::<u32, Vec<&Histogram<u64>>>::new();
    for (sample, histogram) in of.recorded(log).filter(|(sample, _)| sample.counts()) {
        by_repetition.entry(sample.repetition).or_default().push(histogram);
    }
    let merge =
        |(repetition, all): (u32, Vec<&Histogram<u64>>)| Some((repetition, series::merged(all.into_iter())?));
    by_repetition.into_iter().filter_map(merge).collect()
}

/// Histograms side by side, such that any choice of them has its quantiles at hand without being merged first.
struct Merged {
    /// The values that any of them holds, from the lowest, in nanoseconds.
    values: Vec<u64>,
    /// For each histogram, how many of its values are no greater than each of them.
    up_to: Vec<Vec<u64>>,
}

impl Merged {
    fn new(histograms: impl Iterator<Item = Histogram<u64>>) -> Self {
        let histograms: Vec<Histogram<u64>> = histograms.collect();
        let recorded = histograms.iter().flat_map(Histogram::iter_recorded);
        let mut values: Vec<u64> = recorded.map(|step| step.value_iterated_to()).collect();
        values.sort_unstable();
        values.dedup();
        let up_to = histograms.iter().map(|histogram| {
            let mut seen = 0;
            let count = |value: &u64| {
                seen += histogram.count_at(*value);
                seen
            };
            values.iter().map(count).collect()
        });
        Self { up_to: up_to.collect(), values }
    }

    /// The quantile, in microseconds, of those that `picks` names, each as often as it is named.
    fn quantile(&self, quantile: f64, picks: &[usize]) -> Option<f64> {
        let picked: Vec<&Vec<u64>> = picks.iter().filter_map(|pick| self.up_to.get(*pick)).collect();
        let up_to = |index: usize| picked.iter().filter_map(|up_to| up_to.get(index)).sum::<u64>();
        let total = up_to(self.values.len().checked_sub(1)?);
        let wanted = ((quantile * total as f64).ceil() as u64).max(1);
        // The first value that so many are no greater than.
        let (mut low, mut high) = (0, self.values.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if up_to(middle) < wanted { low = middle + 1 } else { high = middle }
        }
        self.values.get(low).map(|value| *value as f64 / 1e3)
    }
}

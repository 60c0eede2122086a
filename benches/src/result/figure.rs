//! Figures: numbers that are to be something.

use super::{Figure, Target, Verdict, stats::Estimate};

impl Figure {
    /// A figure that was measured, if `estimate` is there. `noise` is the same figure where both sides are the same subject.
    pub fn new(
        id: impl Into<String>,
        title: impl Into<String>,
        unit: impl Into<String>,
        estimate: Option<Estimate>,
        noise: Option<Estimate>,
        target: Option<Target>,
        basis: impl Into<String>,
    ) -> Self {
        let estimate = estimate.filter(|estimate| estimate.value.is_finite());
        let value = estimate.map(|estimate| estimate.value);
        Self {
            id: id.into(),
            title: title.into(),
            unit: unit.into(),
            value,
            interval: estimate.and_then(|estimate| estimate.interval),
            noise: noise.and_then(|noise| noise.interval),
            target,
            verdict: verdict(value, target),
            basis: basis.into(),
        }
    }

    /// A figure that could not be measured, and why.
    pub fn unknown(
        id: impl Into<String>,
        title: impl Into<String>,
        unit: impl Into<String>,
        target: Option<Target>,
        why: impl Into<String>,
    ) -> Self {
        Self::new(id, title, unit, None, None, target, why)
    }

    /// Whether all of the interval is on one side of the target; true if there is nothing to doubt.
    pub fn is_clear(&self) -> bool {
        let (Some(target), Some((low, high))) = (self.target, self.interval) else { return true };
        target.is_met_by(low) == target.is_met_by(high)
    }

    /// What it would be if both sides were the same: 1 of a ratio, otherwise 0.
    pub fn neutral(&self) -> f64 {
        if self.unit == "×" { 1.0 } else { 0.0 }
    }
}

impl Target {
    /// Whether a figure of this value is what it is to be.
    pub fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

fn verdict(value: Option<f64>, target: Option<Target>) -> Verdict {
    match (value, target) {
        (None, _) => Verdict::Unknown,
        (Some(_), None) => Verdict::Informative,
        (Some(value), Some(target)) if target.is_met_by(value) => Verdict::Met,
        (Some(_), Some(_)) => Verdict::Missed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(value: impl Into<Option<f64>>, interval: Option<(f64, f64)>, target: Option<Target>) -> Figure {
        let estimate = value.into().map(|value| Estimate { value, interval, repetitions: 6 });
        Figure::new("plain.cpu.nginx", "CPU", "×", estimate, None, target, "plain")
    }

    #[test]
    fn the_value_decides_and_the_interval_says_how_surely() {
        let most = Some(Target::AtMost(1.0));
        let cases = [
            (figure(0.9, Some((0.8, 0.95)), most), Verdict::Met, true),
            (figure(0.9, Some((0.8, 1.05)), most), Verdict::Met, false),
            (figure(1.0, None, most), Verdict::Met, true),
            (figure(1.1, Some((0.9, 1.2)), most), Verdict::Missed, false),
            (figure(1.7, Some((1.6, 1.75)), Some(Target::AtLeast(1.8))), Verdict::Missed, true),
            (figure(1.7, None, None), Verdict::Informative, true),
            (figure(f64::NAN, None, most), Verdict::Unknown, true),
            (figure(None, None, most), Verdict::Unknown, true),
            (figure(None, None, None), Verdict::Unknown, true),
        ];
        for (figure, verdict, clear) in cases {
            assert_eq!((figure.verdict, figure.is_clear()), (verdict, clear), "{figure:?}");
        }
    }
}

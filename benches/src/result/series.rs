//! One subject while it is measured: what the JSON file will say of it, and the raw histograms beside it.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use super::{Interval, Log, Quantiles, Sample, Spent, Step, SubjectResult};
use crate::{
    load::{Load, Measured},
    subject::{Kind, Setup},
};

/// The folder of the histograms within that of the run.
const HISTOGRAMS: &str = "histograms";

/// One subject in one scenario while it is measured.
#[derive(Debug, Clone)]
pub struct Series {
    /// What the JSON file says of it; its `version` and `configuration` are for the caller to set.
    pub result: SubjectResult,
    /// The histograms of its samples.
    pub log: Log,
}

impl Series {
    /// Nothing has been measured yet.
    pub fn new(name: impl Into<String>, kind: Kind, setup: Option<Setup>) -> Self {
        let result = SubjectResult {
            name: name.into(),
            kind,
            setup,
            version: String::new(),
            configuration: Vec::new(),
            samples: Vec::new(),
            latency: None,
            steps: Vec::new(),
            log: None,
        };
        Self { result, log: Log::default() }
    }

    /// Adds a sample, whose latency and lag become those of `measured`, where that has any.
    pub fn push(&mut self, mut sample: Sample, measured: Option<&Measured>) {
        let recorded = measured.filter(|measured| !measured.latency.is_empty());
        sample.latency = recorded.and_then(|measured| Quantiles::of(&measured.latency));
        sample.lag = measured.and_then(|measured| Quantiles::of(&measured.lag));
        if let Some(measured) = recorded {
            self.log.intervals.push(Interval {
                at: seconds(sample.at),
                length: seconds(sample.seconds),
                latency: measured.latency.clone(),
                lag: Some(measured.lag.clone()),
            });
        }
        self.result.samples.push(sample);
        let rates = self.result.rates();
        let sweep = rates.len() > 1;
        self.result.steps =
            if sweep { rates.into_iter().map(|rate| self.step(rate)).collect() } else { vec![] };
        self.result.latency = if sweep { None } else { self.quantiles(Sample::counts) };
    }

    fn step(&self, asked_rate: f64) -> Step {
        let here = |sample: &&Sample| sample.asked_rate == Some(asked_rate);
        let samples = self.result.samples.iter().filter(here);
        let rejected = samples.clone().find_map(|sample| sample.rejected.clone());
        let any_counts = samples.clone().any(Sample::counts);
        let taken = |sample: &Sample| here(&sample) && sample.counts() == any_counts;
        let rates: Vec<f64> = samples.filter(|sample| taken(sample)).map(|sample| sample.rate).collect();
        Step {
            asked_rate,
            rate: rates.iter().sum::<f64>() / rates.len().max(1) as f64,
            latency: self.quantiles(taken),
            rejected: rejected.filter(|_| !any_counts),
        }
    }

    fn quantiles(&self, of: impl Fn(&Sample) -> bool) -> Option<Quantiles> {
        let recorded = self.result.recorded(&self.log).filter(|(sample, _)| of(sample));
        Quantiles::of(&merged(recorded.map(|(_, histogram)| histogram))?)
    }

    /// Writes the histograms into the run's folder `dir`, and says in the result where they are.
    ///
    /// # Errors
    ///
    /// If they cannot be written, or have been before.
    pub fn save(&mut self, dir: &Path, scenario: &str) -> Result<()> {
        if self.log.intervals.is_empty() {
            return Ok(());
        }
        let folder = dir.join(HISTOGRAMS);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = format!("{HISTOGRAMS}/{}.{}.hlog", file_name(scenario), file_name(&self.result.name));
        self.log.write(&dir.join(&path))?;
        self.result.log = Some(path);
        Ok(())
    }
}

impl SubjectResult {
    /// The samples that have a latency, each with its histogram in `log`, which is this subject's; those that do not count too.
    pub fn recorded<'a>(&'a self, log: &'a Log) -> impl Iterator<Item = (&'a Sample, &'a Histogram<u64>)> {
        let with_latency = self.samples.iter().filter(|sample| sample.latency.is_some());
        with_latency.zip(&log.intervals).map(|(sample, interval)| (sample, &interval.latency))
    }

    /// The rates that its samples were asked for, from the lowest; more than one make a sweep.
    pub fn rates(&self) -> Vec<f64> {
        let mut rates: Vec<f64> = self.samples.iter().filter_map(|sample| sample.asked_rate).collect();
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        rates
    }

    /// A value for each repetition: the mean over those of its samples that count and have the value.
    pub fn by_repetition(&self, value: impl Fn(&Sample) -> Option<f64>) -> BTreeMap<u32, f64> {
        let mut values = BTreeMap::<u32, Vec<f64>>::new();
        for sample in self.samples.iter().filter(|sample| sample.counts()) {
            if let Some(value) = value(sample) {
                values.entry(sample.repetition).or_default().push(value);
            }
        }
        values
            .into_iter()
            .map(|(repetition, values)| (repetition, values.iter().sum::<f64>() / values.len() as f64))
            .collect()
    }
}

impl Sample {
    /// What was seen of `load` in `measured`, `at` so many seconds after the run began; it does not count if
    /// [`Measured::rejected`] says so.
    pub fn new(
        repetition: u32,
        at: f64,
        load: &Load,
        measured: &Measured,
        spent: Option<Spent>,
        resident_kib: Option<u64>,
    ) -> Self {
        Self {
            asked_rate: load.arrivals.rate(),
            rate: measured.rate(),
            answered: measured.answered,
            errors: measured.errors,
            first_error: measured.first_error.clone(),
            latency: Quantiles::of(&measured.latency),
            lag: Quantiles::of(&measured.lag),
            spent,
            rejected: measured.rejected(load),
            ..Self::idle(repetition, at, measured.elapsed.as_secs_f64(), resident_kib)
        }
    }

    /// What was seen of a subject without any load.
    pub fn idle(repetition: u32, at: f64, seconds: f64, resident_kib: Option<u64>) -> Self {
        Self {
            repetition,
            at,
            seconds,
            asked_rate: None,
            rate: 0.0,
            answered: 0,
            errors: 0,
            first_error: None,
            latency: None,
            lag: None,
            spent: None,
            resident_kib,
            rejected: None,
        }
    }

    /// Whether it was not rejected.
    pub fn counts(&self) -> bool {
        self.rejected.is_none()
    }
}

impl Quantiles {
    /// Of a histogram of nanoseconds; `None` of an empty one.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        let max = histogram.max() as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max,
        })
    }
}

/// All of them in one; `None` if there are none.
pub(crate) fn merged<'a>(histograms: impl Iterator<Item = &'a Histogram<u64>>) -> Option<Histogram<u64>> {
    let mut sum: Option<Histogram<u64>> = None;
    for histogram in histograms {
        match &mut sum {
            None => {
                let mut first = histogram.clone();
                first.auto(true);
                sum = Some(first);
            }
            // It grows as it must, so that nothing is out of its range.
            Some(sum) => drop(sum.add(histogram)),
        }
    }
    sum
}

/// What a file may be called anywhere.
fn file_name(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '.' || c == '_' { c } else { '-' };
    let parts: String = name.chars().map(safe).collect();
    parts.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{Arrivals, Connect, Tls, Traffic};

    fn load(arrivals: Arrivals) -> Load {
        Load {
            traffic: Traffic::Http1,
            arrivals,
            connections: 1,
            streams: 1,
            request_bytes: 0,
            response_bytes: 2,
            connect: Connect::Keep,
            tls: Tls::Off,
            seed: 1,
        }
    }

    fn measured(latencies: impl IntoIterator<Item = u64>) -> Measured {
        let mut latency = Histogram::new(3).unwrap();
        for micros in latencies {
            latency.record(micros * 1000).unwrap();
        }
        Measured {
            due: latency.len(),
            answered: latency.len(),
            in_time: latency.len(),
            lag: Histogram::new(3).unwrap(),
            latency,
            errors: 0,
            first_error: None,
            time: Duration::from_secs(2),
            elapsed: Duration::from_secs(2),
        }
    }

    #[test]
    fn percentiles_are_of_all_requests_together_and_not_means_of_percentiles() {
        let mut series = Series::new("direct", Kind::Direct, None);
        let load = load(Arrivals::Saturated);
        for latencies in [1..=900, 9_001..=9_100] {
            let measured = measured(latencies);
            series.push(Sample::new(0, 0.0, &load, &measured, None, None), Some(&measured));
        }
        let bad = measured(vec![1_000_000; 10_000]);
        let rejected =
            Sample { rejected: Some("lagged".into()), ..Sample::new(1, 0.0, &load, &bad, None, None) };
        series.push(rejected, Some(&bad));
        let latency = series.result.latency.unwrap();
        assert!((499.0..501.0).contains(&latency.p50), "{latency:?}");
        assert!((9_000.0..9_100.0).contains(&latency.p99), "{latency:?}");
        assert_eq!(series.log.intervals.len(), 3, "what was rejected is kept too");
        assert!((series.result.samples[0].rate - 450.0).abs() < 1e-9);
    }

    #[test]
    fn a_sweep_has_no_latency_of_its_own() {
        let mut series = Series::new("direct", Kind::Direct, None);
        for rate in [500.0, 600.0] {
            let measured = measured([1, 2, 3]);
            let sample = Sample::new(0, 0.0, &load(Arrivals::Poisson { rate }), &measured, None, None);
            series.push(sample, Some(&measured));
        }
        assert_eq!(series.result.latency, None);
        assert_eq!(series.result.rates(), [500.0, 600.0]);
    }

    #[test]
    fn histograms_lie_in_files_that_any_system_can_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut series = Series::new("outrigger (again)", Kind::Outrigger, None);
        series.save(dir.path(), "latency").unwrap();
        assert_eq!(series.result.log, None, "there is nothing to write");
        let measured = measured([1, 2, 3]);
        let sample = Sample::new(0, 0.0, &load(Arrivals::Saturated), &measured, None, None);
        series.push(sample, Some(&measured));
        series.save(dir.path(), "latency").unwrap();
        assert_eq!(series.result.log.as_deref(), Some("histograms/latency.outrigger-again.hlog"));
        let log = Log::read(&dir.path().join(series.result.log.as_deref().unwrap())).unwrap();
        assert_eq!(series.result.recorded(&log).count(), 1);
    }
}

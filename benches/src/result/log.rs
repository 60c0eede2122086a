//! The raw histograms of one subject, as HdrHistogram's interval logs have them (V2, deflated), which its own tools read.
//!
//! Latencies stand in intervals without a tag, one for each sample that has a latency, in the order of the samples; how
//! late the generator was stands behind each, tagged `lag`. Values are nanoseconds, times are seconds since the run began,
//! and the third column is the interval's greatest value in milliseconds.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer, V2DeflateSerializer,
        interval_log::{IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag},
    },
};

const COMMENT: &str = "Latency in nanoseconds, from when a request was due until its whole answer was there.\n\
    Tagged lag: how late the generator was. Times are seconds since the run began; the maximum is in milliseconds.";
const LAG: &str = "lag";
/// Nanoseconds in a millisecond.
const MAX_DIVISOR: f64 = 1e6;

/// The raw histograms of one subject in one scenario.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// One for each sample that has a latency, in the order of samples.
    pub intervals: Vec<Interval>,
}

/// The raw histograms of one sample.
#[derive(Debug, Clone)]
pub struct Interval {
    /// When it began, since the run did.
    pub at: Duration,
    /// How long it took.
    pub length: Duration,
    /// As [`Measured::latency`](crate::load::Measured::latency).
    pub latency: Histogram<u64>,
    /// As [`Measured::lag`](crate::load::Measured::lag).
    pub lag: Option<Histogram<u64>>,
}

impl Log {
    /// Writes it to a new file.
    ///
    /// # Errors
    ///
    /// If the file exists or cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let written = || -> Result<()> {
            let mut file = BufWriter::new(File::create_new(path)?);
            self.write_to(&mut file)?;
            Ok(file.flush()?)
        };
        written().with_context(|| format!("cannot write {}", path.display()))
    }

    fn write_to(&self, mut file: &mut impl Write) -> Result<()> {
        let mut serializer = V2DeflateSerializer::new();
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment(COMMENT).with_max_value_divisor(MAX_DIVISOR);
        let mut writer = builder.begin_log_with(&mut file, &mut serializer)?;
        for interval in &self.intervals {
            writer.write_histogram(&interval.latency, interval.at, interval.length, None)?;
            if let Some(lag) = &interval.lag {
                writer.write_histogram(lag, interval.at, interval.length, Tag::new(LAG))?;
            }
        }
        Ok(())
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is not such a log.
    pub fn read(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> { Self::parse(&std::fs::read(path)?) };
        read().with_context(|| format!("cannot read {}", path.display()))
    }

    fn parse(text: &[u8]) -> Result<Self> {
        let mut log = Self::default();
        let mut deserializer = Deserializer::new();
        for entry in IntervalLogIterator::new(text) {
            let entry = entry.map_err(|error| anyhow!("not an interval log: {error:?}"))?;
            let LogEntry::Interval(interval) = entry else { continue };
            let bytes = STANDARD.decode(interval.encoded_histogram())?;
            let histogram = deserializer
                .deserialize(&mut io::Cursor::new(bytes))
                .map_err(|error| anyhow!("not a histogram: {error}"))?;
            match interval.tag().as_deref() {
                None => log.intervals.push(Interval {
                    at: interval.start_timestamp(),
                    length: interval.duration(),
                    latency: histogram,
                    lag: None,
                }),
                Some(LAG) => {
                    let last = log.intervals.last_mut().context("a lag comes before any latency")?;
                    last.lag = Some(histogram);
                }
                // Of somebody who added intervals of their own.
                Some(_) => {}
            }
        }
        Ok(log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).unwrap();
        for value in values {
            histogram.record(value).unwrap();
        }
        histogram
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.hlog");
        let interval = |seconds, latency, lag| Interval {
            at: Duration::from_secs(seconds),
            length: Duration::from_millis(1500),
            latency,
            lag,
        };
        let log = Log {
            intervals: vec![
                interval(3, histogram(1..5_000), Some(histogram([7, 9]))),
                interval(9, histogram([1_000_000, 12_345_678]), None),
            ],
        };
        log.write(&path).unwrap();
        let read = Log::read(&path).unwrap();
        assert_eq!(read.intervals.len(), 2);
        for (was, is) in log.intervals.iter().zip(&read.intervals) {
            assert_eq!(
                (was.at, was.length, &was.latency, &was.lag),
                (is.at, is.length, &is.latency, &is.lag)
            );
        }
        let again = log.write(&path).unwrap_err().to_string();
        assert!(again.starts_with("cannot write "), "{again}");
    }

    #[test]
    fn says_what_is_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.hlog");
        for text in ["0.1,1.0,2.0,bm8=\n", "Tag=lag,0.1,1.0,2.0,%\n", "nothing"] {
            std::fs::write(&path, text).unwrap();
            let error = format!("{:#}", Log::read(&path).unwrap_err());
            assert!(error.starts_with("cannot read "), "{error}");
        }
    }
}

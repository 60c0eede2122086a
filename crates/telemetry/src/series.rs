//! The series of the metrics: which label values exist, each bound once to a small number.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use prometheus::IntCounter;

/// The most series of one kind. Label values come from the configuration only, never from a request, but a
/// configuration may change for months: all series beyond these share one whose labels are `other`.
pub const MAX_SERIES: usize = 4096;

/// Whose requests a series counts. Empty where there is none, as for a request that no route took.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestLabels<'a> {
    /// `inbound`, `outbound` or `edge`.
    pub direction: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    /// The route's name.
    pub route: &'a str,
    /// The rule's name, or its number in the route.
    pub rule: &'a str,
    /// The backend's name.
    pub backend: &'a str,
}

/// Whose connections a series counts, where they are not HTTP.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpLabels<'a> {
    /// `inbound`, `outbound` or `edge`.
    pub direction: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    /// The route's name.
    pub route: &'a str,
    /// The backend's name.
    pub backend: &'a str,
}

/// The bound series of some requests. Valid with the [`Metrics`](crate::Metrics) that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Series(pub(crate) u16);

/// The bound series of some connections that are not HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TcpSeries(pub(crate) u16);

/// The bound series of the connections that a listener accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionSeries(pub(crate) u16);

/// The bound series of the connections to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackendSeries(pub(crate) u16);

/// The label values of one kind of series. Number 0 is the one that all share beyond [`MAX_SERIES`].
pub(crate) struct Index {
    names: &'static [&'static str],
    bound: Mutex<Bound>,
    overflow: IntCounter,
}

struct Bound {
    /// By the values in a row, each with [`END`] behind it.
    numbers: HashMap<Box<str>, u16>,
    values: Vec<Vec<String>>,
    /// The row that is looked for, kept for its memory: a configuration binds thousands at once.
    row: String,
}

/// No name has it in it.
const END: char = '\0';

impl Index {
    pub(crate) fn new(names: &'static [&'static str], overflow: &IntCounter) -> Self {
        let other = vec!["other".to_owned(); names.len()];
        let bound = Bound { numbers: HashMap::new(), values: vec![other], row: String::new() };
        Self { names, bound: Mutex::new(bound), overflow: overflow.clone() }
    }

    /// The number of the series with these values, in the order of the names.
    pub(crate) fn bind(&self, values: &[&str]) -> u16 {
        let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
        let Bound { numbers, values: bound, row } = &mut *bound;
        row.clear();
        for value in values {
            row.push_str(value);
            row.push(END);
        }
        if let Some(&number) = numbers.get(row.as_str()) {
            return number;
        }
        if bound.len() > MAX_SERIES {
            self.overflow.inc();
            return 0;
        }
        let number = bound.len() as u16;
        bound.push(values.iter().map(|&value| value.to_owned()).collect());
        numbers.insert(row.as_str().into(), number);
        number
    }

    pub(crate) fn names(&self) -> &'static [&'static str] {
        self.names
    }

    /// The values of every series, by number.
    pub(crate) fn values(&self) -> Vec<Vec<String>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner).values.clone()
    }
}

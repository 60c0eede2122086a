//! Numbers, loads and verdicts as a reader sees them.

use std::fmt::Write;

use super::table::{Cell, Tone};
use crate::{
    load::{Arrivals, Connect, Load, Tls, Traffic},
    result::{Figure, Run, Scenario, Target, Verdict},
};

/// A number with about three digits that say something; ratios have three after the point, as theirs are close to 1.
pub(super) fn number(value: f64, unit: &str) -> String {
    let size = value.abs();
    let decimals = match unit {
        "×" if size < 10.0 => 3,
        "errors" | "requests" if value.fract() == 0.0 => 0,
        _ if size == 0.0 => 0,
        _ if size < 0.1 => 3,
        _ if size < 10.0 => 2,
        _ if size < 100.0 => 1,
        _ => 0,
    };
    let digits = format!("{size:.decimals$}");
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    let mut text = String::new();
    // What rounds to nothing has no sign.
    if value < 0.0 && digits.bytes().any(|digit| (b'1'..=b'9').contains(&digit)) {
        text.push('−');
    }
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

/// A number of things, in full.
pub(super) fn count(things: u64) -> String {
    number(things as f64, "errors")
}

/// As [`number`], of how much something changed.
pub(super) fn signed(value: f64, unit: &str) -> String {
    let text = number(value, unit);
    let positive = value > 0.0 && text.bytes().any(|digit| (b'1'..=b'9').contains(&digit));
    if positive { format!("+{text}") } else { text }
}

pub(super) fn with_unit(value: f64, unit: &str) -> String {
    format!("{} {unit}", number(value, unit)).trim_end().to_owned()
}

pub(super) fn interval(interval: (f64, f64), unit: &str) -> String {
    format!("{} … {}", number(interval.0, unit), number(interval.1, unit))
}

/// Or a dash.
pub(super) fn maybe<T>(value: Option<T>, words: impl FnOnce(T) -> String) -> Cell {
    value.map_or_else(Cell::nothing, |value| words(value).into())
}

pub(super) fn target(figure: &Figure) -> Cell {
    // A target is a round number: as it was set, without digits that nobody set.
    let unit = &figure.unit;
    let round = |value: f64| {
        if ["errors", "requests"].contains(&unit.as_str()) {
            format!("{value}")
        } else {
            format!("{value} {unit}")
        }
    };
    match figure.target {
        Some(Target::AtMost(most)) => format!("≤ {}", round(most)).into(),
        Some(Target::AtLeast(least)) => format!("≥ {}", round(least)).into(),
        None => Cell::nothing(),
    }
}

/// Met, missed, with a question mark where the interval reaches over the target.
pub(super) fn verdict(figure: &Figure) -> Cell {
    let unsure = if figure.is_clear() { "" } else { "?" };
    match figure.verdict {
        Verdict::Met => Cell::of(format!("met{unsure}"), Tone::Good),
        Verdict::Missed => Cell::of(format!("missed{unsure}"), Tone::Bad),
        Verdict::Unknown => Cell::of("not measured", Tone::Faint),
        Verdict::Informative => "".into(),
    }
}

/// How many targets are met, in a sentence.
pub(super) fn tally(run: &Run) -> String {
    let with_target = || run.figures.iter().filter(|figure| figure.target.is_some());
    let count = |verdict| with_target().filter(|figure| figure.verdict == verdict).count();
    let mut text = format!("{} of {} targets met", count(Verdict::Met), with_target().count());
    for (count, words) in [(count(Verdict::Missed), "missed"), (count(Verdict::Unknown), "not measured")] {
        if count > 0 {
            let _ = write!(text, ", {count} {words}");
        }
    }
    text
}

/// What a load counts: its name in the singular, short.
pub(super) fn unit_of_work(load: Option<&Load>) -> &'static str {
    match load.map(|load| load.traffic) {
        Some(Traffic::TcpBulk) => "MiB",
        Some(Traffic::GrpcStream | Traffic::WebSocket | Traffic::Tcp) => "msg",
        _ => "req",
    }
}

/// The load of a scenario in a line, if it has one; that of a sweep from its lowest rate to its highest.
pub(super) fn scenario(scenario: &Scenario) -> Option<String> {
    let steps = scenario.subjects.iter().flat_map(|subject| &subject.steps).map(|step| step.asked_rate);
    Some(described(scenario.load.as_ref()?, steps.reduce(f64::max)))
}

/// A load in a line.
pub(super) fn load(load: &Load) -> String {
    described(load, None)
}

fn described(load: &Load, up_to: Option<f64>) -> String {
    let spoken = match load.traffic {
        Traffic::Http1 => "HTTP/1.1",
        Traffic::Http2 => "HTTP/2",
        Traffic::Grpc => "gRPC, unary",
        Traffic::GrpcStream => "gRPC, streams in both directions",
        Traffic::WebSocket => "WebSocket",
        Traffic::Tcp => "TCP, a message and its echo",
        Traffic::TcpBulk => "TCP in bulk",
    };
    let up_to = up_to.map_or(String::new(), |rate| format!(" to {}", number(rate, "errors")));
    let arrivals = match load.arrivals {
        Arrivals::Poisson { rate } => format!("{}{up_to}/s, Poisson arrivals", number(rate, "errors")),
        Arrivals::Fixed { rate } => format!("{}{up_to}/s, at fixed intervals", number(rate, "errors")),
        Arrivals::Saturated => "as fast as answers come".into(),
    };
    let connections = match (load.connect, load.connections) {
        (Connect::Each, _) => "a new connection each".into(),
        (Connect::Keep, 1) => "1 connection".into(),
        (Connect::Keep, connections) => format!("{} connections", count(connections.into())),
    };
    let streams = if load.streams > 1 { format!(" of {} streams", load.streams) } else { String::new() };
    let tls = match load.tls {
        Tls::Off => "",
        Tls::Full => ", TLS with full handshakes",
        Tls::Resumed => ", TLS with resumed handshakes",
    };
    let bytes = format!("{} there, {} back", size(load.request_bytes), size(load.response_bytes));
    let bytes = if load.traffic == Traffic::TcpBulk { String::new() } else { format!("; {bytes}") };
    format!("{spoken}, {arrivals}; {connections}{streams}{tls}{bytes}")
}

fn size(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{} B", count(bytes as u64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_say_something() {
        let cases = [
            (0.97412, "×", "0.974"),
            (12.34, "×", "12.3"),
            (30.04, "µs", "30.0"),
            (-1.234, "µs", "−1.23"),
            (-0.0001, "µs", "0.000"),
            (1234.5, "µs", "1,234"),
            (1_234_567.0, "KiB", "1,234,567"),
            (0.0, "ms", "0"),
            (3.0, "errors", "3"),
        ];
        for (value, unit, expected) in cases {
            assert_eq!(number(value, unit), expected);
        }
        assert_eq!([1.5, -1.5, 0.0].map(|value| signed(value, "%")), ["+1.50", "−1.50", "0"]);
        assert_eq!(interval((0.9, 1.1), "×"), "0.900 … 1.100");
    }
}

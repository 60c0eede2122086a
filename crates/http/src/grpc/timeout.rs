//! How long the caller of a call waits: `grpc-timeout`, which each hop honours and passes on with what is left.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// How long the call may take.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The most that there is room for: eight digits.
const MOST: u128 = 99_999_999;

/// The units, from the finest on, each with its nanoseconds.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// How long a call may take, as its header says. `None` if it says nothing, or what is not allowed: that is for the
/// application to judge.
pub fn read(headers: &HeaderMap) -> Option<Duration> {
    parse(headers.get(GRPC_TIMEOUT)?.as_bytes())
}

/// Says in a call's header how long it still may take.
pub fn write(headers: &mut HeaderMap, left: Duration) {
    headers.insert(GRPC_TIMEOUT, format(left));
}

/// One to eight digits and a unit: `TimeoutValue TimeoutUnit`.
fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) {
        return None;
    }
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u128::from(byte - b'0'));
    let number = digits.iter().try_fold(0, |sum, byte| Some(sum * 10 + digit(byte)?))?;
    let (_, nanos) = UNITS.iter().find(|(name, _)| name == unit)?;
    let nanos = number * nanos;
    Some(Duration::new((nanos / 1_000_000_000) as u64, (nanos % 1_000_000_000) as u32))
}

/// In the finest unit that has room for it, rounded down, for who waits does not wait longer; but never 0, which is not
/// a timeout.
fn format(left: Duration) -> HeaderValue {
    let nanos = left.as_nanos().max(1);
    let fits = UNITS.iter().find(|(_, unit)| nanos / unit <= MOST);
    let (name, unit) = fits.copied().unwrap_or(UNITS[UNITS.len() - 1]);
    let text = format!("{}{}", (nanos / unit).min(MOST), char::from(name));
    // Digits and a letter are always a value.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("1n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_those_of_the_specification() {
        for (text, expected) in [
            ("1H", Some(Duration::from_hours(1))),
            ("2M", Some(Duration::from_mins(2))),
            ("10S", Some(Duration::from_secs(10))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("0n", Some(Duration::ZERO)),
            ("00000007S", Some(Duration::from_secs(7))),
            ("100000000n", None),
            ("", None),
            ("S", None),
            ("10", None),
            ("10s", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            (" 1S", None),
            ("1SS", None),
        ] {
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(format(Duration::from_millis(250)), "250000u");
        assert_eq!(format(Duration::from_millis(20)), "20000000n");
        assert_eq!(format(Duration::ZERO), "1n");
        assert_eq!(format(Duration::MAX), "99999999H");
    }

    proptest! {
        /// What is left is said to about a millionth, and never to be more than it is.
        #[test]
        fn what_is_written_is_what_is_read(seconds in 0..300_000_000u64, nanos in 1..1_000_000_000u32) {
            let left = Duration::new(seconds, nanos);
            let read = parse(format(left).as_bytes()).unwrap();
            prop_assert!(read <= left, "{read:?} {left:?}");
            // The step from one unit to the next is from 99,999,999 down, by 3,600 at most.
            prop_assert!(left.abs_diff(read).as_secs_f64() <= left.as_secs_f64() / 27_000.0, "{read:?} {left:?}");
            prop_assert!(format(left).len() <= 9);
        }

        #[test]
        fn no_bytes_are_too_much(value: Vec<u8>) {
            let _ = parse(&value);
        }

        #[test]
        fn what_is_read_passes_unchanged(number in 1..=99_999_999u32, unit in 0..6usize) {
            let text = format!("{number}{}", char::from(UNITS[unit].0));
            let read = parse(text.as_bytes()).unwrap();
            prop_assert_eq!(parse(format(read).as_bytes()), Some(read));
        }
    }
}

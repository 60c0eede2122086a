//! Lengths of time.

use std::fmt;
use std::str::FromStr;

use super::{Refused, refuse};

/// A length of time as the Gateway API writes it (GEP-2257): `250ms`, `10s`, `1h30m`, `0s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Duration(std::time::Duration);

text!(
    Duration,
    "Duration",
    "a duration, such as 250ms or 10s",
    "A length of time: up to four numbers of at most five digits, each with a unit: h, m, s or ms.",
    r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
);

impl Duration {
    /// The duration as the standard library has it.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// The duration as a limit: `0s` is none.
    pub const fn limit(self) -> Option<std::time::Duration> {
        if self.0.is_zero() { None } else { Some(self.0) }
    }

    /// A duration of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    /// A duration of whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(std::time::Duration::from_secs(secs))
    }
}

impl FromStr for Duration {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let wrong = || {
            Refused(format!(
                "`{text}` is not a duration: write a number with h, m, s or ms, such as 250ms or 1h30m"
            ))
        };
        let (mut rest, mut millis, mut parts) = (text, 0u64, 0);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let unit = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(unit);
            let factor = match unit {
                "h" => 3_600_000,
                "m" => 60_000,
                "s" => 1_000,
                "ms" => 1,
                _ => return Err(wrong()),
            };
            if !(1..=5).contains(&digits) {
                return Err(wrong());
            }
            millis += number.parse::<u64>().map_err(|_| wrong())? * factor;
            parts += 1;
            rest = tail;
        }
        if !(1..=4).contains(&parts) {
            return Err(wrong());
        }
        // What is longer could not be printed back: its hours would have six digits.
        if millis >= 100_000 * 3_600_000 {
            return refuse(format!("`{text}` is too long: at most 99999h"));
        }
        Ok(Self::from_millis(millis))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if millis >= factor {
                write!(f, "{}{unit}", millis / factor)?;
                millis %= factor;
            }
        }
        Ok(())
    }
}

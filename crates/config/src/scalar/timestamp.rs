//! Moments in time.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use super::{Refused, refuse};

/// A moment in time as Kubernetes writes it (RFC 3339): `2026-01-31T08:00:00Z`. Written in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(OffsetDateTime);

text!(
    Timestamp,
    "Timestamp",
    "a time, such as 2026-01-31T08:00:00Z",
    "A moment in time (RFC 3339), such as 2026-01-31T08:00:00Z.",
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[-+][0-9]{2}:[0-9]{2})$"
);

/// The second that it is in.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let time = OffsetDateTime::from(time);
        Self(time.replace_nanosecond(0).unwrap_or(time))
    }
}

impl FromStr for Timestamp {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok();
        // At the edges of the calendar a time may have no equal in UTC.
        match time.and_then(|time| time.checked_to_offset(UtcOffset::UTC)).filter(|time| time.year() >= 0) {
            Some(time) => Ok(Self(time)),
            None => refuse(format!(
                "`{}` is not a time: write it as in RFC 3339, such as 2026-01-31T08:00:00Z",
                text.escape_debug()
            )),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

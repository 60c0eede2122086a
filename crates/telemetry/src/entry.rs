//! The lines of the access log: JSON, one object on a line, a key left out where there is nothing to say.

#![allow(clippy::ref_option_ref, reason = "serde passes references to fields")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};

/// A finished request, as it is logged. What came from the network as bytes is logged as text; bytes that are not
/// UTF-8 are replaced by U+FFFD.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry<'a> {
    /// When the request's head came. Logged in RFC 3339, UTC, with milliseconds.
    #[serde(serialize_with = "timestamp")]
    pub time: SystemTime,
    /// `inbound`, `outbound` or `edge`.
    pub direction: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    /// The request's method.
    pub method: &'a str,
    /// `http` or `https`, as the caller used it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<&'a str>,
    /// The host that was asked for, with the port where one was given.
    #[serde(serialize_with = "lossy")]
    pub host: &'a [u8],
    /// The path, with the query.
    pub path: &'a str,
    /// `HTTP/1.1`, `HTTP/2.0` …
    pub protocol: &'a str,
    /// The status that the caller got; 0 where it left before there was one.
    pub status: u16,
    /// The Proxy-Status reason, where the proxy itself made the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// More about the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<&'a str>,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// From the request's head to the end of the response's body; logged as `durationMs`, to the microsecond.
    #[serde(rename = "durationMs", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// The route that took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// The rule that took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'a str>,
    /// The backend that it went to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<&'a str>,
    /// The endpoint that it went to last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// The SPIFFE ID that the caller proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<&'a str>,
    /// Where the caller's connection came from.
    pub caller_address: SocketAddr,
    /// The SPIFFE ID that the callee proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callee: Option<&'a str>,
    /// How often it was sent; 0 where it never left the proxy.
    pub attempts: u32,
    /// The caller's software, by its own account.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "optional_lossy")]
    pub user_agent: Option<&'a [u8]>,
}

/// A finished connection that is not HTTP, as it is logged.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpEntry<'a> {
    /// When the connection was accepted. Logged in RFC 3339, UTC, with milliseconds.
    #[serde(serialize_with = "timestamp")]
    pub time: SystemTime,
    /// `inbound`, `outbound` or `edge`.
    pub direction: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    /// `TCP` or `TLS`.
    pub protocol: &'a str,
    /// The name that was asked for in the TLS handshake (RFC 6066, section 3).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<&'a str>,
    /// The Proxy-Status reason, where the proxy ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// What went wrong, where something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
    /// Bytes sent to the backend.
    pub sent_bytes: u64,
    /// Bytes received from the backend.
    pub received_bytes: u64,
    /// How long it lasted; logged as `durationMs`, to the microsecond.
    #[serde(rename = "durationMs", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// The route that took it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// The backend that it went to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<&'a str>,
    /// The endpoint that it went to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// The SPIFFE ID that the caller proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<&'a str>,
    /// Where the caller's connection came from.
    pub caller_address: SocketAddr,
    /// The SPIFFE ID that the callee proved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callee: Option<&'a str>,
}

fn lossy<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(bytes))
}

fn optional_lossy<S: Serializer>(bytes: &Option<&[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    lossy(bytes.unwrap_or_default(), serializer)
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_micros() as f64 / 1_000.0)
}

fn timestamp<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let mut text = [0; 32];
    let mut rest = text.as_mut_slice();
    let written =
        write!(rest, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z");
    let length = 32 - rest.len();
    written.map_err(serde::ser::Error::custom)?;
    serializer.serialize_str(std::str::from_utf8(&text[..length]).map_err(serde::ser::Error::custom)?)
}

/// The year, month and day in the Gregorian calendar, so many days after 1970-01-01. Counts eras of 400 years from
/// the first of March of the year 0, so that a leap day is the last day of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests;

//! A line of JSON, written field by field.
//!
//! By hand, as there is a line for each request: it takes a third of the time of a derived serializer. Only what has
//! to be escaped, which is rare, is left to a serializer.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An object on one line, at the end of a buffer.
pub(crate) struct Line<'a> {
    out: &'a mut Vec<u8>,
    separator: u8,
}

impl<'a> Line<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, separator: b'{' }
    }

    pub(crate) fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }

    /// Begins a field. Keys are constants without anything to escape.
    fn key(&mut self, key: &'static str) {
        self.out.extend_from_slice(&[self.separator, b'"']);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.separator = b',';
    }

    pub(crate) fn text(&mut self, key: &'static str, text: &str) {
        self.bytes(key, text.as_bytes());
    }

    /// A field of text that came as bytes; those that are not UTF-8 are replaced by U+FFFD.
    pub(crate) fn bytes(&mut self, key: &'static str, bytes: &[u8]) {
        self.key(key);
        // Looks at every byte, as a loop without a way out is done many bytes at a time.
        let plain = bytes.iter().fold(true, |plain, &byte| {
            plain & (byte >= b' ') & (byte < 0x7f) & (byte != b'"') & (byte != b'\\')
        });
        if plain {
            self.out.push(b'"');
            self.out.extend_from_slice(bytes);
            self.out.push(b'"');
        } else if serde_json::to_writer(&mut *self.out, &String::from_utf8_lossy(bytes)).is_err() {
            // Not to be reached: text can always be written to memory. Still, the line stays JSON.
            self.out.extend_from_slice(b"null");
        }
    }

    pub(crate) fn optional(&mut self, key: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(key, text);
        }
    }

    pub(crate) fn number(&mut self, key: &'static str, number: u64) {
        self.key(key);
        self.digits(number);
    }

    /// A duration in milliseconds, to the microsecond.
    pub(crate) fn milliseconds(&mut self, key: &'static str, duration: Duration) {
        self.key(key);
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.digits(micros / 1_000);
        self.out.push(b'.');
        self.padded::<3>(micros % 1_000);
    }

    pub(crate) fn address(&mut self, key: &'static str, address: SocketAddr) {
        self.key(key);
        self.out.push(b'"');
        match address {
            SocketAddr::V4(address) => {
                for (index, octet) in address.ip().octets().into_iter().enumerate() {
                    if index > 0 {
                        self.out.push(b'.');
                    }
                    self.digits(u64::from(octet));
                }
                self.out.push(b':');
                self.digits(u64::from(address.port()));
            }
            SocketAddr::V6(address) => self.out.extend_from_slice(address.to_string().as_bytes()),
        }
        self.out.push(b'"');
    }

    /// A time in RFC 3339, UTC, with milliseconds. What is before 1970 is written as its first moment.
    pub(crate) fn time(&mut self, key: &'static str, time: SystemTime) {
        self.key(key);
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let (year, month, day) = civil(seconds / 86_400);
        self.out.push(b'"');
        self.padded::<4>(year);
        self.out.push(b'-');
        self.padded::<2>(month);
        self.out.push(b'-');
        self.padded::<2>(day);
        self.out.push(b'T');
        self.padded::<2>(seconds / 3_600 % 24);
        self.out.push(b':');
        self.padded::<2>(seconds / 60 % 60);
        self.out.push(b':');
        self.padded::<2>(seconds % 60);
        self.out.push(b'.');
        self.padded::<3>(u64::from(since.subsec_millis()));
        self.out.extend_from_slice(b"Z\"");
    }

    fn digits(&mut self, number: u64) {
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    /// The last `N` digits of a number.
    fn padded<const N: usize>(&mut self, mut number: u64) {
        let mut digits = [b'0'; N];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.out.extend_from_slice(&digits);
    }
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

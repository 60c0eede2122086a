//! How long a backend asks to be left alone: `Retry-After` (RFC 9110, section 10.2.3).

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{Response, StatusCode};

/// How long a response asks to wait before the request is sent again; nothing where it does not say, or its status is not one
/// of those that say it of a service which is busy.
pub(super) fn asked<B>(response: &Response<B>, now: SystemTime) -> Duration {
    let busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
    if !busy.contains(&response.status()) {
        return Duration::ZERO;
    }
    let value = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    value.and_then(|value| parse(value, now)).unwrap_or_default()
}

/// Seconds, or a date, in any of the three forms of HTTP.
fn parse(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than can be counted is longer than anybody waits.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    // One that has passed asks for no wait.
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_a_number_of_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (value, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3)),
            ("Sunday, 06-Nov-94 08:49:40 GMT", Some(3)),
            ("Sun Nov  6 08:49:40 1994", Some(3)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(parse(value, now), expected.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn only_a_service_that_is_busy_is_waited_for() {
        for (status, expected) in [(503, 7), (429, 7), (502, 0), (301, 0)] {
            let response = Response::builder().status(status).header(RETRY_AFTER, "7").body(()).unwrap();
            assert_eq!(asked(&response, SystemTime::now()), Duration::from_secs(expected), "{status}");
        }
    }
}

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::Value;

use super::{Line, civil};

fn parsed(write: impl FnOnce(&mut Line<'_>)) -> Value {
    let mut text = Vec::new();
    let mut line = Line::new(&mut text);
    write(&mut line);
    line.end();
    assert_eq!(text.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line");
    serde_json::from_slice(&text).unwrap()
}

proptest! {
    #[test]
    fn any_text_comes_back(text: String) {
        prop_assert_eq!(&parsed(|line| line.text("key", &text))["key"], &Value::from(text));
    }

    #[test]
    fn any_bytes_come_back_as_text(bytes: Vec<u8>) {
        let text = String::from_utf8_lossy(&bytes);
        prop_assert_eq!(&parsed(|line| line.bytes("key", &bytes))["key"], &Value::from(text));
    }

    #[test]
    fn any_number_comes_back(number: u64) {
        prop_assert_eq!(&parsed(|line| line.number("key", number))["key"], &Value::from(number));
    }

    #[test]
    fn any_address_comes_back(address: SocketAddr) {
        let value = parsed(|line| line.address("key", address));
        prop_assert_eq!(&value["key"], &Value::from(address.to_string()));
    }

    #[test]
    fn any_duration_comes_back(micros in 0..1_000_000_000_000u64) {
        let value = parsed(|line| line.milliseconds("key", Duration::from_micros(micros)));
        prop_assert_eq!(value["key"].as_f64(), Some(micros as f64 / 1_000.0));
    }
}

#[test]
fn times_are_in_utc_with_milliseconds() {
    let text = |time: SystemTime| parsed(|line| line.time("key", time))["key"].as_str().unwrap().to_owned();
    assert_eq!(text(UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    assert_eq!(text(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
    assert_eq!(text(UNIX_EPOCH + Duration::from_millis(1_709_251_199_999)), "2024-02-29T23:59:59.999Z");
}

#[test]
fn days_are_counted_through_leap_years() {
    for (days, date) in [
        (0, (1970, 1, 1)),
        (58, (1970, 2, 28)),
        (59, (1970, 3, 1)),
        (789, (1972, 2, 29)),
        (11_016, (2000, 2, 29)),
        (11_017, (2000, 3, 1)),
        (20_777, (2026, 11, 20)),
        (47_540, (2100, 2, 28)),
        (47_541, (2100, 3, 1)),
    ] {
        assert_eq!(civil(days), date, "{days} days");
    }
    let mut last = civil(0);
    for days in 1..100_000 {
        let next = civil(days);
        assert!(next > last && (1..=31).contains(&next.2) && (1..=12).contains(&next.1), "{days} days");
        last = next;
    }
}

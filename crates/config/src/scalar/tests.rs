use std::fmt::Display;
use std::str::FromStr;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// What is accepted prints as text that means the same, and is refused by nothing on its way through JSON.
fn round_trip<T>(text: &str) -> Result<(), TestCaseError>
where
    T: FromStr + Display + PartialEq + std::fmt::Debug + serde::Serialize + for<'de> serde::Deserialize<'de>,
{
    if let Ok(value) = text.parse::<T>() {
        let printed = value.to_string().parse::<T>().ok();
        prop_assert_eq!(printed.as_ref(), Some(&value));
        let json = serde_json::to_value(&value).unwrap();
        prop_assert_eq!(serde_json::from_value::<T>(json).unwrap(), value);
    }
    Ok(())
}

proptest! {
    #[test]
    fn durations(text in "([0-9]{1,6}(h|m|s|ms|us|)){0,5}") {
        round_trip::<Duration>(&text)?;
    }

    #[test]
    fn every_duration_of_the_pattern_is_one(text in "([0-9]{1,4}(h|m|s|ms)){1,4}") {
        prop_assert!(text.parse::<Duration>().is_ok());
    }

    #[test]
    fn networks(v4: [u8; 4], v6: [u8; 16], bits in 0u8..=130) {
        for address in [std::net::IpAddr::from(v4), v6.into()] {
            round_trip::<Cidr>(&address.to_string())?;
            round_trip::<Cidr>(&format!("{address}/{bits}"))?;
            prop_assert!(address.to_string().parse::<Cidr>().unwrap().contains(address));
        }
        prop_assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains(v4.into()));
    }

    #[test]
    fn times(text in "20[0-9]{2}-0[0-3]-[0-3][0-9][Tt][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{1,10})?(Z|[+-][0-2][0-9]:[0-9]{2})") {
        round_trip::<Timestamp>(&text)?;
    }

    #[test]
    fn names(text in "[a-cA-C0-1.-]{0,8}") {
        round_trip::<Name>(&text)?;
        round_trip::<Hostname>(&text)?;
        round_trip::<Hostname>(&format!("*.{text}"))?;
    }

    #[test]
    fn addresses(text in r"(\[[0-9a-f:]{0,8}\]|[0-9.]{0,15}|[a-z.-]{0,10}):[0-9]{0,6}") {
        round_trip::<HostPort>(&text)?;
    }

    #[test]
    fn addresses_of_both_families(v4: std::net::Ipv4Addr, v6: std::net::Ipv6Addr, port in 1u16..) {
        for address in [std::net::SocketAddr::from((v4, port)), (v6, port).into()] {
            prop_assert_eq!(address.to_string().parse::<HostPort>().unwrap(), HostPort::Socket(address));
        }
    }

    #[test]
    fn identities(text in "spiffe://[a-c._-]{0,4}(/[a-cA-C._-]{0,3}){0,4}") {
        round_trip::<SpiffeId>(&text)?;
    }

    #[test]
    fn anything_is_accepted_or_refused(text: String) {
        round_trip::<Duration>(&text)?;
        round_trip::<Name>(&text)?;
        round_trip::<Hostname>(&text)?;
        round_trip::<HostPort>(&text)?;
        round_trip::<SpiffeId>(&text)?;
        round_trip::<HeaderName>(&text)?;
        round_trip::<HeaderValue>(&text)?;
        round_trip::<Method>(&text)?;
        round_trip::<Pattern>(&text)?;
    }
}

#[test]
fn durations_mean_what_they_say() {
    for (text, millis) in
        [("250ms", 250), ("10s", 10_000), ("1h30m", 5_400_000), ("0s", 0), ("1m5ms", 60_005)]
    {
        assert_eq!(text.parse(), Ok(Duration::from_millis(millis)), "{text}");
    }
    for text in ["", "10", "1.5s", "-1s", "s", "100000s", "1h1h1h1h1h", "99999h99999h", "1d", "1 s", "１s"] {
        assert!(text.parse::<Duration>().is_err(), "{text}");
    }
    assert_eq!(Duration::from_millis(90_061_001).to_string(), "25h1m1s1ms");
}

#[test]
fn hosts_are_lower_case_and_wildcards_whole_labels() {
    assert_eq!("Shop.Example".parse(), Ok(Hostname::Exact("shop.example".into())));
    assert_eq!("*.Example".parse(), Ok(Hostname::Wildcard(".example".into())));
    for text in
        ["", "*", "*.", "a*.example", "*.*.example", "shop.example:80", "shop..example", "-a", "a-", "ä.de"]
    {
        assert!(text.parse::<Hostname>().is_err(), "{text}");
    }
}

#[test]
fn addresses_need_a_port_and_brackets() {
    assert_eq!("LocalHost:80".parse(), Ok(HostPort::Name("localhost".into(), 80)));
    for text in [
        "127.0.0.1:0",
        "localhost",
        "localhost:",
        "localhost:65536",
        "::1:80",
        "1.2.3.4.5:80",
        "a b:1",
        ":80",
    ] {
        assert!(text.parse::<HostPort>().is_err(), "{text}");
    }
}

#[test]
fn identities_have_a_trust_domain_and_a_path() {
    let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/api".parse().unwrap();
    assert_eq!(id.trust_domain(), "cluster.local");
    for text in [
        "spiffe://",
        "spiffe://a",
        "spiffe:///a",
        "spiffe://a/",
        "spiffe://a//b",
        "spiffe://a/..",
        "https://a/b",
    ] {
        assert!(text.parse::<SpiffeId>().is_err(), "{text}");
    }
}

#[test]
fn header_values_are_one_line() {
    assert!("ü, \t~".parse::<HeaderValue>().is_ok());
    for text in ["a\r\nb: c".to_owned(), "\0".to_owned(), "x".repeat(4097)] {
        assert!(text.parse::<HeaderValue>().is_err());
    }
    assert!("x y".parse::<HeaderName>().is_err());
    assert_eq!("X-Shop".parse::<HeaderName>().unwrap().to_string(), "x-shop");
    assert!("get".parse::<Method>().is_err());
}

#[test]
fn patterns_match_the_whole_text() {
    let pattern: Pattern = "a|b".parse().unwrap();
    assert_eq!(["a", "b", "ab", "xa"].map(|text| pattern.is_match(text)), [true, true, false, false]);
    // `)(` would close the group that anchors it; the other is too big to compile.
    for text in [")(", "(", r"\w{1000}{1000}"] {
        assert!(text.parse::<Pattern>().is_err(), "{text}");
    }
}

#[test]
fn what_is_not_text_is_refused_by_what_was_expected() {
    let error = serde_json::from_value::<Duration>(json!(10)).unwrap_err();
    assert_eq!(error.to_string(), "invalid type: integer `10`, expected a duration, such as 250ms or 10s");
}

#[test]
fn a_time_is_the_same_in_every_zone() {
    let utc: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
    assert_eq!("2026-01-31T09:30:00+01:30".parse(), Ok(utc));
    assert_eq!(utc.to_string(), "2026-01-31T08:00:00Z");
    assert!("2026-01-31T07:59:59.999Z".parse::<Timestamp>().unwrap() < utc);
    let now = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_769_846_400_999);
    assert_eq!(Timestamp::from(now), utc);
    for wrong in
        ["", "2026-01-31", "2026-02-30T00:00:00Z", "2026-01-31 08:00:00", "0000-01-01T00:00:00+01:00"]
    {
        assert!(wrong.parse::<Timestamp>().is_err(), "{wrong}");
    }
}

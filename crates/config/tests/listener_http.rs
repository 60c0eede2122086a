//! How a listener serves HTTP: what is said, and what holds where nothing is.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use outrigger_config::listener::{EncodedSlash, HttpLimits, HttpPath, MinBodyRate, Normalize};
use outrigger_config::resource::Spec;
use outrigger_config::{Kind, Listener, Resource};
use serde_json::{Value, json};

fn listener(spec: &Value) -> Result<Arc<Listener>, String> {
    let mut all = json!({ "address": "127.0.0.1:0" });
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let resource = Resource::parse(Kind::Listener, "web", all).map_err(|invalid| invalid.to_string())?;
    assert_eq!(Resource::parse(Kind::Listener, "web", resource.spec_json()), Ok(resource.clone()));
    match resource.spec {
        Spec::Listener(listener) => Ok(listener),
        _ => unreachable!(),
    }
}

#[test]
fn what_is_not_said_depends_on_the_direction() {
    for (direction, on) in [("Edge", true), ("Inbound", false), ("Outbound", false)] {
        let web = listener(&json!({ "direction": direction })).unwrap();
        assert_eq!((web.x_forwarded(), web.http.forwarded.forwarded), (on, false), "{direction}");
        assert_eq!(web.via().is_some(), on, "{direction}");
        assert_eq!(web.http.path, HttpPath::default());
        assert_eq!(
            (web.http.limits.header_bytes, web.http.limits.header_fields, web.http.limits.connections),
            (65_536, 128, None)
        );
        assert_eq!(web.http.timeouts.header(), Some(Duration::from_mins(1)));
        assert_eq!(web.http.timeouts.idle(), Some(Duration::from_mins(5)));
    }
    let web = listener(&json!({})).unwrap();
    assert_eq!(web.via().unwrap().as_str(), "outrigger");
}

#[test]
fn what_is_said_holds() {
    let web = listener(&json!({ "direction": "Inbound", "http": {
        "path": { "normalize": "None", "mergeSlashes": true, "encodedSlash": "Slash" },
        "forwarded": { "xForwarded": true, "forwarded": true, "trust": ["10.0.0.0/8", "2001:db8::/32"] },
        "via": "front-1",
        "limits": { "headerBytes": 1024, "minBodyRate": { "bytesPerSecond": 100 } },
        "timeouts": { "idle": "0s" }
    }}))
    .unwrap();
    let path =
        HttpPath { normalize: Normalize::None, merge_slashes: true, encoded_slash: EncodedSlash::Slash };
    assert_eq!(web.http.path, path);
    assert!(web.x_forwarded() && web.http.forwarded.forwarded);
    let rate = MinBodyRate { bytes_per_second: 100, grace: outrigger_config::Duration::from_secs(5) };
    let limits = HttpLimits { header_bytes: 1024, min_body_rate: Some(rate), ..HttpLimits::default() };
    assert_eq!(web.http.limits, limits);
    assert_eq!(web.via().unwrap().as_str(), "front-1");
    assert_eq!(web.http.timeouts.idle(), None);
    for (peer, trusted) in [
        ("10.255.0.1", true),
        ("::ffff:10.0.0.1", true),
        ("11.0.0.1", false),
        ("2001:db8:ffff::1", true),
        ("2001:db9::", false),
    ] {
        assert_eq!(web.http.forwarded.trusts(peer.parse().unwrap()), trusted, "{peer}");
    }
}

#[test]
fn via_is_a_name_or_a_switch() {
    let via = |direction: &str, via: Value| {
        let listener = listener(&json!({ "direction": direction, "http": { "via": via } }))?;
        Ok::<_, String>(listener.via().map(|name| name.to_string()))
    };
    assert_eq!(via("Edge", json!(false)), Ok(None));
    assert_eq!(via("Inbound", json!(true)), Ok(Some("outrigger".into())));
    assert_eq!(via("Inbound", json!("a")), Ok(Some("a".into())));
    assert_eq!(via("Edge", Value::Null), Ok(Some("outrigger".into())));
    assert!(via("Edge", json!("two words")).unwrap_err().starts_with("http.via: `two words` is not a token"));
    assert_eq!(
        via("Edge", json!(1)),
        Err("http.via: expected a name, `true` or `false`, found the number `1`".into())
    );
}

#[test]
fn limits_name_their_field() {
    for (http, expected) in [
        (
            json!({ "limits": { "headerBytes": 1_048_577 } }),
            "http.limits.headerBytes: 1048577 is out of range: it must be 1024 to 1048576",
        ),
        (
            json!({ "limits": { "headerFields": 8193 } }),
            "http.limits.headerFields: 8193 is out of range: it must be 16 to 8192",
        ),
        (
            json!({ "limits": { "minBodyRate": { "bytesPerSecond": 0 } } }),
            "http.limits.minBodyRate.bytesPerSecond: 0 is out of range: it must be at least 1",
        ),
        (
            json!({ "limits": { "headerByte": 1 } }),
            "http.limits.headerByte: unknown field `headerByte`: did you mean `headerBytes`?",
        ),
        (
            json!({ "path": { "encodedSlash": "Reject" } }),
            "http.path.encodedSlash: unknown value `Reject`: use one of `Keep`, `Refuse`, `Slash`",
        ),
        (
            json!({ "forwarded": { "trust": ["10.0.0.1/8"] } }),
            "http.forwarded.trust[0]: `10.0.0.1/8` is not a network: its first address is 10.0.0.0: write \
             10.0.0.0/8, or 10.0.0.1 alone",
        ),
        (
            json!({ "forwarded": { "trust": ["10.0.0.0/33"] } }),
            "http.forwarded.trust[0]: `10.0.0.0/33` is not a network: after `/` comes a number from 0 to 32",
        ),
    ] {
        assert_eq!(listener(&json!({ "http": http })).unwrap_err(), expected);
    }
}

#[test]
fn a_session_needs_what_its_cookie_needs() {
    let parse = |session: Value| {
        let rules = json!([{ "sessionPersistence": session }]);
        Resource::parse(Kind::HttpRoute, "x", json!({ "listeners": ["a"], "rules": rules }))
            .map(|_| ())
            .map_err(|invalid| invalid.to_string())
    };
    assert_eq!(parse(json!({})), Ok(()));
    assert_eq!(parse(json!({ "cookieConfig": {} })), Ok(()));
    assert_eq!(
        parse(json!({ "cookieConfig": { "lifetimeType": "Permanent" }, "absoluteTimeout": "1h" })),
        Ok(())
    );
    let error = parse(json!({ "cookieConfig": { "lifetimeType": "Permanent" } })).unwrap_err();
    assert!(error.starts_with("rules[0].sessionPersistence.absoluteTimeout: missing"), "{error}");
    let error = parse(json!({ "type": "Header", "cookieConfig": {} })).unwrap_err();
    assert!(error.starts_with("rules[0].sessionPersistence.cookieConfig: not allowed"), "{error}");
    let error = parse(json!({ "sessionName": "a b" })).unwrap_err();
    assert!(error.starts_with("rules[0].sessionPersistence.sessionName: `a b` is not a token"), "{error}");
    let error = parse(json!({ "sessionName": "a".repeat(129) })).unwrap_err();
    assert!(error.ends_with("sessionName: has 129 characters: it must have at most 128"), "{error}");
}

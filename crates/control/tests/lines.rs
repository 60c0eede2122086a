//! Messages as lines, and lines however they are cut.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use outrigger_control::lines::{LineError, Lines, encode};
use outrigger_control::message::{FromControl, FromNode, MAX_LINE};
use proptest::prelude::*;
use serde_json::json;

fn put(text: &str) -> FromControl {
    let name = "shop".parse().unwrap();
    FromControl::Put { revision: 3, kind: "HTTPRoute".into(), name, spec: json!({ "text": text }) }
}

#[test]
fn messages_read_as_the_protocol_has_them() {
    for (message, line) in [
        (put("x"), r#"{"type":"put","revision":3,"kind":"HTTPRoute","name":"shop","spec":{"text":"x"}}"#),
        (
            FromControl::Delete { revision: 4, kind: "Backend".into(), name: "api".parse().unwrap() },
            r#"{"type":"delete","revision":4,"kind":"Backend","name":"api"}"#,
        ),
        (FromControl::Commit { revision: 4 }, r#"{"type":"commit","revision":4}"#),
        (FromControl::Heartbeat {}, r#"{"type":"heartbeat"}"#),
        (
            FromControl::Welcome { store: "s".into(), revision: 4 },
            r#"{"type":"welcome","store":"s","revision":4}"#,
        ),
    ] {
        assert_eq!(encode(&message).unwrap(), format!("{line}\n"));
    }
    let applied = FromNode::Applied { revision: 4, refused: vec![] };
    assert_eq!(encode(&applied).unwrap(), "{\"type\":\"applied\",\"revision\":4,\"refused\":[]}\n");
    let hello = FromNode::Hello {
        node: "a".parse().unwrap(),
        version: "1".into(),
        store: None,
        revision: 0,
        have: [("HTTPRoute/shop".to_owned(), 3)].into(),
    };
    let line =
        r#"{"type":"hello","node":"a","version":"1","store":null,"revision":0,"have":{"HTTPRoute/shop":3}}"#;
    assert_eq!(encode(&hello).unwrap(), format!("{line}\n"));
}

#[test]
fn a_line_is_at_most_4_mib() {
    assert!(encode(&put(&"x".repeat(MAX_LINE - 100))).is_ok());
    assert!(matches!(encode(&put(&"x".repeat(MAX_LINE))), Err(LineError::TooLong)));
    let mut lines = Lines::default();
    for _ in 0..MAX_LINE / (8 << 10) {
        assert!(matches!(lines.take::<FromControl>(), Ok(None)));
        lines.push(&[b' '; 8 << 10]);
    }
    assert!(matches!(lines.take::<FromControl>(), Err(LineError::TooLong)));
}

#[test]
fn what_is_not_a_message_is_shown() {
    let mut lines = Lines::default();
    lines.push(b"\n\r\n{\"type\":\"poem\"}\n");
    let error = lines.take::<FromControl>().unwrap_err().to_string();
    assert!(error.contains("poem"), "{error}");
}

proptest! {
    #[test]
    fn lines_come_out_however_they_are_cut(
        texts in prop::collection::vec(".{0,40}", 0..8),
        cuts in prop::collection::vec(1usize..50, 1..40),
    ) {
        let sent: Vec<FromControl> = texts.iter().map(|text| put(text)).collect();
        let bytes: Vec<u8> = sent.iter().flat_map(|message| encode(message).unwrap()).collect();
        let (mut lines, mut heard, mut rest) = (Lines::default(), Vec::new(), bytes.as_slice());
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            lines.push(now);
            while let Some(message) = lines.take::<FromControl>().unwrap() {
                heard.push(message);
            }
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(heard, sent);
    }

    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut lines = Lines::default();
        lines.push(&bytes);
        lines.push(b"\n");
        while let Ok(Some(_)) = lines.take::<FromNode>() {}
    }
}

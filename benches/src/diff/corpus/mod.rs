//! The corpus, by topic.

mod bodies;
mod chunked;
mod connection;
mod fields;
mod http10;
mod http2;
mod interim;
mod limits;
mod responses;
mod smuggling;
mod targets;
mod upgrade;

use std::fmt::Write;

use super::exchange::{Exchange, refused, same, wire};

/// All exchanges; each has a name of its own.
pub(crate) fn exchanges() -> Vec<Exchange> {
    [
        targets::exchanges(),
        fields::exchanges(),
        connection::exchanges(),
        bodies::exchanges(),
        chunked::exchanges(),
        smuggling::exchanges(),
        responses::exchanges(),
        interim::exchanges(),
        upgrade::exchanges(),
        http10::exchanges(),
        limits::exchanges(),
        http2::exchanges(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A name, a section, and a text.
type Row = (&'static str, &'static str, &'static str);

/// So many fields, the first with this number.
fn numbered(first: usize, count: usize) -> String {
    (first..first + count).fold(String::new(), |mut fields, n| {
        let _ = writeln!(fields, "X-{n}: {n}");
        fields
    })
}

/// Requests that arrive as they are: each text follows `GET / HTTP/1.1` and `Host`.
fn with_fields(rows: &'static [Row]) -> impl Iterator<Item = Exchange> {
    rows.iter().map(|(name, section, fields)| {
        same(name, section, &format!("GET / HTTP/1.1\nHost: example.com\n{fields}\n\n"))
    })
}

/// Whole requests that are refused with 400.
fn bad_requests(rows: &'static [Row]) -> impl Iterator<Item = Exchange> {
    rows.iter().map(|(name, section, request)| refused(name, section, &[400], wire(request)))
}

/// The same, where what is wrong leaves no doubt of where the request ends: its connection may stay.
fn bad_meanings(rows: &'static [Row]) -> impl Iterator<Item = Exchange> {
    bad_requests(rows).map(Exchange::may_stay)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_enough_and_each_has_its_own_name() {
        let all = exchanges();
        let names: std::collections::BTreeSet<_> = all.iter().map(|exchange| &exchange.name).collect();
        assert!(all.len() >= 240, "{}", all.len());
        assert_eq!(names.len(), all.len());
        assert!(
            all.iter().all(|exchange| exchange.section.starts_with("RFC ")),
            "each says what it is about"
        );
    }
}

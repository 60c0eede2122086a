//! Methods and targets (RFC 9110, section 9; RFC 9112, section 3).

use super::super::exchange::{Exchange, refused, same, wire};

/// Targets that arrive byte for byte.
const TARGETS: &[(&str, &str, &str)] = &[
    ("target-root", "RFC 9112, 3.2.1", "/"),
    ("target-query", "RFC 9112, 3.2.1", "/where?q=now"),
    ("target-empty-query", "RFC 9112, 3.2.1", "/?"),
];

/// The exchanges.
pub(crate) fn exchanges() -> Vec<Exchange> {
    let mut all: Vec<Exchange> = TARGETS
        .iter()
        .map(|(name, section, target)| {
            same(name, section, &format!("GET {target} HTTP/1.1\nHost: example.com\n\n"))
        })
        .collect();
    all.extend([refused(
        "target-missing",
        "RFC 9112, 3",
        &[400],
        wire("GET HTTP/1.1\nHost: example.com\n\n"),
    )]);
    all
}

//! Who somebody is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Refused, refuse};

/// A SPIFFE ID: `spiffe://TRUST-DOMAIN/PATH` (SPIFFE-ID specification, section 2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(Arc<str>);

text!(
    SpiffeId,
    "SpiffeId",
    "a string",
    "spiffe://TRUST-DOMAIN/PATH",
    r"^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$"
);

impl SpiffeId {
    /// The whole ID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ID as shared text.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// The trust domain: what stands between `spiffe://` and the path.
    pub fn trust_domain(&self) -> &str {
        let rest = self.0.strip_prefix("spiffe://").unwrap_or_default();
        rest.split('/').next().unwrap_or_default()
    }
}

impl FromStr for SpiffeId {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let wrong = |why: &str| refuse(format!("`{text}` is not a SPIFFE ID: {why}"));
        let Some(rest) = text.strip_prefix("spiffe://") else {
            return wrong("it must begin with spiffe://");
        };
        if text.len() > 2048 {
            return wrong("it must have at most 2048 bytes");
        }
        let mut segments = rest.split('/');
        let domain = segments.next().unwrap_or_default();
        let domain_byte =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(domain_byte) {
            return wrong("its trust domain must be lower-case letters, digits, `.`, `-` and `_`");
        }
        let path_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let mut any = false;
        for segment in segments {
            any = true;
            if matches!(segment, "" | "." | "..") || !segment.bytes().all(path_byte) {
                return wrong(
                    "each segment of its path must be letters, digits, `.`, `-` and `_`, and not `.` or `..`",
                );
            }
        }
        if any { Ok(Self(text.into())) } else { wrong("it must have a path, such as /ns/shop/sa/api") }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

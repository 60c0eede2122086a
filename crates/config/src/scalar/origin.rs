//! Schemes of URLs, and the origins of web pages (RFC 6454).

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Refused, refuse};

/// The scheme of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// The scheme as a URL has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL without one means.
    pub const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// An origin that is allowed (Gateway API, `CORSOrigin`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CorsOrigin {
    /// Every one.
    Any,
    /// Those of one scheme and port.
    Of {
        /// The scheme.
        scheme: Scheme,
        /// Whether the host may have anything before `host`.
        wildcard: bool,
        /// The host, or the end of it, in lower case.
        host: Box<str>,
        /// The port, the scheme's own where it was not written.
        port: u16,
    },
}

text!(
    CorsOrigin,
    "CorsOrigin",
    "an origin, such as https://shop.example",
    "`*`, or a scheme and a host, with a port if it is not the scheme's own. The host may begin with `*`.",
    r"^(\*|https?://(\*|\*?[-A-Za-z0-9_.]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?)$"
);

impl CorsOrigin {
    /// Whether an `Origin` field's value is allowed by it.
    pub fn allows(&self, origin: &str) -> bool {
        let Self::Of { scheme, wildcard, host, port } = self else { return true };
        let Some((its_scheme, its_host, its_port)) = split(origin) else { return false };
        if its_scheme != *scheme || its_port != *port {
            return false;
        }
        let (length, end) = (its_host.len(), host.len());
        if !wildcard {
            return its_host.eq_ignore_ascii_case(host);
        }
        length > end && its_host.get(length - end..).is_some_and(|its_end| its_end.eq_ignore_ascii_case(host))
    }
}

/// Scheme, host and port of an origin.
fn split(origin: &str) -> Option<(Scheme, &str, u16)> {
    let (scheme, rest) = origin.split_once("://")?;
    let scheme = match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
        _ if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
        _ => return None,
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !rest.ends_with(']') => (host, port.parse().ok().filter(|port| *port != 0)?),
        _ => (rest, scheme.port()),
    };
    (!host.is_empty()).then_some((scheme, host, port))
}

impl FromStr for CorsOrigin {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let wrong = |why: &str| refuse(format!("`{}` is not an origin: {why}", text.escape_debug()));
        let Some((scheme, host, port)) = split(text) else {
            return wrong("write http:// or https:// and a host, with a port if it is not the scheme's own");
        };
        let (wildcard, host) = match host.strip_prefix('*') {
            Some(end) => (true, end),
            None => (false, host),
        };
        let literal = host.starts_with('[') && host.ends_with(']');
        let allowed =
            |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b) || (literal && b"[:]".contains(&b));
        if !host.bytes().all(allowed) {
            return wrong(
                "a host has letters, digits, `-`, `_` and `.`, a `*` only at its beginning, and no path follows it",
            );
        }
        Ok(Self::Of { scheme, wildcard, host: host.to_ascii_lowercase().into(), port })
    }
}

impl fmt::Display for CorsOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Of { scheme, wildcard, host, port } = self else { return f.write_str("*") };
        write!(f, "{}://{}{host}", scheme.as_str(), if *wildcard { "*" } else { "" })?;
        if *port == scheme.port() { Ok(()) } else { write!(f, ":{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_allowed_by_scheme_host_and_port() {
        for (allowed, origin, expected) in [
            ("*", "null", true),
            ("https://shop.example", "https://shop.example", true),
            ("https://shop.example", "https://SHOP.example:443", true),
            ("https://shop.example", "http://shop.example", false),
            ("https://shop.example", "https://shop.example:8443", false),
            ("https://shop.example", "https://shop.example.evil.example", false),
            ("http://shop.example:8080", "http://shop.example:8080", true),
            ("https://*.example", "https://a.b.example", true),
            ("https://*.example", "https://example", false),
            ("https://*.example", "https://.example", false),
            ("https://*.example", "https://shop.example.evil", false),
            ("https://*", "https://anything.at.all", true),
            ("https://*", "http://anything.at.all", false),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("http://[::1]", "http://[::1]", true),
            ("https://shop.example", "null", false),
        ] {
            let allowed: CorsOrigin = allowed.parse().unwrap();
            assert_eq!(allowed.allows(origin), expected, "{allowed} {origin}");
            assert_eq!(allowed.to_string().parse::<CorsOrigin>().unwrap(), allowed);
        }
    }

    #[test]
    fn what_is_not_an_origin_is_refused() {
        for text in [
            "",
            "shop.example",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://a:0",
            "https://a.*.b",
            "https://a:b",
        ] {
            assert!(text.parse::<CorsOrigin>().is_err(), "{text}");
        }
    }
}

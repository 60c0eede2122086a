//! The scalars of the configuration language. Each is parsed once, from text, into a type that cannot be wrong;
//! each prints back as the text it was parsed from means.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Why a scalar was refused: a sentence fragment that names the value and says what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// Refuses a scalar with a formatted reason.
pub(crate) fn refuse<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(why.into()))
}

/// Serde as text, and a JSON Schema of one string with a pattern, for a type with `FromStr` and `Display`.
macro_rules! text {
    ($type:ty, $title:literal, $description:literal, $pattern:literal) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<'de, str>::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $title.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "description": $description, "pattern": $pattern })
            }
        }
    };
}

/// A length of time as the Gateway API writes it (GEP-2257): `250ms`, `10s`, `1h30m`, `0s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Duration(std::time::Duration);

text!(
    Duration,
    "Duration",
    "A length of time: up to four numbers of at most five digits, each with a unit: h, m, s or ms.",
    r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
);

impl Duration {
    /// The duration as the standard library has it.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// A duration of whole milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    /// A duration of whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(std::time::Duration::from_secs(secs))
    }
}

impl FromStr for Duration {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let wrong = || {
            Refused(format!(
                "`{text}` is not a duration: write a number with h, m, s or ms, such as 250ms or 1h30m"
            ))
        };
        let (mut rest, mut millis, mut parts) = (text, 0u64, 0);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let unit = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
            let (unit, tail) = tail.split_at(unit);
            let factor = match unit {
                "h" => 3_600_000,
                "m" => 60_000,
                "s" => 1_000,
                "ms" => 1,
                _ => return Err(wrong()),
            };
            if !(1..=5).contains(&digits) {
                return Err(wrong());
            }
            millis += number.parse::<u64>().map_err(|_| wrong())? * factor;
            parts += 1;
            rest = tail;
        }
        if (1..=4).contains(&parts) { Ok(Self::from_millis(millis)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if millis >= factor {
                write!(f, "{}{unit}", millis / factor)?;
                millis %= factor;
            }
        }
        Ok(())
    }
}

/// The name of a resource, a node or a rule: 1–253 of `a-z`, `0-9`, `-` and `.`, beginning and ending with a letter
/// or digit (RFC 1123 subdomain, as in Kubernetes).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

text!(
    Name,
    "Name",
    "1-253 of a-z, 0-9, - and ., beginning and ending with a letter or digit.",
    r"^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$"
);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as shared text.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl FromStr for Name {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = text.as_bytes();
        let inner =
            bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
        if edge(bytes.first()) && edge(bytes.last()) && inner && bytes.len() <= 253 {
            Ok(Self(text.into()))
        } else {
            refuse(format!(
                "`{text}` is not a name: use lower-case letters, digits, `-` and `.`, \
                 beginning and ending with a letter or digit"
            ))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A host name that a route answers to: exact (`shop.example`) or with one leading wildcard label (`*.example`, which
/// stands for one label or more). Always lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hostname {
    /// Exactly this name.
    Exact(Arc<str>),
    /// Any name that ends with this suffix, which begins with a dot: `*.example` is `.example`.
    Wildcard(Arc<str>),
}

text!(
    Hostname,
    "Hostname",
    "A DNS name without a port, or `*.` and a DNS name.",
    r"^(\*\.)?[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([-A-Za-z0-9_]*[A-Za-z0-9_])?)*$"
);

impl FromStr for Hostname {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let lower = text.to_ascii_lowercase();
        let (wildcard, name) = match lower.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, lower.as_str()),
        };
        if let Err(why) = dns_name(name) {
            return refuse(format!("`{text}` is not a host name: {why}"));
        }
        Ok(if wildcard { Self::Wildcard(format!(".{name}").into()) } else { Self::Exact(name.into()) })
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*{suffix}"),
        }
    }
}

fn dns_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > 253 {
        return Err("it must have 1 to 253 characters");
    }
    if name.contains(':') {
        return Err("it must not have a port");
    }
    if name.contains('*') {
        return Err("a wildcard is allowed only as the whole first label");
    }
    for label in name.split('.') {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if label.is_empty() || label.len() > 63 || !inner || label.starts_with('-') || label.ends_with('-') {
            return Err("each label is 1 to 63 letters, digits, `-` or `_`, and no `-` at its ends");
        }
    }
    Ok(())
}

/// Where an endpoint is: an address, or a name that is resolved and followed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPort {
    /// An IP address and port.
    Socket(SocketAddr),
    /// A DNS name and port.
    Name(Arc<str>, u16),
}

text!(
    HostPort,
    "HostPort",
    "An IP address or a DNS name, with a port: 127.0.0.1:3000, [::1]:3000 or localhost:3000.",
    r"^.+:[0-9]{1,5}$"
);

impl FromStr for HostPort {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 {
                refuse(format!("`{text}`: the port must not be 0"))
            } else {
                Ok(Self::Socket(address))
            };
        }
        let wrong = |why: &str| refuse(format!("`{text}` is not an address: {why}"));
        let Some((host, port)) = text.rsplit_once(':') else {
            return wrong("write HOST:PORT");
        };
        let Ok(port @ 1..) = port.parse::<u16>() else {
            return wrong("the port must be a number from 1 to 65535");
        };
        if host.contains(':') {
            return wrong("write an IPv6 address in brackets: [::1]:3000");
        }
        if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return wrong("that is not an IPv4 address");
        }
        match dns_name(host) {
            Ok(()) => Ok(Self::Name(host.to_ascii_lowercase().into(), port)),
            Err(why) => wrong(why),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// A SPIFFE ID: `spiffe://TRUST-DOMAIN/PATH` (SPIFFE-ID specification, section 2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(Arc<str>);

text!(SpiffeId, "SpiffeId", "spiffe://TRUST-DOMAIN/PATH", r"^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$");

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

/// A header's name (RFC 9110, section 5.1), lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeaderName(pub http::HeaderName);

text!(
    HeaderName,
    "HeaderName",
    "A header's name (RFC 9110, section 5.1).",
    r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,256}$"
);

impl FromStr for HeaderName {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        http::HeaderName::from_bytes(text.as_bytes())
            .map(Self)
            .or_else(|_| refuse(format!("`{text}` is not a header's name")))
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// A header's value (RFC 9110, section 5.5): visible text without line ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeaderValue(pub http::HeaderValue);

text!(HeaderValue, "HeaderValue", "A header's value (RFC 9110, section 5.5).", r"^[^\r\n]{0,4096}$");

impl FromStr for HeaderValue {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        http::HeaderValue::from_bytes(text.as_bytes())
            .map(Self)
            .or_else(|_| refuse(format!("`{}` cannot be a header's value", text.escape_debug())))
    }
}

impl fmt::Display for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.0.as_bytes()))
    }
}

/// A request method that a route matches (RFC 9110, section 9).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Method(pub http::Method);

text!(
    Method,
    "Method",
    "A request method (RFC 9110, section 9), in upper case.",
    r"^[A-Z!#$%&'*+.^_`|~0-9-]+$"
);

impl FromStr for Method {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match http::Method::from_bytes(text.as_bytes()) {
            Ok(method) if !text.bytes().any(|b| b.is_ascii_lowercase()) => Ok(Self(method)),
            _ => refuse(format!("`{text}` is not a method: write it in upper case, such as GET")),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// A regular expression in the syntax of the `regex` crate (RE2's, linear in time), matched against the whole text.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: Arc<str>,
    regex: regex::Regex,
}

text!(Pattern, "Pattern", "A regular expression (RE2 syntax), matched against the whole text.", r"^.+$");

impl Pattern {
    /// The expression as it was written.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl FromStr for Pattern {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        // Compiled on its own first, so that `)(` cannot close the group that anchors it.
        let build = |source: &str| regex::RegexBuilder::new(source).size_limit(1 << 20).build();
        let anchored = build(text).and_then(|_| build(&format!("^(?:{text})$")));
        match anchored {
            Ok(regex) => Ok(Self { source: text.into(), regex }),
            Err(error) => refuse(format!("`{text}` is not a regular expression: {error}")),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}
impl Eq for Pattern {}

//! Names of resources, and names in the DNS.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Refused, refuse};

/// The name of a resource, a node or a rule: 1–253 of `a-z`, `0-9`, `-` and `.`, beginning and ending with a letter
/// or digit (RFC 1123 subdomain, as in Kubernetes).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

text!(
    Name,
    "Name",
    "a string",
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
    "a string",
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

/// Whether a name is one of the DNS, in labels (RFC 1123, section 2.1), underscores allowed.
pub(super) fn dns_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > 253 {
        return Err("it must have 1 to 253 characters");
    }
    if name.contains("://") {
        return Err("it must not be a URL: leave out the scheme and the path");
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

//! Parts of HTTP messages.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Refused, refuse};

/// A header's name (RFC 9110, section 5.1), lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeaderName(pub http::HeaderName);

text!(
    HeaderName,
    "HeaderName",
    "a string",
    "A header's name (RFC 9110, section 5.1).",
    r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,256}$"
);

impl FromStr for HeaderName {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match http::HeaderName::from_bytes(text.as_bytes()) {
            Ok(name) if text.len() <= 256 => Ok(Self(name)),
            _ => refuse(format!(
                "`{}` is not a header's name: use letters, digits and `-`, at most 256",
                text.escape_debug()
            )),
        }
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

text!(
    HeaderValue,
    "HeaderValue",
    "a string",
    "A header's value (RFC 9110, section 5.5).",
    r"^[^\x00-\x08\x0A-\x1F\x7F]{0,4096}$"
);

impl FromStr for HeaderValue {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match http::HeaderValue::from_bytes(text.as_bytes()) {
            Ok(value) if text.chars().count() <= 4096 => Ok(Self(value)),
            _ => refuse(format!(
                "`{}` cannot be a header's value: use one line of at most 4096 characters",
                text.escape_debug()
            )),
        }
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
    "a string",
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

/// A token of HTTP (RFC 9110, section 5.6.2), such as a pseudonym in `via` or the name of a cookie.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Token(Arc<str>);

text!(
    Token,
    "Token",
    "a string",
    "A token of HTTP (RFC 9110, section 5.6.2): letters, digits, and some signs, such as - and _.",
    r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,255}$"
);

impl Token {
    /// What a proxy calls itself in `via` where nobody says otherwise.
    pub(crate) fn outrigger() -> Self {
        Self("outrigger".into())
    }

    /// The token as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Token {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if (1..=255).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            refuse(format!(
                "`{}` is not a token of HTTP: use letters, digits, `-`, `_` and `.`, at most 255",
                text.escape_debug()
            ))
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

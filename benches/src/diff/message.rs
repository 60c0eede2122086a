//! HTTP messages as either end of an exchange sees them, whichever version carried them.

use std::fmt::{self, Write};

/// What a message begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// Of a request.
    Request { method: Vec<u8>, target: Vec<u8>, authority: Option<Vec<u8>>, protocol: Option<Vec<u8>> },
    /// Of a response.
    Response { code: u16, reason: Option<Vec<u8>> },
}

/// A line of a header or trailer section. Over HTTP/1 the value is all that stands behind the colon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Field {
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The elements of a list, without the white space around them.
    pub(crate) fn elements(&self) -> impl Iterator<Item = &[u8]> {
        self.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
    }
}

/// The start and the header section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) start: Start,
    /// `HTTP/1.1`.
    pub(crate) version: Vec<u8>,
    pub(crate) fields: Vec<Field>,
}

impl Head {
    /// The fields of this name.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(move |field| field.is(name))
    }

    /// The first value of this name, without the white space around it.
    pub(crate) fn first(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next().map(|field| field.value.trim_ascii())
    }

    /// Whether a list of this name has an element, in any case.
    pub(crate) fn names(&self, name: &str, element: &str) -> bool {
        self.all(name).flat_map(Field::elements).any(|e| e.eq_ignore_ascii_case(element.as_bytes()))
    }

    /// The status of a response; 0 of a request.
    pub(crate) const fn code(&self) -> u16 {
        match self.start {
            Start::Response { code, .. } => code,
            Start::Request { .. } => 0,
        }
    }

    /// Whether it is a response that another follows.
    pub(crate) fn is_interim(&self) -> bool {
        matches!(self.code(), 100 | 102..=199)
    }

    pub(crate) fn method(&self) -> &[u8] {
        match &self.start {
            Start::Request { method, .. } => method,
            Start::Response { .. } => b"",
        }
    }

    /// Whether a request may turn its connection into something else.
    pub(crate) fn may_switch(&self) -> bool {
        self.method() == b"CONNECT"
            || (self.code() == 0
                && self.version == b"HTTP/1.1"
                && self.first("upgrade").is_some()
                && self.names("connection", "upgrade"))
    }
}

/// How a message ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// As its framing says.
    Complete,
    /// Before that, by an orderly close.
    Closed,
    /// Before that, by a reset of the connection or stream.
    Reset,
    /// It is not HTTP from some place on.
    Broken(String),
    /// It was not read to its end.
    Unread,
}

/// A message as far as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<Field>,
    /// What followed once the connection was something else.
    pub(crate) tunnel: Vec<u8>,
    pub(crate) switched: bool,
    pub(crate) end: End,
}

impl Message {
    pub(crate) const fn new(head: Head) -> Self {
        Self {
            head,
            body: Vec::new(),
            trailers: Vec::new(),
            tunnel: Vec::new(),
            switched: false,
            end: End::Unread,
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.end == End::Complete
    }
}

/// A step of what a parser found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Head(Head),
    Data(Vec<u8>),
    Trailers(Vec<Field>),
    End,
    /// The protocol has changed, and this came since.
    Tunnel(Vec<u8>),
}

/// Bytes for a reader: what is not printable as an escape, what is long cut.
pub(crate) fn readable(bytes: &[u8]) -> String {
    const SHOWN: usize = 240;
    let mut text: String = String::new();
    for byte in bytes.iter().take(SHOWN) {
        let _ = match byte {
            b' '..=b'~' => write!(text, "{}", *byte as char),
            _ => write!(text, "{}", byte.escape_ascii()),
        };
    }
    if bytes.len() > SHOWN {
        let _ = write!(text, "… ({} bytes)", bytes.len());
    }
    text
}

impl fmt::Display for Message {
    /// One line for each thing that can differ.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = readable(&self.head.version);
        match &self.head.start {
            Start::Request { method, target, authority, protocol } => {
                write!(f, "{} {} {version}", readable(method), readable(target))?;
                if let Some(authority) = authority {
                    write!(f, "  (:authority {})", readable(authority))?;
                }
                if let Some(protocol) = protocol {
                    write!(f, "  (:protocol {})", readable(protocol))?;
                }
                writeln!(f)?;
            }
            Start::Response { code, reason } => {
                writeln!(f, "{version} {code} {}", reason.as_deref().map(readable).unwrap_or_default())?;
            }
        }
        for field in &self.head.fields {
            writeln!(f, "{}:{}", readable(&field.name), readable(&field.value))?;
        }
        if !self.body.is_empty() {
            writeln!(f, "body {}", readable(&self.body))?;
        }
        for field in &self.trailers {
            writeln!(f, "trailer {}:{}", readable(&field.name), readable(&field.value))?;
        }
        if !self.tunnel.is_empty() {
            writeln!(f, "tunnel {}", readable(&self.tunnel))?;
        }
        match &self.end {
            End::Complete => writeln!(f, "complete"),
            End::Closed => writeln!(f, "cut off by a close"),
            End::Reset => writeln!(f, "cut off by a reset"),
            End::Broken(why) => writeln!(f, "not HTTP from here on: {why}"),
            End::Unread => writeln!(f, "not read to its end"),
        }
    }
}

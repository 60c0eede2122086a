//! Media types.

use std::fmt;
use std::str::FromStr;

use super::{Refused, refuse};

/// A media type (`text/html`), all of one kind (`text/*`), or all with one suffix (`application/*+json`). Lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MediaRange {
    text: Box<str>,
    /// What stands before the asterisk, and after; the whole where there is none.
    parts: (Box<str>, Option<Box<str>>),
}

text!(
    MediaRange,
    "MediaRange",
    "a string",
    "A media type, `text/html`, or several, `text/*` and `application/*+json`.",
    r"^[A-Za-z0-9.+_-]+/(\*(\+[A-Za-z0-9.+_-]+)?|[A-Za-z0-9.+_-]+)$"
);

impl MediaRange {
    /// Whether it has this media type, without parameters.
    pub fn matches(&self, kind: &str) -> bool {
        let (before, after) = (&self.parts.0, self.parts.1.as_deref());
        let Some(after) = after else { return kind.eq_ignore_ascii_case(before) };
        let ends = kind.len().checked_sub(after.len()).filter(|at| *at > before.len());
        kind.get(..before.len()).is_some_and(|start| start.eq_ignore_ascii_case(before))
            && ends.and_then(|at| kind.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(after))
    }
}

impl FromStr for MediaRange {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let name = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b".+_-".contains(&b))
        };
        let lower = text.to_ascii_lowercase();
        let parts = match lower.split_once('*') {
            None => {
                lower.split_once('/').filter(|(kind, sub)| name(kind) && name(sub)).map(|_| (&*lower, None))
            }
            Some((before, after)) => before
                .strip_suffix('/')
                .filter(|kind| name(kind) && (after.is_empty() || after.strip_prefix('+').is_some_and(name)))
                .map(|_| (before, Some(after))),
        };
        let Some((before, after)) = parts else {
            return refuse(format!(
                "`{text}` is not a media type: write text/html, or text/* for all of a kind"
            ));
        };
        let parts = (before.into(), after.map(Into::into));
        Ok(Self { text: lower.into(), parts })
    }
}

impl fmt::Display for MediaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

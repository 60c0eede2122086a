//! Paths as routes and policies see them: the different spellings of one path are one. What is sent on stays as it was
//! received, byte for byte.
//!
//! With [`Normalize::Rfc3986`] a path is brought into the form of RFC 3986, section 6.2.2:
//!
//! - an encoded character that need not be encoded (a letter, a digit, `-`, `.`, `_`, `~`) is decoded;
//! - one that must be is encoded, in upper-case digits, as is a `%` that begins no encoding: `100%` is `100%25`;
//! - `.` and `..` are resolved, and nothing is above the root.
//!
//! Nothing else is decoded: `%3B` is not `;`, and `%2F` is what [`EncodedSlash`] says.

use std::borrow::Cow;

use crate::listener::{EncodedSlash, HttpPath, Normalize};

/// Why a path is refused: it has an encoded slash, and the listener takes none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the path has an encoded slash (%2F), which this listener refuses")]
pub struct PathRefused;

/// Brings a path, without its query, into the form in which routes and policies see it. One that has it already is
/// looked through once and nothing is allocated. What does not begin with a slash, as the `*` of OPTIONS, is no path
/// and stays as it is.
///
/// # Errors
/// If it has an encoded slash and `how` refuses these.
pub fn normalize(path: &str, how: HttpPath) -> Result<Cow<'_, str>, PathRefused> {
    if !path.starts_with('/') || is_normal(path.as_bytes(), how) {
        return Ok(Cow::Borrowed(path));
    }
    let mut text = decode(path, how)?;
    if how.merge_slashes {
        merge_slashes(&mut text);
    }
    if how.normalize == Normalize::Rfc3986 {
        text = resolve_dots(&text);
    }
    Ok(Cow::Owned(text))
}

/// Whether a path is certainly in its form already.
fn is_normal(path: &[u8], how: HttpPath) -> bool {
    let rfc3986 = how.normalize == Normalize::Rfc3986;
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        let plain = match byte {
            b'/' => {
                let double = how.merge_slashes && after.first() == Some(&b'/');
                !(double || rfc3986 && begins_dots(after))
            }
            b'%' => match escaped(after) {
                Some(b'/') if how.encoded_slash != EncodedSlash::Keep => false,
                Some(decoded) => !rfc3986 || !is_unreserved(decoded) && is_upper(after),
                None => !rfc3986,
            },
            byte => !rfc3986 || may_stand(*byte),
        };
        if !plain {
            return false;
        }
        rest = after;
    }
    true
}

/// Whether a segment that is `.` or `..` begins here.
fn begins_dots(segment: &[u8]) -> bool {
    matches!(segment, [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..])
}

/// The byte that two hexadecimal digits after a `%` stand for.
fn escaped(digits: &[u8]) -> Option<u8> {
    let [high, low, ..] = digits else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(*high)? * 16 + digit(*low)?) as u8)
}

/// Whether the digits of an encoding are in upper case.
fn is_upper(digits: &[u8]) -> bool {
    !digits.iter().take(2).any(u8::is_ascii_lowercase)
}

/// RFC 3986, section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether a byte may stand in a path without being encoded (RFC 3986, section 3.3).
const fn may_stand(byte: u8) -> bool {
    const TABLE: [bool; 256] = {
        let (mut table, mut byte) = ([false; 256], 0u8);
        loop {
            let other = matches!(
                byte,
                b'!' | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b':'
                    | b'@'
                    | b'/'
            );
            table[byte as usize] = other || is_unreserved(byte);
            if byte == 255 {
                break table;
            }
            byte += 1;
        }
    };
    TABLE[byte as usize]
}

/// Decodes what is to be decoded, and encodes what must be.
fn decode(path: &str, how: HttpPath) -> Result<String, PathRefused> {
    let rfc3986 = how.normalize == Normalize::Rfc3986;
    let mut text = String::with_capacity(path.len() + 16);
    let mut chars = path.char_indices();
    while let Some((at, c)) = chars.next() {
        let digits = path.as_bytes().get(at + 1..).unwrap_or_default();
        match (c, escaped(digits)) {
            ('%', Some(byte)) => {
                chars.nth(1);
                match (byte, how.encoded_slash) {
                    (b'/', EncodedSlash::Refuse) => return Err(PathRefused),
                    (b'/', EncodedSlash::Slash) => text.push('/'),
                    _ if rfc3986 && is_unreserved(byte) => text.push(char::from(byte)),
                    _ if rfc3986 => encode(byte, &mut text),
                    _ => text.push_str(path.get(at..at + 3).unwrap_or_default()),
                }
            }
            _ if rfc3986 && !(c.is_ascii() && may_stand(c as u8)) => {
                c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| encode(byte, &mut text));
            }
            _ => text.push(c),
        }
    }
    Ok(text)
}

fn encode(byte: u8, text: &mut String) {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0').to_ascii_uppercase();
    text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
}

fn merge_slashes(text: &mut String) {
    let mut slash = false;
    text.retain(|c| {
        let again = slash && c == '/';
        slash = c == '/';
        !again
    });
}

/// Resolves `.` and `..` (RFC 3986, section 5.2.4).
fn resolve_dots(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    text.truncate(text.rfind('/').unwrap_or(0));
                }
                // At the end they stand for a folder, which ends with a slash.
                if segments.peek().is_none() {
                    text.push('/');
                }
            }
            _ => {
                text.push('/');
                text.push_str(segment);
            }
        }
    }
    text
}

//! How the header of a message was written: the names as they were spelled, in their order. It says nothing (RFC 9110,
//! sections 5.1 and 5.3), and some applications depend on it all the same, so it passes.

use std::collections::HashMap;
use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{GetAll, HeaderMap, HeaderName, HeaderValue, ValueIter};
use smallvec::SmallVec;

/// How many fields are put in order by looking at each; more are looked up.
const FEW: usize = 32;

/// How the header of an HTTP/1 message was written.
#[derive(Default)]
pub struct Spelling {
    /// The head, from its first byte to the empty line.
    raw: Bytes,
    /// Where in it the names are, in their order.
    names: SmallVec<[(u32, u32); 16]>,
    /// Where in it the words after the status are.
    reason: Option<(u32, u32)>,
}

impl fmt::Debug for Spelling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the header itself: it holds credentials.
        f.debug_struct("Spelling").field("names", &self.names.len()).finish_non_exhaustive()
    }
}

impl Spelling {
    /// The spelling of a head of which nothing is known but its bytes.
    pub(super) fn of(raw: Bytes) -> Self {
        Self { raw, ..Self::default() }
    }

    /// Notes where the next name is. It must be a part of the head.
    pub(super) fn name(&mut self, name: &str) {
        self.names.push(self.place(name));
    }

    /// Notes the words after a status, which go from here to the end of the first line. It may have ended before.
    pub(super) fn reason_after(&mut self, start: usize) {
        let end = memchr::memchr(b'\r', &self.raw).unwrap_or_default();
        self.reason = Some((start.min(end) as u32, end as u32));
    }

    /// As a field's value, by which one sidecar tells another what HTTP/2 between them cannot: the names, each with a
    /// comma, and between semicolons the words that follow a response's status, with the white space around them, which a
    /// value cannot end with. `None` if it would not fit.
    pub(crate) fn to_value(&self) -> Option<HeaderValue> {
        let reason = self.status_words();
        let length = self.names.iter().map(|(start, end)| (end - start) as usize + 1).sum::<usize>();
        let mut text = BytesMut::with_capacity(length + reason.map_or(0, <[u8]>::len) + 2);
        for name in self.names() {
            text.put_slice(name);
            text.put_u8(b',');
        }
        if let Some(reason) = reason {
            text.put_u8(b';');
            text.put_slice(reason);
            text.put_u8(b';');
        }
        HeaderValue::from_maybe_shared(text.freeze()).ok()
    }

    /// What another sidecar told. It can choose how a name is spelled that is there, and nothing else.
    pub(crate) fn from_value(value: &HeaderValue) -> Self {
        let raw = Bytes::copy_from_slice(value.as_bytes());
        let end_of_names = memchr::memchr(b';', &raw).unwrap_or(raw.len());
        let mut spelling = Self::of(raw.clone());
        let mut start = 0;
        for end in memchr::memchr_iter(b',', raw.get(..end_of_names).unwrap_or_default()) {
            spelling.names.push((start, end as u32));
            start = end as u32 + 1;
        }
        let words = end_of_names + 1;
        if raw.len() > words && raw.ends_with(b";") {
            spelling.reason = Some((words as u32, raw.len() as u32 - 1));
        }
        spelling
    }

    fn place(&self, part: &str) -> (u32, u32) {
        let start = (part.as_ptr() as usize).saturating_sub(self.raw.as_ptr() as usize);
        (start as u32, (start + part.len()) as u32)
    }

    fn part(&self, (start, end): (u32, u32)) -> &[u8] {
        self.raw.get(start as usize..end as usize).unwrap_or_default()
    }

    /// The words after the status.
    pub(super) fn status_words(&self) -> Option<&[u8]> {
        self.reason.map(|place| self.part(place))
    }

    /// Whether it knows a field of this name.
    pub(crate) fn has(&self, name: &HeaderName) -> bool {
        self.names().any(|spelled| spelled.eq_ignore_ascii_case(name.as_str().as_bytes()))
    }

    /// Whether the fields that it knows are the first of a header, in its order.
    fn is_in_order(&self, headers: &HeaderMap) -> bool {
        let mut fields = headers.iter();
        let mut spelled = self.names();
        spelled.all(|spelled| {
            fields.next().is_some_and(|(name, _)| spelled.eq_ignore_ascii_case(name.as_str().as_bytes()))
        })
    }

    fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.names.iter().map(|place| self.part(*place))
    }
}

/// The field by which trailers carry their spelling from where they are read to where they are written, and one sidecar
/// tells another how a header was spelled. It reaches neither a caller nor an application.
pub(crate) const SPELLING: HeaderName = HeaderName::from_static("outrigger-spelling");

/// Writes the fields of a header. Those that `spelling` knows come first, as they were spelled and in that order;
/// what was added since follows, and what was taken out is missing.
pub(super) fn write_fields(headers: &HeaderMap, spelling: Option<&Spelling>, out: &mut BytesMut) {
    match spelling {
        None => headers.iter().for_each(|(name, value)| write_field(name.as_str().as_bytes(), value, out)),
        Some(spelling) if spelling.is_in_order(headers) => write_in_order(headers, spelling, out),
        Some(spelling) if headers.len() <= FEW => write_few(headers, spelling, out),
        Some(spelling) => write_many(headers, spelling, out),
    }
}

/// Where nothing was taken out, the fields that it knows are the first.
fn write_in_order(headers: &HeaderMap, spelling: &Spelling, out: &mut BytesMut) {
    let mut spelled = spelling.names();
    for (name, value) in headers {
        write_field(spelled.next().unwrap_or(name.as_str().as_bytes()), value, out);
    }
}

fn write_few(headers: &HeaderMap, spelling: &Spelling, out: &mut BytesMut) {
    let mut fields: SmallVec<[Option<(&HeaderName, &HeaderValue)>; FEW]> = headers.iter().map(Some).collect();
    // Mostly, the next name is the next field.
    let mut first = 0;
    for spelled in spelling.names() {
        let is_it = |field: &Option<(&HeaderName, &HeaderValue)>| {
            field.is_some_and(|(name, _)| spelled.eq_ignore_ascii_case(name.as_str().as_bytes()))
        };
        let found = fields.iter().skip(first).position(is_it).and_then(|at| fields.get_mut(first + at));
        if let Some((_, value)) = found.and_then(Option::take) {
            write_field(spelled, value, out);
        }
        first += fields.iter().skip(first).take_while(|field| field.is_none()).count();
    }
    fields.into_iter().flatten().for_each(|(name, value)| write_field(name.as_str().as_bytes(), value, out));
}

/// The same in time that grows no faster than the number of fields.
fn write_many(headers: &HeaderMap, spelling: &Spelling, out: &mut BytesMut) {
    let mut left: HashMap<&HeaderName, ValueIter<'_, HeaderValue>> =
        headers.keys().map(|name| (name, GetAll::into_iter(headers.get_all(name)))).collect();
    for spelled in spelling.names() {
        let name = HeaderName::from_bytes(spelled);
        if let Some(value) = name.ok().and_then(|name| left.get_mut(&name)).and_then(Iterator::next) {
            write_field(spelled, value, out);
        }
    }
    for name in headers.keys() {
        left.remove(name)
            .into_iter()
            .flatten()
            .for_each(|value| write_field(name.as_str().as_bytes(), value, out));
    }
}

fn write_field(name: &[u8], value: &HeaderValue, out: &mut BytesMut) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value.as_bytes());
    out.put_slice(b"\r\n");
}

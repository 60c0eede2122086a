//! HTTP/2 as no library writes it: header blocks with fields that may not be there, in place of those that `h2` writes.
//! On a connection either all blocks are replaced or none: `h2` counts on the other end to remember what it wrote.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf},
    net::{TcpStream, tcp::OwnedWriteHalf},
};

use super::message::{Field, Head, Start};

/// The client's connection preface (RFC 9113, section 3.4).
const PREFACE: usize = 24;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// How much a frame may carry where nothing else was agreed.
const MOST: usize = 16 * 1024;

/// The header blocks that go out next, by their streams.
#[derive(Debug, Clone, Default)]
pub(crate) struct Blocks(Arc<Mutex<HashMap<u32, VecDeque<Vec<u8>>>>>);

impl Blocks {
    pub(crate) fn push(&self, stream: u32, block: Vec<u8>) {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.entry(stream).or_default().push_back(block);
    }

    fn pop(&self, stream: u32) -> Option<Vec<u8>> {
        let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.get_mut(&stream).and_then(VecDeque::pop_front)
    }
}

/// A connection on which each header block that is written is replaced by the next of these; the client's end, or the
/// server's.
pub(crate) fn edited(stream: TcpStream, client: bool) -> (DuplexStream, Blocks) {
    let (near, far) = tokio::io::duplex(MOST);
    let (mut from_peer, to_peer) = stream.into_split();
    let (from, mut to) = tokio::io::split(far);
    let blocks = Blocks::default();
    let next = blocks.clone();
    tokio::spawn(async move { tokio::io::copy(&mut from_peer, &mut to).await.and(to.shutdown().await) });
    tokio::spawn(async move { edit(from, to_peer, next, client).await });
    (near, blocks)
}

async fn edit(
    mut from: ReadHalf<DuplexStream>,
    mut to: OwnedWriteHalf,
    blocks: Blocks,
    client: bool,
) -> io::Result<()> {
    let mut preface = vec![0; if client { PREFACE } else { 0 }];
    from.read_exact(&mut preface).await?;
    to.write_all(&preface).await?;
    loop {
        let mut head = [0; 9];
        from.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        from.read_exact(&mut payload).await?;
        if kind == HEADERS
            && let Some(block) = blocks.pop(u32::from_be_bytes(stream))
        {
            to.write_all(&frames(&block, flags & END_STREAM, stream)).await?;
        } else {
            to.write_all(&[&head[..], &payload].concat()).await?;
        }
    }
}

/// A header block in frames (RFC 9113, section 4.3).
fn frames(block: &[u8], flags: u8, stream: [u8; 4]) -> Vec<u8> {
    let mut frames = Vec::new();
    let count = block.chunks(MOST).len();
    for (index, part) in block.chunks(MOST).enumerate() {
        let kind = if index == 0 { HEADERS } else { CONTINUATION };
        let first = if index == 0 { flags } else { 0 };
        let last = if index + 1 == count { END_HEADERS } else { 0 };
        let length = u32::try_from(part.len()).unwrap_or_default().to_be_bytes();
        frames.extend([&length[1..], &[kind, first | last], &stream, part].concat());
    }
    frames
}

/// The header block of a request: its pseudo-fields, and what it has.
pub(crate) fn request(head: &Head) -> Vec<u8> {
    let Start::Request { method, target, .. } = &head.start else { return Vec::new() };
    let pseudo = [(&b":method"[..], &method[..]), (b":scheme", b"http"), (b":path", target)];
    let mut block = Vec::new();
    let (first, rest): (Vec<&Field>, Vec<&Field>) =
        head.fields.iter().partition(|field| field.name.starts_with(b":"));
    for (name, value) in pseudo {
        write(name, value, &mut block);
    }
    for field in first.into_iter().chain(rest) {
        write_field(field, &mut block);
    }
    block
}

/// The header block of a response: as it stands, or in lower case as it has to be.
pub(crate) fn response(code: u16, fields: &[Field], as_it_stands: bool) -> Vec<u8> {
    let mut block = Vec::new();
    write(b":status", code.to_string().as_bytes(), &mut block);
    block.extend(section(fields, as_it_stands));
    block
}

/// The same of trailers.
pub(crate) fn section(fields: &[Field], as_it_stands: bool) -> Vec<u8> {
    let mut block = Vec::new();
    for field in fields {
        if as_it_stands {
            write_field(field, &mut block);
        } else {
            write(&field.name.to_ascii_lowercase(), field.value.trim_ascii(), &mut block);
        }
    }
    block
}

fn write_field(field: &Field, block: &mut Vec<u8>) {
    // It says how the script goes on.
    if field.is("transfer-encoding") {
        return;
    }
    let name =
        if field.is(super::exchange::ID) { field.name.to_ascii_lowercase() } else { field.name.clone() };
    let value = String::from_utf8_lossy(&field.value).replace('␍', "\r");
    let value = value.strip_prefix(' ').unwrap_or(&value);
    write(name.strip_prefix(b"=").unwrap_or(&name), value.as_bytes(), block);
}

/// A field that no table remembers (RFC 7541, section 6.2.3).
fn write(name: &[u8], value: &[u8], block: &mut Vec<u8>) {
    const NEVER_INDEXED: u8 = 0x10;
    block.push(NEVER_INDEXED);
    for text in [name, value] {
        integer(text.len(), block);
        block.extend(text);
    }
}

/// A length in front of what is not compressed (RFC 7541, sections 5.1 and 5.2).
fn integer(number: usize, block: &mut Vec<u8>) {
    const PREFIX: usize = 127;
    if number < PREFIX {
        block.push(number as u8);
        return;
    }
    block.push(PREFIX as u8);
    let mut left = number - PREFIX;
    while left >= 128 {
        block.push((left % 128) as u8 | 128);
        left /= 128;
    }
    block.push(left as u8);
}

//! WebSocket's opening handshake and frames (RFC 6455), of which the content is counted and not kept.

use std::io;

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest head of a handshake, in bytes.
const MAX_HEAD: usize = 16 * 1024;
const MAX_FIELDS: usize = 64;
/// The longest content of a control frame.
const MAX_CONTROL: usize = 125;
/// In the place of a length: that it follows, in 2 or in 8 bytes.
const WIDE: u8 = 0x7e;
const WIDER: u8 = 0x7f;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Opcode {
    Binary = 2,
    Close = 8,
    Pong = 10,
}

/// One frame, which is a whole message; masked, as a client has to.
pub(crate) fn frame(opcode: Opcode, content: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = vec![FIN | opcode as u8];
    let masked = if mask.is_some() { MASKED } else { 0 };
    match content.len() {
        short @ 0..=125 => frame.push(masked | short as u8),
        medium @ 126..=0xffff => {
            frame.push(masked | WIDE);
            frame.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            frame.push(masked | WIDER);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    if let Some(mask) = mask {
        frame.extend_from_slice(&mask);
    }
    let mask = mask.unwrap_or_default();
    frame.extend(content.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A message that is whole: its length.
    Message(u64),
    /// What is to be sent back.
    Ping(Vec<u8>),
    Close,
}

/// Reads frames, whatever pieces they come in.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Of the frame that is being read, until it is whole.
    head: Vec<u8>,
    frame: Option<Frame>,
    /// Of the message that is being read.
    message: u64,
    control: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    last: bool,
    opcode: u8,
    mask: [u8; 4],
    left: u64,
}

impl Frames {
    /// Reads until something is whole, or there are no more bytes; how many were read.
    ///
    /// # Errors
    ///
    /// If these are no frames.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(usize, Option<Event>), &'static str> {
        let mut rest = bytes;
        loop {
            let mut frame = match self.frame {
                Some(frame) => frame,
                None => {
                    let Some((first, behind)) = rest.split_first() else { break };
                    self.head.push(*first);
                    rest = behind;
                    let Some(frame) = Frame::parse(&self.head)? else { continue };
                    self.head.clear();
                    frame
                }
            };
            let (content, behind) = rest.split_at(frame.left.min(rest.len() as u64) as usize);
            rest = behind;
            frame.left -= content.len() as u64;
            if frame.is_control() {
                self.control.extend_from_slice(content);
            } else {
                self.message += content.len() as u64;
            }
            if frame.left > 0 {
                self.frame = Some(frame);
                break;
            }
            self.frame = None;
            if let Some(event) = self.whole(frame) {
                return Ok((bytes.len() - rest.len(), Some(event)));
            }
        }
        Ok((bytes.len(), None))
    }

    fn whole(&mut self, frame: Frame) -> Option<Event> {
        match frame.opcode {
            0..=7 => frame.last.then(|| Event::Message(std::mem::take(&mut self.message))),
            8 => Some(Event::Close),
            9 => {
                let content = std::mem::take(&mut self.control);
                let content = content.iter().zip(frame.mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
                Some(Event::Ping(content.collect()))
            }
            _ => {
                self.control.clear();
                None
            }
        }
    }
}

impl Frame {
    /// `None` if there is more to it.
    fn parse(head: &[u8]) -> Result<Option<Self>, &'static str> {
        let [first, second, rest @ ..] = head else { return Ok(None) };
        let wide = match second & !MASKED {
            WIDE => 2,
            WIDER => 8,
            _ => 0,
        };
        let masked = if second & MASKED == 0 { 0 } else { 4 };
        if rest.len() < wide + masked {
            return Ok(None);
        }
        let (length, mask) = rest.split_at(wide);
        let left = match wide {
            0 => u64::from(second & !MASKED),
            _ => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let frame = Self {
            last: first & FIN != 0,
            opcode: first & 0xf,
            mask: mask.try_into().unwrap_or_default(),
            left,
        };
        if frame.is_control() && left > MAX_CONTROL as u64 {
            return Err("a control frame is longer than 125 bytes");
        }
        Ok(Some(frame))
    }

    fn is_control(self) -> bool {
        self.opcode >= 8
    }
}

/// The head of a request or response, and what came behind it.
#[derive(Debug)]
pub(crate) struct Opening {
    head: Vec<u8>,
    pub(crate) rest: Vec<u8>,
}

impl Opening {
    pub(crate) async fn read(wire: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut head = Vec::with_capacity(1024);
        loop {
            if wire.read_buf(&mut head).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let rest = head.split_off(end + 4);
                return Ok(Self { head, rest });
            }
            if head.len() > MAX_HEAD {
                return Err(io::Error::other("the head of a handshake is longer than 16 KiB"));
            }
        }
    }

    /// A response's status.
    pub(crate) fn status(&self) -> Option<u16> {
        let status = self.head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
        std::str::from_utf8(status).ok()?.parse().ok()
    }

    pub(crate) fn field(&self, name: &str) -> Option<HeaderValue> {
        let line = self.head.iter().position(|byte| *byte == b'\n')?;
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let parsed = httparse::parse_headers(self.head.get(line + 1..)?, &mut fields).ok()?;
        let httparse::Status::Complete((_, fields)) = parsed else { return None };
        let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        HeaderValue::from_bytes(field.value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(wire: &[u8], size: usize) -> Vec<Event> {
        let mut frames = Frames::default();
        let mut events = Vec::new();
        for mut piece in wire.chunks(size) {
            while !piece.is_empty() {
                let (taken, event) = frames.read(piece).unwrap();
                events.extend(event);
                piece = &piece[taken..];
            }
        }
        events
    }

    #[test]
    fn frames_of_all_lengths_are_read_in_whatever_pieces() {
        for mask in [None, Some([1, 2, 3, 4])] {
            let lengths = [0, 1, 125, 126, 0xffff, 0x10000];
            let wire = lengths.map(|length| frame(Opcode::Binary, &vec![b'x'; length], mask)).concat();
            for size in [1, 7, 4096, wire.len()] {
                assert_eq!(events(&wire, size), lengths.map(|length| Event::Message(length as u64)));
            }
        }
    }

    #[test]
    fn control_frames_stand_between_those_of_a_message() {
        // "Hel", a ping that says "Hello" (masked, as in RFC 6455, section 5.7), "lo", and the end.
        let mut wire = vec![0x01, 0x03, 0x48, 0x65, 0x6c];
        wire.extend_from_slice(&[0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        wire.extend_from_slice(&[0x8a, 0x01, 0x21, 0x80, 0x02, 0x6c, 0x6f, 0x88, 0x00]);
        for size in 1..wire.len() {
            assert_eq!(
                events(&wire, size),
                [Event::Ping(b"Hello".to_vec()), Event::Message(5), Event::Close]
            );
        }
    }

    #[test]
    fn a_control_frame_that_is_too_long_is_an_error() {
        Frames::default().read(&[0x89, 126, 1, 0]).unwrap_err();
    }

    #[tokio::test]
    async fn an_opening_ends_with_its_head() {
        let mut wire: &[u8] =
            b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: abc=\r\n\r\n\x82\x00";
        let opening = Opening::read(&mut wire).await.unwrap();
        assert_eq!(opening.status(), Some(101));
        assert_eq!(opening.field("sec-websocket-accept").unwrap(), "abc=");
        assert_eq!(opening.rest, b"\x82\x00");
        Opening::read(&mut &b"HTTP/1.1 101"[..]).await.unwrap_err();
    }
}

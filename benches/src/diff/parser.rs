//! A reader of HTTP/1 that shares nothing with the one under test: it takes bytes as they come and tells what they mean.
//! It is strict in framing, and keeps names, values and targets as they are.

use std::collections::VecDeque;

use super::message::{Event, Field, Head, Start};

/// Which messages are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Requests,
    Responses,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of body are to come.
    Length(u64),
    ChunkSize,
    /// So many bytes of a chunk, and then its line's end.
    Chunk(u64),
    ChunkEnd,
    Trailers,
    UntilClose,
    /// A request that may change the protocol has ended: whether it does, its answer tells.
    Held,
    Tunnel,
    Broken(String),
}

/// Reads one direction of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Parser {
    side: Side,
    buffer: Vec<u8>,
    state: State,
    /// Whether the request that is being read may change the protocol.
    switching: bool,
    /// The methods of the requests whose responses are to come.
    asked: VecDeque<Vec<u8>>,
}

type Step = Result<Option<()>, String>;

impl Parser {
    pub(crate) const fn new(side: Side) -> Self {
        Self { side, buffer: Vec::new(), state: State::Head, switching: false, asked: VecDeque::new() }
    }

    /// Says what the next response answers.
    pub(crate) fn asked(&mut self, method: &[u8]) {
        self.asked.push_back(method.to_vec());
    }

    /// Whether bytes are there that belong to no message yet.
    pub(crate) fn pending(&self) -> &[u8] {
        &self.buffer
    }

    /// Why it cannot read on.
    pub(crate) fn broken(&self) -> Option<&str> {
        match &self.state {
            State::Broken(why) => Some(why),
            _ => None,
        }
    }

    /// Whether a request that may change the protocol has ended.
    pub(crate) fn is_held(&self) -> bool {
        self.state == State::Held
    }

    /// Whether what follows is no HTTP.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.state == State::Tunnel
    }

    /// Whether it is between two messages.
    pub(crate) fn is_idle(&self) -> bool {
        self.state == State::Head && self.buffer.is_empty()
    }

    /// Says whether a request that may change the protocol was granted that.
    pub(crate) fn decide(&mut self, switched: bool) -> Vec<Event> {
        let mut events = Vec::new();
        if self.state == State::Held {
            self.state = if switched { State::Tunnel } else { State::Head };
            events.extend(switched.then(|| Event::Tunnel(Vec::new())));
        }
        events.extend(self.feed(&[]));
        events
    }

    /// Reads on.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        loop {
            match self.step(&mut events) {
                Ok(Some(())) => {}
                Ok(None) => return events,
                Err(why) => {
                    self.state = State::Broken(why);
                    return events;
                }
            }
        }
    }

    /// The sender has closed. Whether what it sent ended as it should.
    pub(crate) fn close(&mut self) -> Vec<Event> {
        match self.state {
            State::UntilClose => {
                self.state = State::Head;
                vec![Event::End]
            }
            _ => Vec::new(),
        }
    }

    /// One step; `None` where more bytes are needed.
    fn step(&mut self, events: &mut Vec<Event>) -> Step {
        match self.state {
            State::Head => self.head(events),
            State::Length(left) => Ok(self.data(left, events, |left| {
                if left == 0 { (State::Head, true) } else { (State::Length(left), false) }
            })),
            State::Chunk(left) => Ok(self.data(left, events, |left| {
                (if left == 0 { State::ChunkEnd } else { State::Chunk(left) }, false)
            })),
            State::ChunkSize => self.chunk_size(),
            State::ChunkEnd => match self.buffer.get(..2) {
                None => Ok(None),
                Some(b"\r\n") => {
                    self.buffer.drain(..2);
                    self.state = State::ChunkSize;
                    Ok(Some(()))
                }
                Some(_) => Err("a chunk does not end where it says".into()),
            },
            State::Trailers => self.trailers(events),
            State::UntilClose | State::Tunnel => {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                let bytes = std::mem::take(&mut self.buffer);
                let tunnel = self.state == State::Tunnel;
                events.push(if tunnel { Event::Tunnel(bytes) } else { Event::Data(bytes) });
                Ok(None)
            }
            State::Held | State::Broken(_) => Ok(None),
        }
    }

    /// Takes what is there of so many bytes, and goes where `next` says.
    fn data(&mut self, left: u64, events: &mut Vec<Event>, next: fn(u64) -> (State, bool)) -> Option<()> {
        if self.buffer.is_empty() && left > 0 {
            return None;
        }
        let taken = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let bytes: Vec<u8> = self.buffer.drain(..taken).collect();
        if !bytes.is_empty() {
            events.push(Event::Data(bytes));
        }
        let (state, end) = next(left - taken as u64);
        self.state = state;
        if end {
            self.end(events);
        }
        Some(())
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        events.push(Event::End);
        self.state = if std::mem::take(&mut self.switching) { State::Held } else { State::Head };
    }

    fn line(&mut self) -> Option<Vec<u8>> {
        let at = self.buffer.windows(2).position(|pair| pair == b"\r\n")?;
        let line = self.buffer.drain(..at + 2).take(at).collect();
        Some(line)
    }

    fn chunk_size(&mut self) -> Step {
        let Some(line) = self.line() else { return Ok(None) };
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
        let size =
            std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
        let size = size.and_then(|text| u64::from_str_radix(text, 16).ok());
        let size = size.ok_or_else(|| format!("{} is no chunk size", line.escape_ascii()))?;
        self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
        Ok(Some(()))
    }

    fn trailers(&mut self, events: &mut Vec<Event>) -> Step {
        let lines = if self.buffer.starts_with(b"\r\n") {
            self.buffer.drain(..2);
            Vec::new()
        } else {
            let Some(lines) = self.section() else { return Ok(None) };
            lines
        };
        let fields = lines.iter().map(|line| field(line)).collect::<Result<Vec<_>, _>>()?;
        if !fields.is_empty() {
            events.push(Event::Trailers(fields));
        }
        self.end(events);
        Ok(Some(()))
    }

    /// The lines up to an empty one.
    fn section(&mut self) -> Option<Vec<Vec<u8>>> {
        let at = self.buffer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let section: Vec<u8> = self.buffer.drain(..at + 4).take(at).collect();
        let mut lines = vec![Vec::new()];
        let mut bytes = section.iter().peekable();
        while let Some(byte) = bytes.next() {
            if *byte == b'\r' && bytes.peek() == Some(&&b'\n') {
                bytes.next();
                lines.push(Vec::new());
            } else if let Some(line) = lines.last_mut() {
                line.push(*byte);
            }
        }
        Some(lines)
    }

    fn head(&mut self, events: &mut Vec<Event>) -> Step {
        while self.side == Side::Requests && self.buffer.starts_with(b"\r\n") {
            self.buffer.drain(..2);
        }
        let Some(lines) = self.section() else { return Ok(None) };
        let (first, lines) = lines.split_first().ok_or("no start line")?;
        let (version, start) = match self.side {
            Side::Requests => request(first)?,
            Side::Responses => response(first)?,
        };
        let fields = lines.iter().map(|line| field(line)).collect::<Result<Vec<_>, _>>()?;
        let head = Head { start, version, fields };
        events.push(Event::Head(head.clone()));
        self.switching = head.may_switch();
        if !head.is_interim() {
            self.state = self.framing(&head)?;
            if self.state == State::Tunnel {
                events.extend([Event::End, Event::Tunnel(Vec::new())]);
            }
            if self.state != State::Head {
                return Ok(Some(()));
            }
        }
        self.end(events);
        Ok(Some(()))
    }

    /// How the body of a message is delimited (RFC 9112, section 6.3); `Head` if there is none.
    fn framing(&mut self, head: &Head) -> Result<State, String> {
        if self.side == Side::Responses {
            let method = self.asked.pop_front().unwrap_or_default();
            let code = head.code();
            if code == 101 || (method == b"CONNECT" && (200..300).contains(&code)) {
                return Ok(State::Tunnel);
            }
            if method == b"HEAD" || matches!(code, 204 | 304) {
                return Ok(State::Head);
            }
        }
        if head.names("transfer-encoding", "chunked") {
            return Ok(State::ChunkSize);
        }
        match head.first("content-length") {
            Some(b"0") => Ok(State::Head),
            Some(length) => {
                let length = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
                Ok(State::Length(length.ok_or("the Content-Length is no number")?))
            }
            None if self.side == Side::Requests => Ok(State::Head),
            None => Ok(State::UntilClose),
        }
    }
}

fn request(line: &[u8]) -> Result<(Vec<u8>, Start), String> {
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else {
        return Err(format!("{} is no request line", line.escape_ascii()));
    };
    let start =
        Start::Request { method: method.to_vec(), target: target.to_vec(), authority: None, protocol: None };
    Ok((version.to_vec(), start))
}

fn response(line: &[u8]) -> Result<(Vec<u8>, Start), String> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let version = parts.next().unwrap_or_default().to_vec();
    let code =
        parts.next().and_then(|code| std::str::from_utf8(code).ok()).and_then(|code| code.parse().ok());
    let code = code.filter(|_| version.starts_with(b"HTTP/"));
    let code = code.ok_or_else(|| format!("{} is no status line", line.escape_ascii()))?;
    Ok((version, Start::Response { code, reason: parts.next().map(<[u8]>::to_vec) }))
}

fn field(line: &[u8]) -> Result<Field, String> {
    // Not at the beginning: what is written in HTTP/2's terms has `:authority`.
    let colon = line.iter().skip(1).position(|byte| *byte == b':').map(|at| at + 1);
    let colon = colon.ok_or_else(|| format!("{} is no field", line.escape_ascii()))?;
    let (name, value) = line.split_at(colon);
    Ok(Field { name: name.to_vec(), value: value[1..].to_vec() })
}

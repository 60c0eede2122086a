//! A caller of WebSocket: one binary message, and the one that answers it.

use bytes::Bytes;
use outrigger_http::websocket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Load, Target, dial::Wire, error::CallError, lane::Talk};
use crate::websocket::{Event, Frames, Opcode, Opening, frame};

/// The most that is read at once.
const READ: usize = 64 * 1024;
/// Room for a frame's head, and for a control frame.
const HEAD: usize = 256;

/// WebSocket over HTTP/1.1.
#[derive(Debug, Clone)]
pub(super) struct WebSocket {
    host: String,
    path: String,
    random: fastrand::Rng,
    message: Bytes,
    /// How long answers have to be.
    length: Option<u64>,
    room: usize,
}

impl WebSocket {
    pub(super) fn new(load: &Load, target: &Target) -> Self {
        let mut random = fastrand::Rng::with_seed(load.seed);
        // The mask is there against proxies that take content for HTTP, and need not change for that.
        let mask = random.u32(..).to_be_bytes();
        Self {
            host: target.host.clone(),
            path: target.path(load.traffic).to_owned(),
            message: frame(Opcode::Binary, &vec![b'x'; load.request_bytes], Some(mask)).into(),
            random,
            length: target.exact.then_some(load.response_bytes as u64),
            room: (load.response_bytes + HEAD).min(READ),
        }
    }
}

/// A connection after its handshake.
pub(super) struct Session {
    wire: Wire,
    frames: Frames,
    buffer: Box<[u8]>,
}

impl Talk for WebSocket {
    type Session = Session;

    async fn open(&mut self, mut wire: Wire) -> Result<Session, CallError> {
        let key = websocket::key(&mut self.random);
        let request = format!(
            "GET {} HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {}\r\n\r\n",
            self.path,
            self.host,
            key.to_str().unwrap_or_default()
        );
        wire.write_all(request.as_bytes()).await?;
        wire.flush().await?;
        let opening = Opening::read(&mut wire).await?;
        match opening.status() {
            Some(101) => {}
            Some(status) => return Err(CallError::Status(status)),
            None => return Err(CallError::Malformed("its head is not HTTP/1.1")),
        }
        if opening.field("sec-websocket-accept") != Some(websocket::accept(&key)) {
            return Err(CallError::Malformed("it is not the answer to this handshake"));
        }
        if !opening.rest.is_empty() {
            return Err(CallError::Malformed("a message came before it was asked for"));
        }
        Ok(Session { wire, frames: Frames::default(), buffer: vec![0; self.room].into() })
    }

    async fn exchange(&mut self, session: &mut Session) -> Result<bool, CallError> {
        session.wire.write_all(&self.message).await?;
        session.wire.flush().await?;
        let length = session.answer().await?;
        match self.length {
            Some(expected) if expected != length => Err(CallError::Length(length, expected)),
            _ => Ok(true),
        }
    }
}

impl Session {
    /// Reads a message; how long it is.
    async fn answer(&mut self) -> Result<u64, CallError> {
        let mut answer = None;
        while answer.is_none() {
            let read = self.wire.read(&mut self.buffer).await?;
            if read == 0 {
                return Err(CallError::Malformed("the connection ended"));
            }
            let mut taken = 0;
            while taken < read {
                let bytes = self.buffer.get(taken..read).unwrap_or_default();
                let (more, event) = self.frames.read(bytes).map_err(CallError::Malformed)?;
                taken += more;
                match event {
                    Some(Event::Message(_)) if answer.is_some() => {
                        return Err(CallError::Malformed("more follows than the answer"));
                    }
                    Some(Event::Message(length)) => answer = Some(length),
                    Some(Event::Ping(content)) => {
                        self.wire.write_all(&frame(Opcode::Pong, &content, Some([0; 4]))).await?;
                        self.wire.flush().await?;
                    }
                    Some(Event::Close) => return Err(CallError::Malformed("the connection ended")),
                    None => {}
                }
            }
        }
        answer.ok_or(CallError::Malformed("it is no message"))
    }
}

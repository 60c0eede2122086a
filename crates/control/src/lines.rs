//! JSON lines: messages to bytes, and bytes, however they are cut, to messages.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::MAX_LINE;

/// Why a line could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The line is longer than [`MAX_LINE`].
    #[error("a line of more than {MAX_LINE} bytes")]
    TooLong,
    /// The line is not a message.
    #[error("a line that is not a message ({reason}): {start}")]
    NotAMessage {
        /// What is wrong with it.
        reason: serde_json::Error,
        /// How it begins.
        start: String,
    },
}

/// A message as one line, with its end.
pub fn encode<T: Serialize>(message: &T) -> Result<Bytes, LineError> {
    let mut line = serde_json::to_vec(message)
        .map_err(|reason| LineError::NotAMessage { reason, start: String::new() })?;
    line.push(b'\n');
    if line.len() > MAX_LINE { Err(LineError::TooLong) } else { Ok(line.into()) }
}

/// Puts bytes back together into lines, and lines into messages.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: BytesMut,
    /// How far the buffer is known to hold no line end, so that a long line is searched once.
    searched: usize,
}

impl Lines {
    /// Takes bytes as they came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes have come. Empty lines are passed over.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LineError> {
        loop {
            let unseen = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(end) = unseen.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                return if self.searched >= MAX_LINE { Err(LineError::TooLong) } else { Ok(None) };
            };
            let line = self.buffer.split_to(self.searched + end + 1);
            self.searched = 0;
            if line.len() > MAX_LINE {
                return Err(LineError::TooLong);
            }
            let line = line.trim_ascii();
            if !line.is_empty() {
                return serde_json::from_slice(line).map(Some).map_err(|reason| {
                    let start = line.get(..80).unwrap_or(line);
                    LineError::NotAMessage { reason, start: String::from_utf8_lossy(start).into_owned() }
                });
            }
        }
    }
}

//! A caller of HTTP/1.1 that costs little: always the same request, written at once.

use std::io;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::{Connect, Load, Target, dial::Wire, error::CallError, lane::Talk};
use crate::message::{self, Kind, Reader};

/// Room for a usual head.
const HEAD: usize = 4096;
/// The most that is read at once.
const READ: usize = 64 * 1024;

/// HTTP/1.1.
#[derive(Debug, Clone)]
pub(super) struct Http1 {
    request: Bytes,
    /// How long answers have to be.
    length: Option<u64>,
    room: usize,
}

impl Http1 {
    pub(super) fn new(load: &Load, target: &Target) -> Self {
        let method = if load.request_bytes == 0 { "GET" } else { "POST" };
        let mut request =
            format!("{method} {} HTTP/1.1\r\nhost: {}\r\n", target.path(load.traffic), target.host)
                .into_bytes();
        if load.request_bytes > 0 {
            request.extend_from_slice(format!("content-length: {}\r\n", load.request_bytes).as_bytes());
        }
        if load.connect == Connect::Each {
            request.extend_from_slice(b"connection: close\r\n");
        }
        request.extend_from_slice(b"\r\n");
        request.resize(request.len() + load.request_bytes, b'x');
        Self {
            request: request.into(),
            length: target.exact.then_some(load.response_bytes as u64),
            room: (load.response_bytes + HEAD).min(READ),
        }
    }
}

impl Talk for Http1 {
    type Session = (Wire, Box<[u8]>);

    async fn open(&mut self, wire: Wire) -> Result<Self::Session, CallError> {
        Ok((wire, vec![0; self.room].into()))
    }

    async fn exchange(&mut self, (wire, buffer): &mut Self::Session) -> Result<bool, CallError> {
        wire.write_all(&self.request).await?;
        wire.flush().await?;
        let mut reader = Reader::new(Kind::Response);
        let surplus = message::read(wire, &mut reader, buffer, 0).await?;
        let Some(head) = reader.head() else {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        };
        if !(200..300).contains(&head.status) {
            return Err(CallError::Status(head.status));
        }
        if let Some(length) = self.length.filter(|length| *length != reader.content()) {
            return Err(CallError::Length(reader.content(), length));
        }
        if surplus > 0 {
            return Err(CallError::Malformed("more follows than the answer"));
        }
        Ok(!head.close)
    }
}

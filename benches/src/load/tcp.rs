//! Callers of TCP: so many bytes there and so many back, or as many as come.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Load, dial::Wire, error::CallError, lane::Talk};

/// The most that is read at once of a message, and in bulk.
const READ: usize = 64 * 1024;
const BULK: usize = 256 * 1024;
/// What counts as a request in bulk.
const MIB: u64 = 1024 * 1024;

/// Messages.
#[derive(Debug, Clone)]
pub(super) struct Tcp {
    message: Bytes,
    length: u64,
}

impl Tcp {
    pub(super) fn new(load: &Load) -> Self {
        Self { message: vec![b'x'; load.request_bytes].into(), length: load.response_bytes as u64 }
    }
}

impl Talk for Tcp {
    type Session = (Wire, Box<[u8]>);

    async fn open(&mut self, wire: Wire) -> Result<Self::Session, CallError> {
        // With room for a byte more than there should be.
        Ok((wire, vec![0; READ.min(self.length as usize + 1)].into()))
    }

    async fn exchange(&mut self, (wire, buffer): &mut Self::Session) -> Result<bool, CallError> {
        wire.write_all(&self.message).await?;
        wire.flush().await?;
        let mut length = 0;
        while length < self.length {
            match wire.read(buffer).await? {
                0 => return Err(CallError::Length(length, self.length)),
                read => length += read as u64,
            }
        }
        if length > self.length { Err(CallError::Length(length, self.length)) } else { Ok(true) }
    }
}

/// Bytes in bulk.
#[derive(Debug, Clone)]
pub(super) struct Bulk;

/// A connection, what is read from it, and how much was read of the next MiB already.
pub(super) struct Flow {
    wire: Wire,
    buffer: Box<[u8]>,
    ahead: u64,
}

impl Talk for Bulk {
    type Session = Flow;

    async fn open(&mut self, wire: Wire) -> Result<Flow, CallError> {
        Ok(Flow { wire, buffer: vec![0; BULK].into(), ahead: 0 })
    }

    async fn exchange(&mut self, flow: &mut Flow) -> Result<bool, CallError> {
        while flow.ahead < MIB {
            match flow.wire.read(&mut flow.buffer).await? {
                0 => return Err(CallError::Length(flow.ahead, MIB)),
                read => flow.ahead += read as u64,
            }
        }
        flow.ahead -= MIB;
        Ok(true)
    }
}

//! gRPC's messages within a stream: five bytes before each, of which four are its length (gRPC over HTTP/2,
//! "Length-Prefixed-Message").

use bytes::{BufMut, Bytes, BytesMut};

/// One message of `length` bytes with its prefix, not compressed.
pub(crate) fn message(length: usize) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + length);
    message.put_u8(0);
    message.put_u32(length as u32);
    message.put_bytes(b'x', length);
    message.freeze()
}

/// Counts messages, whatever pieces they come in.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Messages {
    prefix: [u8; 5],
    /// How many bytes of the prefix there are.
    have: usize,
    /// How many bytes of the content are still to come.
    left: u64,
    whole: u64,
    last: u64,
}

impl Messages {
    /// Reads on.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = if self.have < self.prefix.len() {
                self.read_prefix(bytes)
            } else {
                let taken = self.left.min(bytes.len() as u64);
                self.left -= taken;
                taken as usize
            };
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.have == self.prefix.len() && self.left == 0 {
                self.have = 0;
                self.whole += 1;
            }
        }
    }

    fn read_prefix(&mut self, bytes: &[u8]) -> usize {
        let room = self.prefix.get_mut(self.have..).unwrap_or_default();
        let taken = room.len().min(bytes.len());
        for (to, from) in room.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.have += taken;
        if self.have == self.prefix.len() {
            let [_, length @ ..] = self.prefix;
            self.left = u64::from(u32::from_be_bytes(length));
            self.last = self.left;
        }
        taken
    }

    /// How many whole messages have been read.
    pub(crate) fn whole(&self) -> u64 {
        self.whole
    }

    /// The length of the last.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Whether nothing of a further message has been read.
    pub(crate) fn is_between(&self) -> bool {
        self.have == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_messages_in_whatever_pieces() {
        let wire = [message(3), message(0), message(300)].concat();
        for size in 1..wire.len() {
            let mut messages = Messages::default();
            wire.chunks(size).for_each(|piece| messages.read(piece));
            assert_eq!((messages.whole(), messages.last(), messages.is_between()), (3, 300, true));
            messages.read(&[0, 0]);
            assert!(!messages.is_between());
        }
    }
}

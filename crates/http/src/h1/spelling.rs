//! How the header of a message was written: the names as they were spelled, in their order.

use bytes::Bytes;

/// How the header of an HTTP/1 message was written, which says nothing and which some applications depend on.
#[derive(Debug, Default)]
pub struct Spelling {
    #[allow(dead_code)]
    /// The words after the status (RFC 9112, section 4).
    pub(crate) reason: Bytes,
}

//! The head of a frame (RFC 9113, section 4.1), as far as it is looked at beside `h2`.

/// How many bytes precede a frame's payload.
pub(super) const HEAD: usize = 9;
/// The type of a frame that carries a part of a body (RFC 9113, section 6.1).
pub(super) const DATA: u8 = 0;

/// How many bytes of payload follow.
pub(super) fn payload(&[a, b, c, ..]: &[u8; HEAD]) -> usize {
    u32::from_be_bytes([0, a, b, c]) as usize
}

//! HTTP/1 of our own (RFC 9112).

mod spelling;

pub use spelling::Spelling;

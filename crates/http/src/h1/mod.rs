//! HTTP/1 of our own (RFC 9112), above httparse. hyper's renames fields, puts them in another order, drops interim
//! responses and trailers that were not announced, and takes what can be understood in two ways; a sidecar may do none
//! of it.
//!
//! A connection is driven by one task: there is no channel between it and the bodies that it carries, which read from it
//! and write to it directly.

mod client;
mod conn;
mod decode;
mod encode;
mod head;
mod outbox;
mod server;
mod spelling;

pub(crate) use client::{Sender, Unsent};
pub(crate) use conn::Body;
pub use head::Limits;
pub(crate) use head::{Wrong, same_host};
pub(crate) use outbox::MAX_RECORD;
pub(crate) use server::serve;
pub(crate) use spelling::SPELLING;
pub use spelling::Spelling;

#[cfg(test)]
mod tests;

//! Sockets: listening, original destinations, capture rules, protocol detection, byte copy.
//!
//! What stands between the kernel and the request path. Everything here is handed plain values: this crate knows
//! neither the configuration nor HTTP semantics, and no other crate of the workspace.
//!
//! `unsafe` is confined to `peek`, `heap` and `activation`, which say why.

pub mod activation;
pub mod capture;
pub mod copy;
pub mod detect;
pub mod heap;
pub mod hello;
pub mod listen;
pub mod original;
pub mod pass;
mod peek;
pub mod quiet;

//! The control protocol: its messages, and the client that keeps a node in step.
//!
//! [`message`] and [`lines`] are the protocol, for both ends; [`run`] is the node's end. The other end is the control
//! API. What is applied, and how, is the [`Sink`]'s business: nothing here knows a listener from a route.

pub mod lines;
pub mod message;
mod node;

pub use message::Refusal;
pub use node::{Error, Options, Sink, run};

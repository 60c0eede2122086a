//! The control protocol: its messages, and the client that keeps a node in step.

pub mod lines;
pub mod message;

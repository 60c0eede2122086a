//! A whole control API, through its public doors: REST, signing, the stream, and the command.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod command;
mod durability;
mod follow;
mod hundred;
mod rest;
mod signing;
mod stream;
mod support;

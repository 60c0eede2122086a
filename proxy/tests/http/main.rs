//! How the proxy speaks HTTP, over real sockets, as its callers and its backends see it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod http2;
mod messages;
mod retries;
mod routing;
mod streaming;
#[path = "../support/mod.rs"]
mod support;
mod upgrade;

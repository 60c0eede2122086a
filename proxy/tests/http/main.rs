//! How the proxy speaks HTTP, over real sockets, as its callers and its backends see it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]
#![allow(clippy::float_cmp, reason = "metrics are whole numbers")]
#![allow(clippy::format_collect, reason = "a test may allocate")]

mod auth;
mod backend_connections;
mod balance;
mod balance_even;
mod body_filters;
mod codings;
mod compression;
mod connect;
mod cors;
mod deadlines;
mod delivery;
mod extended_connect;
mod forwarded;
mod grpc;
mod grpc_web;
mod hedging;
mod hostile;
mod http2;
mod http2_backend;
mod instead;
mod keep_alive;
mod limits;
mod limits_shown;
mod messages;
mod mirror;
mod noise;
mod paths;
mod peer;
mod redirect;
mod refused;
mod retries;
mod routing;
mod session;
mod streaming;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod upgrade;

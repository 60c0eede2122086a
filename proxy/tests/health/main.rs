//! Endpoints that are not well, and how soon and for how long nobody is sent there.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod checks;
mod outliers;
mod stub;
#[path = "../support/mod.rs"]
mod support;

//! A mesh under change: nothing that goes on around an application is felt by it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "mesh/story.rs"]
mod story;

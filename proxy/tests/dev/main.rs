//! `outrigger dev`, as the command that developers run.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod browser;
mod command;
mod developer;
mod folder;
mod names;
mod sites;
mod vite;
mod waiting;

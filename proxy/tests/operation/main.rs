//! How a proxy is operated: its configuration and certificates follow their files, it shows what it does, and it ends
//! in order.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod binary;
mod caller;
mod cgroup;
mod desk;

mod admin;
mod drain;
mod endpoints;
mod exhausted;
mod file;
mod goaway;
mod killed;
mod leaving;
mod listeners;
mod memory;
mod names;
mod sessions;
mod silence;
mod tcp;
mod tls;
mod tls_route;
mod upgrade;

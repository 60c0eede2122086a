//! A mesh under change: nothing that goes on around an application is felt by it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

#[path = "mesh/calls.rs"]
mod calls;
#[path = "mesh/change.rs"]
mod change;
#[path = "mesh/control.rs"]
mod control;
#[path = "mesh/delivery.rs"]
mod delivery;
#[path = "mesh/filters.rs"]
mod filters;
#[path = "mesh/health.rs"]
mod health;
#[path = "mesh/identity.rs"]
mod identity;
#[path = "mesh/leaving.rs"]
mod leaving;
#[path = "mesh/limits.rs"]
mod limits;
#[path = "mesh/load.rs"]
mod load;
#[path = "mesh/parting.rs"]
mod parting;
#[path = "mesh/protocol.rs"]
mod protocol;
#[path = "mesh/story.rs"]
mod story;

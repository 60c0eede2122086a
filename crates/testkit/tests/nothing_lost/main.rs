//! Nothing lost: each claim breaks something on purpose, through real sidecars and a real control API, and counts.
//! Zero means zero. The long forms are ignored; each says how it is run, and `docs/RESILIENCE.md` lists them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod delivery;
mod failing;
mod frames;
mod idle;
mod restarts;
mod silence;
mod stage;

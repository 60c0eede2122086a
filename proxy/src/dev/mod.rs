//! `outrigger dev`: a reverse proxy for a developer's machine. A command line becomes a configuration, which is run as any
//! file is; certificates come from an authority of the user's own.

pub(crate) mod cli;

mod authority;
mod config;
mod names;
mod ports;
mod surroundings;
mod trust;

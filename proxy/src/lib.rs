//! The sidecar: takes the traffic that enters and leaves an application, and forwards it by one live table.
//!
//! [`start`] runs a proxy within the process: a control thread, which follows the configuration, names, files and
//! certificates and makes each change one table, and workers, each with its own sockets and connections, which act on
//! it. Several proxies may run in one process: nothing here is global.
//!
//! The way of a request: [`worker`](self) accepts, `connection` finds out what is spoken, `edge`, `inbound` or
//! `outbound` handles the direction, `plan` decides, `request` forwards and streams back, `record` counts and logs.

mod admin;
mod capture;
pub mod cli;
mod connection;
mod dev;
mod director;
mod drain;
mod edge;
mod explain;
mod faces;
mod files;
mod filters;
mod hashing;
mod health;
mod inbound;
mod limits;
mod listeners;
mod local;
mod memory;
mod outbound;
mod own;
mod plan;
mod proxy;
mod record;
mod request;
mod resolve;
mod secrets;
mod seldom;
mod session;
mod source;
mod state;
mod systemd;
mod takeover;
mod tcp;
mod threads;
mod told;
mod tunnel;
mod waiting;
mod watch;
mod worker;

pub use director::Captured;
pub use memory::MemoryLimit;
pub use proxy::{Addresses, Ended, Options, Proxy, Source, StartError, start};
pub use takeover::UpgradeError;

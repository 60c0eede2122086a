//! The configuration model: what a user writes, checked once, into values that cannot be wrong.
//!
//! One model, three doors: a file ([`file::parse`]), one resource per message on the control stream, and the same
//! over REST (both [`Resource::parse`]). Whatever the door, a resource is validated by itself; the accepted ones make
//! an immutable [`Snapshot`], and every decision of the data plane reads exactly one.
//!
//! This crate is pure: no clock, no socket, no file is opened here.

pub mod accepted;
pub mod backend;
mod check;
mod doubt;
pub mod explain;
pub mod file;
pub mod listener;
pub mod matching;
pub mod path;
pub mod resource;
pub mod route;
pub mod scalar;
pub mod schema;
pub mod server_name;
pub mod shares;
pub mod snapshot;
mod strict;
mod tree;
mod wording;

pub use accepted::Accepted;
pub use backend::{Backend, Endpoint};
pub use file::{File, IdentityFiles, Rejected, Unreadable};
pub use listener::Listener;
pub use matching::{Found, Head, HttpTable};
pub use resource::{Invalid, Key, Kind, Resource, Spec};
pub use route::{GrpcRoute, HttpRoute, TcpRoute, TlsRoute};
pub use scalar::{Cidr, Duration, HostPort, Hostname, Name, SpiffeId, Timestamp, Token};
pub use schema::schema;
pub use shares::{Share, Shares};
pub use snapshot::{BackendEntry, HttpRuleEntry, ListenerEntry, Snapshot, TcpRuleEntry};

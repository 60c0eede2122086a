//! The configuration model: what a user writes, checked once, into values that cannot be wrong.
//!
//! One model, three doors: a file ([`file`]), one resource per message on the control stream, and the same
//! over REST (both [`resource`]). Whatever the door, a resource is validated by itself; the accepted ones make
//! an immutable [`Snapshot`], and every decision of the data plane reads exactly one.
//!
//! This crate is pure: no clock, no socket, no file is opened here.

pub mod backend;
pub mod listener;
pub mod resource;
pub mod route;
pub mod scalar;

pub use backend::{Backend, Endpoint};
pub use listener::Listener;
pub use resource::{Invalid, Key, Kind, Resource, Spec};
pub use route::{HttpRoute, TcpRoute};
pub use scalar::{Duration, HostPort, Hostname, Name, SpiffeId};

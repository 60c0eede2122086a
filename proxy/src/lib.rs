//! The sidecar: a service-mesh data plane.

pub mod admin;
pub mod resolve;
pub mod watch;

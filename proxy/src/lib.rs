//! The sidecar: a service-mesh data plane.

pub mod resolve;
pub mod watch;

//! The sidecar: a service-mesh data plane.

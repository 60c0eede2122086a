//! Metrics, the access log and diagnostics.

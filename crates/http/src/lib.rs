//! Serving HTTP, connections to backends, bodies, filters, timeouts, retries.

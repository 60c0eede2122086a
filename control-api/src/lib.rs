//! The control API: store, REST, stream and certificate authority.

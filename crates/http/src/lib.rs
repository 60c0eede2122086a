//! HTTP: serving callers, and the way of a request to a backend.
//!
//! A connection is served by [`serve::connection`]. Each request that its handler wants sent on goes through
//! [`forward::forward`], which reads top to bottom: pick an endpoint, take a connection, send, and send again only
//! where that is safe. Everything here runs on one worker's thread: connections and pools are never shared, and
//! nothing need be `Send`. What workers do share is an [`Endpoint`]'s load.
//!
//! Not here: which backend a request goes to (the plan, in the proxy), and who may call.

mod admission;
pub mod body;
pub mod connect;
mod copy;
pub mod endpoint;
pub mod error;
pub mod filter;
pub mod forward;
pub mod forwarded;
pub mod grpc;
pub mod h1;
mod h2;
pub mod idle;
pub mod memory;
pub mod message;
pub mod pool;
pub mod room;
pub mod serve;
mod sleeper;
pub mod transform;
pub mod upgrade;
pub mod verdict;
pub mod websocket;

pub use endpoint::{Backend, Endpoint, Security};
pub use error::{Error, PROXY_STATUS, Reason};

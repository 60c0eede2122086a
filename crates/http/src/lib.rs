//! HTTP: serving callers, and the way of a request to a backend.
//!
//! A connection is served by [`serve::connection`]. Each request that its handler wants sent on goes through
//! [`forward::forward`], which reads top to bottom: pick an endpoint, take a connection, send, and send again only
//! where that is safe. Everything here runs on one worker's thread: connections and pools are never shared, and
//! nothing need be `Send`. What workers do share is an [`Endpoint`]'s load.
//!
//! Not here: which backend a request goes to (the plan, in the proxy), and who may call.

pub mod body;
pub mod connect;
mod copy;
pub mod endpoint;
pub mod error;
pub mod filter;
pub mod forward;
pub mod grpc;
pub mod h1;
pub mod message;
pub mod pool;
pub mod serve;
pub mod transform;
pub mod upgrade;

pub use endpoint::{Backend, Endpoint, Security};
pub use error::{Error, Reason};

use std::future::Future;

/// Runs hyper's own tasks on the thread that asks: nothing here need be `Send`.
#[derive(Debug, Clone, Copy)]
pub struct Local;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

//! An application that can be ended: on a thread of its own, with all of its connections.

use std::{net::SocketAddr, thread};

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use crate::callee::Callee;

/// An application. Dropping it ends it, and breaks every connection that it still has.
#[derive(Debug)]
pub(super) struct Application {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Application {
    /// Starts one for the faults' load.
    pub(super) async fn start() -> Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (said, heard) = oneshot::channel();
        let thread = thread::Builder::new().name("application".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            // Dropping the runtime drops the connections.
            let _ = runtime.map(|runtime| {
                runtime.block_on(async {
                    let callee = Callee::start(&super::load()).await;
                    let _ = said.send(callee.as_ref().map(Callee::address).ok());
                    let _ = stopped.await;
                });
            });
        })?;
        let address = heard.await.ok().flatten().context("an application cannot listen")?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

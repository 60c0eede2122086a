//! The threads of a proxy: one for each worker, one for everything else.

use std::future::Future;
use std::io;
use std::thread::{Builder, JoinHandle};

use tokio::runtime;

/// How many workers a proxy has where nobody says: as many as the processors that it may use, by affinity and by the
/// quota of its cgroup, whole ones.
pub(crate) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Starts a thread with a runtime of its own, whose tasks stay on it.
pub(crate) fn spawn<F, Fut>(name: String, run: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()>,
{
    Builder::new().name(name).spawn(move || {
        match runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(runtime::LocalOptions::default())
        {
            Ok(runtime) => runtime.block_on(run()),
            Err(error) => tracing::error!(%error, "no runtime for this thread"),
        }
    })
}

//! Tasks that run in a namespace.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::Namespace;

/// A tokio runtime on one thread that is in a namespace, and belongs to a user. Dropped, it ends with all its tasks.
#[derive(Debug)]
pub struct Inside {
    handle: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Inside {
    pub(super) fn start(namespace: &Namespace, uid: u32) -> io::Result<Self> {
        let (end, ended) = oneshot::channel::<()>();
        let (handle, thread) = namespace.within_as(uid, || {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            // A thread is where, and who, its parent is.
            let thread = std::thread::Builder::new().name("inside".into()).spawn(move || {
                // An error is the end too: `Inside` was dropped.
                let _ = runtime.block_on(ended);
            })?;
            io::Result::Ok((handle, thread))
        })??;
        Ok(Self { handle, end: Some(end), thread: Some(thread) })
    }

    /// Runs a task there and waits for it. What it spawns goes on.
    ///
    /// # Panics
    ///
    /// If the task does.
    pub fn run<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> T {
        match self.handle.block_on(self.handle.spawn(task)) {
            Ok(output) => output,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

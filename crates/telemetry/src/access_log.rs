//! The access log: workers fill buffers, one thread writes them.
//!
//! A worker never waits for the log. Where what is written to cannot keep up, lines are dropped and counted.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use prometheus::IntCounter;

use crate::entry::{Entry, TcpEntry};
use crate::json::Line;
use crate::text;

/// The size of a full buffer, in bytes.
const CHUNK: usize = 64 * 1024;
/// The size at which a buffer is handed over: most lines fit into the rest, so that it need not grow.
const FULL: usize = CHUNK - 4 * 1024;
/// How many chunks may wait for the thread that writes: 4 MiB of lines.
const WAITING: usize = 64;
/// How long closing waits for what is written to, such as a pipe that nobody reads.
const PATIENCE: Duration = Duration::from_secs(5);

/// The access log of one proxy. Clones are the same log.
#[derive(Clone)]
pub struct AccessLog {
    /// Absent where nothing is logged.
    shared: Option<Arc<Shared>>,
    format: Format,
    dropped: IntCounter,
}

/// How entries are written.
#[derive(Clone, Copy)]
enum Format {
    Json,
    Text { colours: bool },
}

struct Shared {
    chunks: SyncSender<Chunk>,
    progress: Arc<Progress>,
}

/// Lines on their way to the thread that writes.
struct Chunk {
    text: Vec<u8>,
    lines: u64,
}

/// How many chunks are with the thread that writes.
#[derive(Default)]
struct Progress {
    pending: Mutex<usize>,
    none_pending: Condvar,
}

impl AccessLog {
    /// A log to standard output, of JSON.
    pub fn stdout() -> Self {
        Self::to(Box::new(io::stdout()))
    }

    /// A log to anything, of JSON: an object on each line.
    pub fn to(writer: Box<dyn Write + Send>) -> Self {
        Self::formatted(writer, Format::Json)
    }

    /// A log to anything, of text: a line that people read, coloured where that is wanted.
    pub fn text(writer: Box<dyn Write + Send>, colours: bool) -> Self {
        Self::formatted(writer, Format::Text { colours })
    }

    /// Where no thread can be had to write, nothing is logged, and standard error says so.
    fn formatted(writer: Box<dyn Write + Send>, format: Format) -> Self {
        let (chunks, received) = sync_channel(WAITING);
        let progress = Arc::new(Progress::default());
        let mut log = Self { format, ..Self::off() };
        let (written, dropped) = (Arc::clone(&progress), log.dropped.clone());
        let writing = move || write_all(writer, &received, &written, &dropped);
        match thread::Builder::new().name("access-log".into()).spawn(writing) {
            Ok(_) => log.shared = Some(Arc::new(Shared { chunks, progress })),
            Err(error) => tracing::error!(%error, "no thread to write the access log: nothing is logged"),
        }
        log
    }

    /// No log: entries go nowhere.
    pub fn off() -> Self {
        #[expect(clippy::expect_used, reason = "the name is a constant, and every test makes it")]
        let dropped = IntCounter::new(
            "outrigger_access_log_dropped_total",
            "Lines of the access log that were dropped because they could not be written in time.",
        )
        .expect("the metric has a valid name");
        Self { shared: None, format: Format::Json, dropped }
    }

    /// A buffer for one worker.
    pub fn buffer(&self) -> LogBuffer {
        LogBuffer { log: self.clone(), lines: RefCell::new(Chunk { text: Vec::new(), lines: 0 }) }
    }

    /// How many lines were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Blocks until all that buffers handed over is written, or for 5 s. Buffers hand over when they are flushed or
    /// dropped; do that first.
    pub fn flush_and_close(self) {
        if let Some(shared) = &self.shared {
            shared.wait();
        }
    }

    pub(crate) fn dropped_counter(&self) -> IntCounter {
        self.dropped.clone()
    }

    fn hand_over(&self, chunk: Chunk) {
        let Some(shared) = &self.shared else { return };
        // Counted before it is sent, since the thread may have written it by the time that sending returns.
        *shared.progress.pending.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let lines = chunk.lines;
        if shared.chunks.try_send(chunk).is_err() {
            shared.progress.one_less();
            self.dropped.inc_by(lines);
        }
    }
}

impl Shared {
    fn wait(&self) {
        let pending = self.progress.pending.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether it was in time makes no difference to what can be done now.
        let _ = self.progress.none_pending.wait_timeout_while(pending, PATIENCE, |pending| *pending > 0);
    }
}

impl Drop for Shared {
    /// The last lines of a process are not lost where nobody closed the log.
    fn drop(&mut self) {
        self.wait();
    }
}

impl Progress {
    fn one_less(&self) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        *pending -= 1;
        if *pending == 0 {
            self.none_pending.notify_all();
        }
    }
}

/// Writes chunks until every sender is gone.
fn write_all(
    mut writer: Box<dyn Write + Send>,
    chunks: &Receiver<Chunk>,
    progress: &Progress,
    dropped: &IntCounter,
) {
    let mut failing = false;
    for chunk in chunks {
        let result = writer.write_all(&chunk.text).and_then(|()| writer.flush());
        if let Err(error) = &result {
            dropped.inc_by(chunk.lines);
            if !failing {
                tracing::warn!(%error, "the access log cannot be written: lines are dropped");
            }
        }
        failing = result.is_err();
        progress.one_less();
    }
}

/// The lines of one worker that were not handed over yet. Dropping it hands them over.
pub struct LogBuffer {
    log: AccessLog,
    lines: RefCell<Chunk>,
}

impl LogBuffer {
    /// Whether entries are written anywhere; where not, they need not be made.
    pub fn is_on(&self) -> bool {
        self.log.shared.is_some()
    }

    /// Logs a request.
    pub fn write(&self, entry: &Entry<'_>) {
        self.line(|text, format| match format {
            Format::Json => {
                let mut line = Line::new(text);
                entry.write(&mut line);
                line.end();
            }
            Format::Text { colours } => text::request(text, entry, colours),
        });
    }

    /// Logs a connection that is not HTTP.
    pub fn write_tcp(&self, entry: &TcpEntry<'_>) {
        self.line(|text, format| match format {
            Format::Json => {
                let mut line = Line::new(text);
                entry.write(&mut line);
                line.end();
            }
            Format::Text { colours } => text::connection(text, entry, colours),
        });
    }

    /// Hands the lines over to be written, if there are any. A worker does so every 100 ms; a full buffer, of 64 KiB,
    /// does so by itself. Never waits.
    pub fn flush(&self) {
        let mut lines = self.lines.borrow_mut();
        if lines.lines > 0 {
            // Where lines come so fast that buffers fill, the next will; else an idle worker keeps none.
            let capacity = if lines.text.len() >= FULL { CHUNK } else { 0 };
            let next = Chunk { text: Vec::with_capacity(capacity), lines: 0 };
            self.log.hand_over(std::mem::replace(&mut lines, next));
        }
    }

    fn line(&self, write: impl FnOnce(&mut Vec<u8>, Format)) {
        if !self.is_on() {
            return;
        }
        let mut lines = self.lines.borrow_mut();
        write(&mut lines.text, self.log.format);
        lines.lines += 1;
        if lines.text.len() >= FULL {
            drop(lines);
            self.flush();
        }
    }
}

impl Drop for LogBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}

impl std::fmt::Debug for LogBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogBuffer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

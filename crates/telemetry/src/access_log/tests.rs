use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use super::{AccessLog, WAITING};
use crate::{Entry, Metrics};

fn entry(attempts: u32) -> Entry<'static> {
    Entry {
        time: UNIX_EPOCH,
        direction: "edge",
        listener: "web",
        method: "GET",
        scheme: None,
        host: b"localhost",
        path: "/",
        protocol: "HTTP/1.1",
        status: 200,
        grpc_status: None,
        reason: None,
        details: None,
        request_bytes: 0,
        response_bytes: 5,
        duration: Duration::from_millis(1),
        route: None,
        rule: None,
        backend: None,
        endpoint: None,
        caller: None,
        caller_address: "127.0.0.1:1".parse().unwrap(),
        callee: None,
        attempts,
        retried: None,
        not_retried: None,
        user_agent: None,
    }
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    /// The attempts of each line, which tell lines apart.
    fn attempts(&self) -> Vec<u64> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let line =
            |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["attempts"].as_u64().unwrap();
        text.lines().map(line).collect()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_line_is_written_once_in_order() {
    let written = Written::default();
    let log = AccessLog::to(Box::new(written.clone()));
    let buffer = log.buffer();
    assert!(buffer.is_on());
    for attempts in 0..10_000 {
        buffer.write(&entry(attempts));
    }
    buffer.flush();
    log.flush_and_close();
    assert_eq!(written.attempts(), (0..10_000).collect::<Vec<_>>());
}

#[test]
fn a_full_buffer_hands_over_by_itself_and_others_wait_for_a_flush() {
    let written = Written::default();
    let log = AccessLog::to(Box::new(written.clone()));
    let buffer = log.buffer();
    buffer.write(&entry(1));
    log.clone().flush_and_close();
    assert!(written.attempts().is_empty());
    (0..1_000).for_each(|_| buffer.write(&entry(1)));
    log.clone().flush_and_close();
    let early = written.attempts().len();
    assert!((300..1_001).contains(&early), "64 KiB were handed over: {early} lines");
    drop(buffer);
    log.flush_and_close();
    assert_eq!(written.attempts().len(), 1_001);
}

#[test]
fn dropping_everything_loses_nothing() {
    let written = Written::default();
    {
        let log = AccessLog::to(Box::new(written.clone()));
        let buffers = [log.buffer(), log.buffer()];
        drop(log);
        (0..500).for_each(|number| buffers[number % 2].write(&entry(7)));
    }
    assert_eq!(written.attempts().len(), 500);
}

/// Says when it is asked to write, and writes when it is told to.
struct Gate(Sender<()>, Receiver<()>, Written);

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(());
        let _ = self.1.recv();
        self.2.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_cannot_be_written_in_time_is_dropped_and_counted() {
    let written = Written::default();
    let ((asked, asks), (go, gate)) = (channel(), channel());
    let log = AccessLog::to(Box::new(Gate(asked, gate, written.clone())));
    let metrics = Metrics::new(1);
    metrics.show_access_log(&log);
    let buffer = log.buffer();
    let line = |attempts| {
        buffer.write(&entry(attempts));
        buffer.flush();
    };
    line(0);
    asks.recv().unwrap(); // the first chunk is being written, and hangs
    (0..WAITING).for_each(|_| line(1));
    assert_eq!(log.dropped(), 0);
    buffer.write(&entry(2));
    line(2);
    assert_eq!(log.dropped(), 2, "no room for a chunk of two lines");
    drop(go); // from here on it writes at once
    log.clone().flush_and_close();
    line(3);
    log.flush_and_close();
    let expected: Vec<_> = [0].into_iter().chain([1; WAITING]).chain([3]).collect();
    assert_eq!(written.attempts(), expected);
    assert!(metrics.encode().contains("\noutrigger_access_log_dropped_total 2\n"));
}

struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_that_fail_to_be_written_are_counted() {
    let log = AccessLog::to(Box::new(Broken));
    let buffer = log.buffer();
    (0..3).for_each(|_| buffer.write(&entry(1)));
    buffer.flush();
    log.clone().flush_and_close();
    assert_eq!(log.dropped(), 3);
}

#[test]
fn a_log_that_is_off_takes_nothing() {
    let log = AccessLog::off();
    let buffer = log.buffer();
    assert!(!buffer.is_on());
    buffer.write(&entry(1));
    buffer.flush();
    assert_eq!(log.dropped(), 0);
}

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing::level_filters::LevelFilter;

use super::{LogControl, diagnostics_to, level};

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_level_can_be_set_while_it_runs() {
    let written = Written::default();
    let writer = written.clone();
    let (subscriber, control) = diagnostics_to(move || writer.clone(), LevelFilter::WARN, false);
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!("first");
        control.set("Debug").unwrap();
        assert_eq!(control.level(), "debug");
        tracing::debug!("second");
        control.set("off").unwrap();
        tracing::error!("third");
    });
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("DEBUG") && text.contains("second"), "{text}");
    assert!(!text.contains("first") && !text.contains("third"), "{text}");
    assert!(!text.contains('\x1b'), "no colours: {text}");
}

#[test]
fn a_detached_control_remembers() {
    let control = LogControl::detached();
    assert_eq!(control.level(), "info");
    control.clone().set("trace").unwrap();
    assert_eq!(control.level(), "trace");
}

#[test]
fn an_unknown_level_is_refused_with_those_there_are() {
    let error = LogControl::detached().set("loud").unwrap_err();
    assert_eq!(error.to_string(), "`loud` is not a log level: use off, error, warn, info, debug or trace");
    assert_eq!(level(" WARN\n").unwrap(), LevelFilter::WARN);
}

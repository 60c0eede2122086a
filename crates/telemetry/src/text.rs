//! A line of text for each request or connection, for people at a terminal.
//!
//! What came from the network is written without its control characters: a terminal would act on them.

use std::fmt::{Display, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::entry::{Entry, TcpEntry};

/// Colours of a terminal (ECMA-48, section 8.3.117).
#[derive(Clone, Copy)]
enum Colour {
    Dim = 2,
    Bold = 1,
    Red = 31,
    Green = 32,
    Yellow = 33,
    Cyan = 36,
}

/// Text, coloured or not.
struct Painter {
    text: String,
    colours: bool,
}

impl Painter {
    fn paint(&mut self, colour: Colour, words: impl Display) {
        // Writing to memory does not fail.
        let _ = if self.colours {
            write!(self.text, "\u{1b}[{}m{words}\u{1b}[0m", colour as u8)
        } else {
            write!(self.text, "{words}")
        };
    }

    fn plain(&mut self, words: &str) {
        self.text.push_str(words);
    }

    /// Ends the line, and puts it behind `out`.
    fn end(mut self, out: &mut Vec<u8>) {
        self.text.push('\n');
        out.extend_from_slice(self.text.as_bytes());
    }
}

/// `200 GET     shop.localhost:8443/cart?id=7  12 ms  shop 127.0.0.1:3000`, and after it what went wrong.
pub(crate) fn request(out: &mut Vec<u8>, entry: &Entry<'_>, colours: bool) {
    let mut line = Painter { text: String::with_capacity(160), colours };
    match entry.status {
        0 => line.paint(Colour::Dim, " - "),
        status => line.paint(of_status(status), status),
    }
    line.plain(" ");
    line.paint(Colour::Bold, format_args!("{:<6}", clean(entry.method)));
    line.plain(" ");
    line.paint(Colour::Dim, clean(&String::from_utf8_lossy(entry.host)));
    line.plain(&clean(entry.path));
    line.plain("  ");
    line.paint(Colour::Dim, Took(entry.duration));
    callee(&mut line, entry.backend, entry.endpoint);
    trouble(&mut line, entry.reason, entry.details);
    line.end(out);
}

/// `TCP db  1.2 s  ↑ 120 ↓ 4096 bytes  postgres 127.0.0.1:5433`, and after it what went wrong.
pub(crate) fn connection(out: &mut Vec<u8>, entry: &TcpEntry<'_>, colours: bool) {
    let mut line = Painter { text: String::with_capacity(160), colours };
    line.paint(Colour::Bold, entry.protocol);
    line.plain(" ");
    line.plain(entry.listener);
    if let Some(name) = entry.sni {
        line.plain(" ");
        line.plain(&clean(name));
    }
    line.plain("  ");
    line.paint(Colour::Dim, Took(entry.duration));
    line.paint(Colour::Dim, format_args!("  ↑ {} ↓ {} bytes", entry.sent_bytes, entry.received_bytes));
    callee(&mut line, entry.backend, entry.endpoint);
    trouble(&mut line, entry.reason, entry.error);
    line.end(out);
}

fn callee(line: &mut Painter, backend: Option<&str>, endpoint: Option<SocketAddr>) {
    if let Some(backend) = backend {
        line.plain("  ");
        line.paint(Colour::Cyan, backend);
    }
    if let Some(endpoint) = endpoint {
        line.plain(" ");
        line.paint(Colour::Dim, endpoint);
    }
}

fn trouble(line: &mut Painter, reason: Option<&str>, details: Option<&str>) {
    if let Some(reason) = reason {
        line.plain("  ");
        line.paint(Colour::Red, reason);
    }
    if let Some(details) = details {
        line.plain(if reason.is_some() { ": " } else { "  " });
        line.plain(&clean(details));
    }
}

const fn of_status(status: u16) -> Colour {
    match status {
        ..300 => Colour::Green,
        300..400 => Colour::Cyan,
        400..500 => Colour::Yellow,
        500.. => Colour::Red,
    }
}

/// Text without what a terminal would act on.
fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            cleaned.extend(c.escape_default());
        } else {
            cleaned.push(c);
        }
    }
    cleaned
}

/// How long something took, in three digits.
struct Took(Duration);

impl Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (milliseconds, seconds) = (self.0.as_secs_f64() * 1_000.0, self.0.as_secs());
        match milliseconds {
            ..9.95 => write!(f, "{milliseconds:.1} ms"),
            ..999.5 => write!(f, "{milliseconds:.0} ms"),
            ..59_950.0 => write!(f, "{:.1} s", milliseconds / 1_000.0),
            _ => write!(f, "{} min {} s", seconds / 60, seconds % 60),
        }
    }
}

#[cfg(test)]
mod tests;

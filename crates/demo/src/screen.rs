//! What the visitor sees: on a terminal a table that is redrawn in place, otherwise a line per second.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use crate::story::{Scene, Verdict};
use crate::town::Application;
use crate::traffic::Seen;

/// How often the table is redrawn. Rates and latencies are those of the last second all the same.
const REDRAW: Duration = Duration::from_millis(250);
const SECOND: Duration = Duration::from_secs(1);

/// What there is to show.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) elapsed: Duration,
    pub(crate) scene: Scene,
    pub(crate) seen: Seen,
    /// Of the last second or so.
    pub(crate) recent: Seen,
    /// How long that was.
    pub(crate) window: Duration,
    pub(crate) applications: Vec<(Application, bool)>,
    pub(crate) retries: u64,
    pub(crate) renewals: u64,
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    colour: bool,
    /// How many lines the table had when it was last drawn.
    drawn: usize,
}

impl View {
    /// So many of the recent requests, in a second.
    fn rate(&self, requests: u64) -> f64 {
        requests as f64 / self.window.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

#[derive(Clone, Copy)]
enum Colour {
    Bold,
    Dim,
    Green,
    Red,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let terminal = io::stdout().is_terminal() && !dumb;
        Self { terminal, colour: terminal && !set("NO_COLOR"), drawn: 0 }
    }

    /// How long until [`show`](Self::show) is worth calling again.
    pub(crate) const fn pace(&self) -> Duration {
        if self.terminal { REDRAW } else { SECOND }
    }

    /// A heading.
    pub(crate) fn title(&self, text: &str) -> String {
        self.paint(Colour::Bold, text)
    }

    /// Shows how things are now.
    pub(crate) fn show(&mut self, view: &View) -> io::Result<()> {
        if !self.terminal {
            return print(&line(view));
        }
        let table = self.table(view);
        let mut frame = String::new();
        if self.drawn > 0 {
            let _ = write!(frame, "\x1b[{}A", self.drawn);
        }
        self.drawn = table.lines().count();
        // Lines are not wrapped meanwhile, so that a narrow terminal has as many lines as were counted.
        let _ = write!(frame, "\r\x1b[J\x1b[?7l{table}\x1b[?7h");
        print(&frame)
    }

    fn table(&self, view: &View) -> String {
        let View { seen, recent, .. } = view;
        let errors = match seen.failed {
            0 => self.paint(Colour::Green, "errors 0"),
            failed => self.paint(Colour::Red, &format!("errors {failed}")),
        };
        let (at, of) = view.scene.place();
        let mut table = String::new();
        let mut row = |name: &str, text: String| {
            let _ = writeln!(table, "  {name:<13} {text}");
        };
        row(
            "now",
            format!(
                "{}  {}",
                self.paint(Colour::Bold, view.scene.title()),
                self.dim(&format!("({at} of {of})"))
            ),
        );
        row(
            "requests",
            format!("{:<10} {:>5.0} /s     {errors}", grouped(seen.requests()), view.rate(recent.requests())),
        );
        row(
            "latency",
            format!("p50 {:>6.2} ms   p99 {:>6.2} ms", recent.latency_ms(0.5), recent.latency_ms(0.99)),
        );
        row("retries", grouped(view.retries));
        row("certificates", format!("renewed {} times", view.renewals));
        let _ = writeln!(table);
        let heading =
            format!("  {:<13} {:<8} {:>10} {:>8} {:>7}", "application", "version", "requests", "/s", "share");
        let _ = writeln!(table, "{}", self.dim(&heading));
        for (application, up) in &view.applications {
            let now = recent.by(application.name);
            let share = percent(now, recent.requests());
            let bar = self.paint(Colour::Green, &"▇".repeat((share / 5.0).round() as usize));
            let state = if *up { bar } else { self.paint(Colour::Red, "killed") };
            let (total, version) = (grouped(seen.by(application.name)), application.version);
            let _ = writeln!(
                table,
                "  {:<13} {version:<8} {total:>10} {:>8.0} {share:>6.0}%  {state}",
                application.name,
                view.rate(now)
            );
        }
        table
    }

    /// What happened, when all is over.
    pub(crate) fn summary(&self, view: &View, verdicts: &[Verdict]) -> String {
        let mut text = String::from("\n");
        let seen = &view.seen;
        let total = format!(
            "{} requests in {:.0} s",
            grouped(seen.requests() + seen.failed),
            view.elapsed.as_secs_f64()
        );
        let fate = match seen.failed {
            0 => self.paint(Colour::Green, "errors: 0"),
            failed => self.paint(Colour::Red, &format!("errors: {failed}")),
        };
        let _ = writeln!(text, "{}, {fate}", self.paint(Colour::Bold, &total));
        let (p50, p99) = (seen.latency_ms(0.5), seen.latency_ms(0.99));
        let longest = seen.latency.max() as f64 / 1e3;
        let _ = writeln!(text, "  latency       p50 {p50:.2} ms, p99 {p99:.2} ms, longest {longest:.2} ms");
        let _ = writeln!(text, "  retries       {}", grouped(view.retries));
        let _ = writeln!(text, "  certificates  renewed {} times", view.renewals);
        for Verdict { scene, holds, found } in verdicts {
            let word =
                if *holds { self.paint(Colour::Green, "ok    ") } else { self.paint(Colour::Red, "FAILED") };
            let _ = writeln!(text, "  {word}  {scene:<12}  {found}");
        }
        if let Some(why) = &seen.first_failure {
            let _ = writeln!(text, "  the first request that failed: {why}");
        }
        text
    }

    /// What need not be read.
    pub(crate) fn dim(&self, text: &str) -> String {
        self.paint(Colour::Dim, text)
    }

    fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Bold => 1,
            Colour::Dim => 2,
            Colour::Green => 32,
            Colour::Red => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Prints what stays.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// How things are, in one line.
fn line(view: &View) -> String {
    let View { seen, recent, .. } = view;
    let mut line = format!("{:>4.0} s  {:<12}", view.elapsed.as_secs_f64(), view.scene.name());
    let _ = write!(line, "  requests {:>8}", grouped(seen.requests()));
    for (application, _) in &view.applications {
        let _ = write!(
            line,
            "  {} {:>3.0}%",
            application.name,
            percent(recent.by(application.name), recent.requests())
        );
    }
    let _ = write!(line, "  p50 {:>5.2} ms  p99 {:>6.2} ms", recent.latency_ms(0.5), recent.latency_ms(0.99));
    let _ = writeln!(
        line,
        "  retries {:>3}  renewals {:>2}  errors {}",
        view.retries, view.renewals, seen.failed
    );
    line
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

/// A number with commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}

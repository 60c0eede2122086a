//! What a run prints at its end.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    path::PathBuf,
};

use super::{
    table::Tone,
    tables,
    words::{self, tally},
};
use crate::result::Run;

/// How words are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// In colour.
    Colour,
    /// As they are.
    Plain,
}

impl Look {
    /// In colour on a terminal, unless `NO_COLOR` or `TERM=dumb` says otherwise.
    pub fn of_stdout() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if io::stdout().is_terminal() && !dumb && !set("NO_COLOR") { Self::Colour } else { Self::Plain }
    }

    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Faint => "2",
            Tone::Plain => return text.into(),
        };
        if self == Self::Colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
    }

    pub(super) fn title(self, text: &str) -> String {
        if self == Self::Colour { format!("\x1b[1m{text}\x1b[0m") } else { text.into() }
    }
}

/// Prints `text`; whoever stops reading, as `head` does, has read enough.
///
/// # Errors
///
/// If standard output cannot be written otherwise.
pub fn say(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// The figures first, then each scenario, then what is missing, and where the files are.
pub fn text(run: &Run, files: &[PathBuf], look: Look) -> String {
    let mut text = String::new();
    let paint = |tone: Tone, words: &str| look.paint(tone, words);
    if !run.figures.is_empty() {
        let _ = writeln!(text, "{}\n", look.title("Figures"));
        text.push_str(&tables::figures(&run.figures).text("", paint));
        let _ = writeln!(text, "\n{}.", tally(run));
        if run.figures.iter().any(|figure| !figure.is_clear()) {
            text.push_str("With a question mark: the interval reaches over the target.\n");
        }
    }
    for scenario in &run.scenarios {
        let _ = write!(text, "\n{}", look.title(&format!("{}: {}", scenario.name, scenario.title)));
        let load = words::scenario(scenario).map(|load| format!("{}\n", paint(Tone::Faint, &load)));
        let _ = write!(text, "\n{}", load.unwrap_or_default());
        text.push_str(&tables::subjects(scenario).text("  ", paint));
    }
    let lists = [
        ("What does not count, or failed", tables::troubles(run)),
        ("Not measured", tables::missing(run)),
        ("Written", files.iter().map(|file| file.display().to_string()).collect()),
    ];
    for (title, lines) in lists.into_iter().filter(|(_, lines)| !lines.is_empty()) {
        let _ = writeln!(text, "\n{}", look.title(title));
        for line in lines {
            let _ = writeln!(text, "  {}", line.replace('\n', "\n  "));
        }
    }
    if run.interrupted {
        let _ =
            writeln!(text, "\n{}", paint(Tone::Bad, "Interrupted: this is what was measured until then."));
    }
    if !run.host.optimised {
        let words = "Built without optimisation, the figures mean little: use cargo run --release.";
        let _ = writeln!(text, "\n{}", paint(Tone::Bad, words));
    }
    text
}

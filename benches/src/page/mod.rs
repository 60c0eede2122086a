//! Results as people read them: on a terminal, in Markdown, and as a page with plots.
//!
//! A page says the same in Markdown and in HTML: it is put together once as a document, and then written as either.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;

use crate::result::Saved;

mod compare;
mod document;
mod html;
mod markdown;
mod plot;
mod svg;
mod table;
mod tables;
pub mod terminal;
mod words;

pub use compare::{CompareArgs, compare};
pub use terminal::{Look, say};

/// What `outrigger-bench report` takes.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// The folder of a run, or its results.json.
    #[arg(value_name = "DIR|FILE.json")]
    pub path: PathBuf,
    /// Where to write the pages [default: beside the results].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Prints the results as JSON instead of the table.
    #[arg(long)]
    pub json: bool,
}

/// Writes the pages of a run again, and prints its table.
///
/// # Errors
///
/// If the run cannot be read, or the pages cannot be written.
pub fn report(args: &ReportArgs) -> Result<()> {
    let saved = Saved::read(&args.path)?;
    let dir = args.out.clone().unwrap_or_else(|| saved.dir.clone());
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for subject in saved.run.scenarios.iter().flat_map(|scenario| &scenario.subjects) {
        if let Err(error) = saved.log(subject) {
            eprintln!("outrigger-bench: {error:#}: plots have only the percentiles of the JSON file");
        }
    }
    let pages = write(&saved, &dir)?;
    let text = if args.json {
        serde_json::to_string_pretty(&saved.run)? + "\n"
    } else {
        terminal::text(&saved.run, &pages, Look::of_stdout())
    };
    Ok(say(&text)?)
}

/// Writes `report.md` and `report.html` into the folder `dir`.
///
/// # Errors
///
/// If they cannot be written.
pub fn write(saved: &Saved, dir: &Path) -> Result<Vec<PathBuf>> {
    let blocks = document::document(saved);
    let page = |name: &str, text: String| -> Result<PathBuf> {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    Ok(vec![page("report.md", markdown::page(&blocks))?, page("report.html", html::page(&blocks))?])
}

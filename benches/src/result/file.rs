//! The run's folder: `results.json`, and the histograms beside it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{Log, Run, SCHEMA, SubjectResult};

/// What the JSON file is called in the run's folder.
pub const RESULTS: &str = "results.json";

/// A run that was written down.
#[derive(Debug)]
pub struct Saved {
    /// What was measured.
    pub run: Run,
    /// The JSON file.
    pub path: PathBuf,
    /// The folder that it lies in, with the histograms.
    pub dir: PathBuf,
}

impl Run {
    /// Writes `results.json` into the folder `dir`, in place of what an earlier call wrote.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, dir: &Path) -> Result<PathBuf> {
        let (path, new) = (dir.join(RESULTS), dir.join(".results.json.new"));
        let text = serde_json::to_string_pretty(self)? + "\n";
        // Whoever reads meanwhile, or after a crash, finds the whole file, this or the last.
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Saved {
    /// Reads a run from its folder, or from its JSON file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or was written by another version of this program: with what to do.
    pub fn read(path: &Path) -> Result<Self> {
        let path = if path.is_dir() { path.join(RESULTS) } else { path.to_owned() };
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let run = parse(&text).with_context(|| path.display().to_string())?;
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { run, path, dir })
    }

    /// The histograms of a subject of this run; `None` if it has none.
    ///
    /// # Errors
    ///
    /// If it has, but they cannot be read, as when the JSON file was moved away from them.
    pub fn log(&self, subject: &SubjectResult) -> Result<Option<Log>> {
        let Some(log) = &subject.log else { return Ok(None) };
        let log = Log::read(&self.dir.join(log))?;
        let wanted = subject.samples.iter().filter(|sample| sample.latency.is_some()).count();
        ensure!(
            log.intervals.len() == wanted,
            "the log of {} has {} intervals, but {wanted} were measured: it is not of this run",
            subject.name,
            log.intervals.len()
        );
        Ok(Some(log))
    }
}

fn parse(text: &[u8]) -> Result<Run> {
    #[derive(Deserialize)]
    struct Version {
        schema: u32,
    }
    let Ok(Version { schema }) = serde_json::from_slice(text) else {
        bail!("this is not what `outrigger-bench run` writes: it has no number in `schema`");
    };
    let found = format!("its schema is {schema}, this version of outrigger-bench reads {SCHEMA}");
    ensure!(schema >= SCHEMA, "{found}: measure again, or read it with the older version that wrote it");
    ensure!(schema <= SCHEMA, "{found}: read it with the newer version that wrote it");
    Ok(serde_json::from_slice(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_to_do_with_what_it_cannot_read() {
        let said = |text: &str| format!("{:#}", parse(text.as_bytes()).unwrap_err());
        assert!(said("[]").contains("not what `outrigger-bench run` writes"));
        assert!(said(r#"{"schema": 1, "sections": []}"#).contains("measure again"));
        assert!(said(r#"{"schema": 3}"#).contains("newer version"));
        assert!(said(r#"{"schema": 2}"#).contains("missing field `began`"));
    }

    #[test]
    fn says_which_file_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let error = format!("{:#}", Saved::read(dir.path()).unwrap_err());
        assert!(error.contains("results.json: No such file"), "{error}");
    }
}

//! What a run has found out so far. It is written down after each part, so that no crash takes more than one with it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Instant, SystemTime},
};

use anyhow::{Context, Result, ensure};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Contender, Name, Part};
use crate::{
    load::{Arrivals, Load, Measured},
    result::{Figure, Host, RESULTS, Run, SCHEMA, Sample, Scenario, Series, Skipped},
    subject::{Kind, Subject},
};

/// What a run has found out so far.
#[derive(Debug)]
pub struct Book {
    /// All but what was measured.
    head: Run,
    chapters: Vec<Chapter>,
    began: Instant,
    folder: PathBuf,
    failed: bool,
}

/// One part of it.
#[derive(Debug)]
pub struct Chapter {
    /// The scenario that it belongs to.
    pub scenario: Name,
    /// As [`Part::name`].
    pub name: String,
    title: String,
    load: Option<Load>,
    /// Its subjects.
    pub series: Vec<Series>,
    /// What is to be said of subjects beside their figures: name and words.
    remarks: Vec<(String, String)>,
    /// Whether the histograms have been written.
    written: bool,
}

impl Chapter {
    /// Whether each subject was loaded as fast as it answers.
    pub fn is_saturated(&self) -> bool {
        self.load.as_ref().is_some_and(|load| load.arrivals == Arrivals::Saturated)
    }

    /// What is to be said of a subject beside its figures.
    pub fn remark(&self, subject: &str) -> Option<&str> {
        self.remarks.iter().find(|(name, _)| name == subject).map(|(_, words)| words.as_str())
    }

    /// A subject by its name.
    pub fn subject(&self, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.result.name == name)
    }
}

impl Book {
    /// An empty one, for results in `folder`.
    pub fn new(command: Vec<String>, host: Host, folder: PathBuf) -> Self {
        let began = OffsetDateTime::from(SystemTime::now());
        let head = Run {
            schema: SCHEMA,
            // Years of four digits can be formatted.
            began: began.replace_millisecond(0).unwrap_or(began).format(&Rfc3339).unwrap_or_default(),
            seconds: 0.0,
            interrupted: false,
            command,
            host,
            scenarios: Vec::new(),
            figures: Vec::new(),
            skipped: Vec::new(),
        };
        Self { head, chapters: Vec::new(), began: Instant::now(), folder, failed: false }
    }

    /// Seconds since the run began.
    pub fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Where it runs.
    pub fn host(&self) -> &Host {
        &self.head.host
    }

    /// Where results are written.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A part begins; what follows belongs to it.
    pub fn begin(&mut self, part: &Part, load: Option<&Load>) {
        self.chapters.push(Chapter {
            scenario: part.scenario,
            name: part.name.clone(),
            title: part.title.clone(),
            load: load.cloned(),
            series: Vec::new(),
            remarks: Vec::new(),
            written: false,
        });
    }

    /// A subject of the part that has begun last.
    pub fn enter(&mut self, contender: &Contender, subject: Option<&Subject>) {
        self.enter_as(&contender.name, contender, subject);
    }

    /// The same, by another name.
    pub fn enter_as(&mut self, name: &str, contender: &Contender, subject: Option<&Subject>) {
        let setup = (contender.kind != Kind::Direct).then(|| contender.setup.clone());
        let mut series = Series::new(name, contender.kind.clone(), setup);
        if let Some(subject) = subject {
            series.result.version.clone_from(&subject.version);
            series.result.configuration.clone_from(&subject.configuration);
        }
        if let Some(chapter) = self.chapters.last_mut() {
            chapter.series.push(series);
        }
    }

    /// A sample of a subject that has been entered.
    pub fn push(&mut self, subject: &str, sample: Sample, measured: Option<&Measured>) {
        let Some(chapter) = self.chapters.last_mut() else { return };
        if let Some(series) = chapter.series.iter_mut().find(|series| series.result.name == subject) {
            series.push(sample, measured);
        }
    }

    /// Something is to be said of a subject beside its figures.
    pub fn remark(&mut self, subject: &str, words: String) {
        if let Some(chapter) = self.chapters.last_mut() {
            chapter.remarks.push((subject.to_owned(), words));
        }
    }

    /// How many system calls a subject takes for each request: found after its samples, and put down with the last of them.
    pub fn set_system_calls(&mut self, subject: &str, calls: f64) {
        let Some(chapter) = self.chapters.last_mut() else { return };
        let series = chapter.series.iter_mut().find(|series| series.result.name == subject);
        let spent =
            series.and_then(|series| series.result.samples.iter_mut().rev().find_map(|s| s.spent.as_mut()));
        if let Some(spent) = spent {
            spent.syscalls = Some(calls);
        }
    }

    /// Something is not measured. The same reason for several things is told once.
    pub fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let (what, why) = (what.into(), why.into());
        match self.head.skipped.iter_mut().find(|skipped| skipped.why == why) {
            Some(known) if known.what.split(", ").any(|known| known == what) => {}
            Some(known) => known.what = format!("{}, {what}", known.what),
            None => self.head.skipped.push(Skipped { what, why }),
        }
    }

    /// Something was to be measured, is not, and that is a failure: of a proxy that ended, say.
    pub fn fail(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.failed = true;
        self.skip(what, why);
    }

    /// Whether something failed, a request or more. At the end of a sweep that is what was looked for.
    pub fn has_failed(&self) -> bool {
        let chapters = self.chapters.iter().filter(|chapter| chapter.scenario != Name::Curve);
        let series = || chapters.clone().flat_map(|chapter| &chapter.series);
        let errors = series().flat_map(|series| &series.result.samples).any(|sample| sample.errors > 0);
        self.failed || errors || series().any(|series| !series.result.samples.iter().any(Sample::counts))
    }

    /// Why something is not measured, if that is known: of `subject` in `part`, or of all of it.
    pub fn why_not(&self, subject: &str, part: &str) -> Option<&str> {
        let named = [format!("{subject} in {part}"), part.to_owned()];
        let is =
            |skipped: &&Skipped| skipped.what.split(", ").any(|what| named.iter().any(|name| name == what));
        self.head.skipped.iter().find(is).map(|skipped| skipped.why.as_str())
    }

    /// The parts so far.
    pub fn chapters(&self) -> &[Chapter] {
        &self.chapters
    }

    /// It was ended before all was measured.
    pub fn interrupt(&mut self) {
        self.head.interrupted = true;
    }

    /// Puts down the figures, as they are now.
    pub fn set_figures(&mut self, figures: Vec<Figure>) {
        self.head.figures = figures;
    }

    /// As the JSON file has it.
    pub fn run(&self) -> Run {
        let scenario = |chapter: &Chapter| Scenario {
            name: chapter.name.clone(),
            title: chapter.title.clone(),
            load: chapter.load.clone(),
            subjects: chapter.series.iter().map(|series| series.result.clone()).collect(),
        };
        Run {
            seconds: self.now(),
            scenarios: self.chapters.iter().map(scenario).collect(),
            ..self.head.clone()
        }
    }

    /// Writes down how things stand, when a part is done or given up.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn save(&mut self) -> Result<()> {
        for chapter in self.chapters.iter_mut().filter(|chapter| !chapter.written) {
            for series in &mut chapter.series {
                series.save(&self.folder, &chapter.name)?;
                // Figures come from the histograms of few parts; those of the others are many megabytes by now.
                if !matches!(chapter.scenario, Name::Latency | Name::Config | Name::Custom) {
                    series.log.intervals = Vec::new();
                }
            }
            chapter.written = true;
        }
        self.run().write(&self.folder)?;
        Ok(())
    }
}

/// Makes the folder for results: `named`, or a new one among the temporary ones.
///
/// # Errors
///
/// If there are results in it, or it cannot be made.
pub fn folder(named: Option<&Path>) -> Result<PathBuf> {
    let Some(folder) = named else {
        let made = tempfile::Builder::new().prefix("outrigger-bench-results-").tempdir();
        return Ok(made.context("there is no temporary folder for results: name one with --out DIR")?.keep());
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    ensure!(
        !folder.join(RESULTS).exists(),
        "there are results in {} already: name another folder, or remove it",
        folder.display()
    );
    Ok(folder.to_owned())
}

//! Doing what a plan says.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{
    Contender, Part, Wanted, Work, book::Book, config, faults, memory, outcome, plan::Plan,
    progress::Progress, start, turns,
};
use crate::{
    callee::Callee,
    load::{Load, Target, Tls},
    subject::{Environment, Kind, Subject, available},
};

/// What every part is given.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// What subjects are given. Its application is the one that the user has named, if one was.
    pub environment: &'a Environment,
    /// What was asked for.
    pub wanted: &'a Wanted,
    /// Hosts and paths of requests, where the user has named them.
    pub host: Option<&'a str>,
    /// Likewise.
    pub path: Option<&'a str>,
    /// The size of the proxy's binary without symbols, in bytes, if it is known.
    pub binary: Option<u64>,
    /// For the subjects' files.
    pub dir: &'a Path,
}

/// Does all of it. What cannot be measured is put down as skipped, and the rest goes on. Dropping the future ends what it has
/// started, and leaves in the book what was measured until then.
///
/// # Errors
///
/// If results cannot be written.
pub async fn run(
    plan: &Plan,
    around: &Surroundings<'_>,
    book: &mut Book,
    progress: &mut Progress,
) -> Result<()> {
    for part in &plan.parts {
        progress.part(&part.name);
        let done = match &part.work {
            Work::Turns(work) => turns::run(part, work, around, book, progress).await,
            Work::Memory(work) => memory::run(part, work, around, book, progress).await,
            Work::Start { contenders, times } => {
                start::run(part, contenders, *times, around, book, progress).await
            }
            Work::Config(work) => config::run(part, work, around, book, progress).await,
            Work::Faults { time } => faults::run(part, *time, around, book, progress).await,
        };
        if let Err(error) = done {
            progress.note(format_args!("{}: {error:#}", part.name));
            book.fail(&part.name, format!("{error:#}"));
        }
        book.set_figures(outcome::figures(book, around.wanted, around.binary));
        book.save()?;
    }
    Ok(())
}

/// The application, and what subjects are given to reach it.
#[derive(Debug)]
pub(super) struct Application {
    /// With the application in it.
    pub(super) environment: Environment,
    _callee: Option<Callee>,
}

impl Surroundings<'_> {
    /// Starts the application that `load` needs, unless the user has named one.
    pub(super) async fn application(&self, load: &Load) -> Result<Application> {
        let mut environment = self.environment.clone();
        let mut callee = None;
        if !self.wanted.foreign {
            let started = Callee::start(load).await.context("the application cannot listen")?;
            environment.application = started.address();
            callee = Some(started);
        }
        Ok(Application { environment, _callee: callee })
    }

    /// Starts a subject before `application`.
    ///
    /// # Errors
    ///
    /// Why it cannot be measured, for people.
    pub(super) async fn start(
        &self,
        contender: &Contender,
        application: &Application,
    ) -> Result<Subject, String> {
        let Contender { kind, setup, at, .. } = contender;
        if let Some(address) = at {
            return Ok(Subject::running(*address));
        }
        available(kind, setup, &application.environment)?;
        let started = Subject::start(kind, setup, &application.environment, self.dir).await;
        started.map_err(|error| format!("{error:#}"))
    }

    /// Whom callers speak to.
    pub(super) fn target(&self, subject: &Subject, load: &Load) -> Target {
        let trust = if load.tls == Tls::Off { None } else { subject.trust.clone() };
        let mut target = Target::application(subject.address, trust);
        // Of an application that is not ours nothing is known but its status.
        target.exact = !self.wanted.foreign && self.wanted.through.is_none();
        if let Some(host) = self.host {
            host.clone_into(&mut target.host);
        }
        if let Some(path) = self.path {
            path.clone_into(&mut target.path);
        }
        target
    }
}

/// Puts down that a subject cannot be measured. Of other proxies that is so; of what is ours it is a failure.
pub(super) fn give_up(book: &mut Book, part: &Part, contender: &Contender, why: String) {
    let what = skipped(part, contender);
    match contender.kind {
        Kind::Peer(_) => book.skip(what, why),
        _ => book.fail(what, why),
    }
}

/// What is said of a subject that is not measured.
pub(super) fn skipped(part: &Part, contender: &Contender) -> String {
    match &contender.kind {
        Kind::Peer(name) => format!("{name} in {}", part.name),
        _ => format!("{} in {}", contender.name, part.name),
    }
}

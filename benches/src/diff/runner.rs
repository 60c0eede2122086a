//! Every exchange over every path, in every version that it can be said in.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use anyhow::{Context, Result};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    Path, Settings,
    application::Session,
    caller::{self, Transcript},
    compare::{Ends, judge},
    exchange::{Exchange, Expect, Speaks},
    proxies::Started,
    report::{Mode, Outcome, Report},
};

/// How many exchanges are under way at once.
const AT_ONCE: usize = 24;

/// What exchanges are without a proxy, by their names.
type References = HashMap<String, Arc<Transcript>>;

/// Runs what the settings ask for.
///
/// # Errors
///
/// If the system refuses something, or a proxy does not start.
pub(crate) async fn run(settings: &Settings, corpus: Vec<Exchange>) -> Result<Report> {
    let corpus: Vec<Arc<Exchange>> = corpus.into_iter().map(Arc::new).collect();
    let references = references(&corpus).await?;
    let mut report = Report { exchanges: corpus.len(), ..Report::default() };
    for path in &settings.paths {
        for application in &settings.applications {
            let callers: Vec<Speaks> = settings
                .callers
                .iter()
                .copied()
                // Without a proxy, there is nobody to translate.
                .filter(|caller| *path != Path::Direct || caller == application)
                .collect();
            if callers.is_empty() {
                continue;
            }
            let started = Started::start(*path, *application).await;
            let started = Arc::new(started.with_context(|| format!("the path {path} cannot be used"))?);
            for caller in callers {
                let mode = Mode { path: path.name(), caller, application: *application };
                let outcomes = over(&started, *path, mode, &corpus, &references).await;
                (settings.progress)(&mode, &outcomes);
                report.outcomes.extend(outcomes);
            }
            if let Some(started) = Arc::into_inner(started) {
                started.stop().await;
            }
        }
    }
    Ok(report)
}

/// What each exchange is without a proxy.
async fn references(corpus: &[Arc<Exchange>]) -> Result<References> {
    let mut found = HashMap::new();
    for native in [Speaks::Http1, Speaks::Http2] {
        let started = Arc::new(Started::start(Path::Direct, native).await?);
        let mine = corpus.iter().filter(|exchange| exchange.native == native && is_said_directly(exchange));
        let mut tasks = Tasks::default();
        for exchange in mine {
            tasks.start(exchange, native, &started);
        }
        let played = tasks.all().await;
        found.extend(
            played.into_iter().map(|(exchange, transcript)| (exchange.name.clone(), Arc::new(transcript))),
        );
    }
    Ok(found)
}

/// Whether an exchange means anything without a proxy.
fn is_said_directly(exchange: &Exchange) -> bool {
    !matches!(exchange.expect, Expect::Refused { .. } | Expect::Broken { .. })
}

/// Every exchange in one mode.
async fn over(
    started: &Arc<Started>,
    path: Path,
    mode: Mode,
    corpus: &[Arc<Exchange>],
    references: &References,
) -> Vec<Outcome> {
    let mine: Vec<_> = corpus
        .iter()
        .filter(|exchange| {
            exchange.has_caller(mode.caller)
                && exchange.has_application(mode.application)
                && (path != Path::Direct || (is_said_directly(exchange) && !exchange.answers_raw))
        })
        .collect();
    let mut tasks = Tasks::default();
    for exchange in mine.iter().filter(|exchange| !exchange.alone) {
        tasks.start(exchange, mode.caller, started);
    }
    let mut played = tasks.all().await;
    for exchange in mine.iter().filter(|exchange| exchange.alone) {
        let mut tasks = Tasks::default();
        tasks.start(exchange, mode.caller, started);
        played.extend(tasks.all().await);
    }
    let ends = Ends::new(path, mode.caller, mode.application);
    let mut outcomes = BTreeMap::new();
    for (exchange, seen) in played {
        let reference = references.get(&exchange.name);
        let verdict = judge(&exchange, reference.map_or(&EMPTY, |reference| reference), &seen, ends);
        let transcripts = (reference.cloned(), seen);
        outcomes.insert(exchange.name.clone(), Outcome::new(&exchange, mode, verdict, transcripts));
    }
    for stray in started.application.strays() {
        outcomes.insert(format!("~{stray}"), Outcome::stray(mode, &stray));
    }
    outcomes.into_values().collect()
}

static EMPTY: Transcript =
    Transcript { caller: Vec::new(), ended: false, application: Vec::new(), stuck: Vec::new() };

type Played = (Arc<Exchange>, Transcript);

/// Exchanges under way.
struct Tasks {
    running: JoinSet<(Arc<Exchange>, Transcript, Arc<Session>)>,
    places: Arc<Semaphore>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { running: JoinSet::new(), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Tasks {
    fn start(&mut self, exchange: &Arc<Exchange>, caller: Speaks, started: &Arc<Started>) {
        let (exchange, started, places) = (exchange.clone(), started.clone(), self.places.clone());
        self.running.spawn(async move {
            let _place = places.acquire_owned().await;
            let (transcript, session) =
                caller::exchange(&exchange, caller, started.address, &started.application).await;
            (exchange, transcript, session)
        });
    }

    /// Waits for all.
    async fn all(mut self) -> Vec<Played> {
        let mut played = Vec::new();
        while let Some(done) = self.running.join_next().await {
            played.extend(done);
        }
        // Only now, so that what comes late is seen.
        let mut all = Vec::with_capacity(played.len());
        for (exchange, mut transcript, session) in played {
            transcript.gather(&session).await;
            all.push((exchange, transcript));
        }
        all
    }
}

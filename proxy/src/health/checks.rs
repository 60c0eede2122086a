//! The active checks: a task for each endpoint that is asked, kept in step with the live table.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_balance::{Answers, Load, Outliers};
use outrigger_certs::Identity;
use outrigger_config::backend::{BackendProtocol, HealthCheck};
use outrigger_http::{Endpoint, Reason};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tracing::debug;

use super::Findings;
use super::ask::{Found, Question};
use crate::state::{Hosts, Live, LiveBackend};

/// How many endpoints are asked at a time.
const AT_A_TIME: usize = 64;

/// The endpoints that are asked.
pub(super) struct Checks {
    /// By the endpoint's id.
    running: HashMap<u64, Running>,
    means: Rc<Means>,
}

/// What all checks share.
struct Means {
    identity: RefCell<Option<Arc<Identity>>>,
    places: Semaphore,
    random: RefCell<fastrand::Rng>,
    findings: Findings,
}

struct Running {
    check: HealthCheck,
    http2: bool,
    load: Arc<Load>,
    task: AbortHandle,
    told: Rc<RefCell<Told>>,
}

/// Who is told of what is found, by the table that is live.
struct Told {
    backend: Arc<str>,
    outliers: Option<Arc<Outliers>>,
    hosts: Option<Hosts>,
}

impl Told {
    fn of(backend: &LiveBackend) -> Self {
        Self {
            backend: backend.backend.name.clone(),
            outliers: backend.backend.outliers.clone(),
            hosts: backend.hosts.clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checks {
    pub(super) fn new(findings: Findings) -> Self {
        let means = Means {
            identity: RefCell::default(),
            places: Semaphore::new(AT_A_TIME),
            random: RefCell::new(fastrand::Rng::new()),
            findings,
        };
        Self { running: HashMap::new(), means: Rc::new(means) }
    }

    /// Asks the endpoints of this table. Those that were asked in the same way before go on.
    pub(super) fn follow(&mut self, live: &Live) {
        self.means.identity.borrow_mut().clone_from(&live.node.identity);
        let mut before = std::mem::take(&mut self.running);
        for backend in &live.backends {
            let http2 = backend.protocol == Some(BackendProtocol::H2c);
            for endpoint in &backend.backend.endpoints {
                let Some(check) = backend.check() else { continue };
                let Some(question) = Question::new(endpoint, check, http2) else { continue };
                let kept = before.remove(&endpoint.id());
                let kept = kept.filter(|running| running.check == *check && running.http2 == http2);
                let running = kept.unwrap_or_else(|| self.begin(endpoint, question, backend));
                *running.told.borrow_mut() = Told::of(backend);
                self.running.insert(endpoint.id(), running);
            }
        }
        // Of whom nobody asks any more nobody says that it is ill.
        for (id, running) in before {
            if !self.running.contains_key(&id) {
                running.load.checked(true, Instant::now());
            }
        }
        let mut kept = self.means.findings.kept();
        kept.last.retain(|id, _| self.running.contains_key(id));
        let asked: Vec<_> = live.backends.iter().filter(|backend| backend.check().is_some()).collect();
        kept.counts.retain(|name, _| asked.iter().any(|backend| backend.backend.name == *name));
    }

    fn begin(&self, endpoint: &Endpoint, question: Question, backend: &LiveBackend) -> Running {
        let (id, load) = (endpoint.id(), endpoint.load.clone());
        let told = Rc::new(RefCell::new(Told::of(backend)));
        let (check, http2) = (question.check.clone(), question.http2);
        let checker =
            Checker { means: self.means.clone(), id, question, load: load.clone(), told: told.clone() };
        let task = tokio::task::spawn_local(checker.run()).abort_handle();
        Running { check, http2, load, task, told }
    }
}

/// Asks one endpoint, again and again.
struct Checker {
    means: Rc<Means>,
    /// The endpoint's.
    id: u64,
    question: Question,
    load: Arc<Load>,
    told: Rc<RefCell<Told>>,
}

impl Checker {
    async fn run(self) {
        let mut answers = Answers::none();
        // The first check is at once; the second at any time within the interval, so that checks that began together
        // do not stay together.
        let mut part = 0.0;
        loop {
            let identity = self.means.identity.borrow().clone();
            // Without an identity of our own nobody in the mesh would answer.
            if identity.is_some() || !self.question.is_of_mesh() {
                let _place = self.means.places.acquire().await;
                let found = self.question.ask(identity).await;
                self.heard(&mut answers, found);
            }
            let wait = self.wait(part);
            part = 1.0 - f64::from(self.question.check.jitter.min(100)) / 100.0;
            tokio::time::sleep(wait).await;
        }
    }

    /// The interval, of which at least this part is waited, and the rest is left to chance.
    fn wait(&self, part: f64) -> Duration {
        let chance = self.means.random.borrow_mut().f64();
        self.question.check.interval.get().mul_f64(part + (1.0 - part) * chance)
    }

    fn heard(&self, answers: &mut Answers, found: Found) {
        let Question { check, .. } = &self.question;
        let (now, told) = (Instant::now(), self.told.borrow());
        // First, so that who sees what comes of it can see why.
        self.keep(&told.backend, &found);
        let decided = answers.heard(found == Found::Well, check.healthy_threshold, check.unhealthy_threshold);
        if let Some(well) = decided {
            self.load.checked(well, now);
        }
        match &found {
            Found::Well if self.question.is_of_endpoint() => {
                self.load.succeeded();
                if let Some(outliers) = &told.outliers {
                    outliers.reached(&self.load, now);
                }
            }
            // Whoever else is there need not be asked three times.
            Found::Ill { unconnected: Some(Reason::TlsCertificateError), .. }
                if self.question.is_of_mesh() =>
            {
                self.load.met_stranger(now);
            }
            _ => {}
        }
        if let (Found::Late | Found::Ill { unconnected: Some(_), .. }, Some(hosts)) = (&found, &told.hosts) {
            hosts.doubt();
        }
        debug!(backend = &*told.backend, endpoint = %self.question.address(), ?found, "health check");
    }

    /// Keeps what was found for those who watch over the proxy.
    fn keep(&self, backend: &Arc<str>, found: &Found) {
        let mut kept = self.means.findings.kept();
        if let Some(count) = kept.counts.entry(backend.clone()).or_default().get_mut(found.place()) {
            *count += 1;
        }
        kept.last.insert(self.id, found.clone());
    }
}

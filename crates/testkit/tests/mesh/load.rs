//! Traffic that goes on while something is changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::Method;
use outrigger_testkit::mesh::{Caller, Sidecar};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How many callers there are at once, each with a connection that it keeps.
const CALLERS: usize = 8;

/// Requests under way, one after the other by each of several callers.
pub struct Load {
    callers: JoinSet<Tally>,
    answered: watch::Receiver<usize>,
    stop: Arc<AtomicBool>,
}

/// What came of them.
#[derive(Debug, Default)]
pub struct Tally {
    pub requests: usize,
    /// How many each version of the application answered.
    pub by_app: BTreeMap<String, usize>,
    /// What was not 200.
    pub failures: Vec<String>,
    /// How many connections the callers made.
    pub connections: u32,
}

impl Load {
    /// Begins to send requests for `path` of the host `api` through a sidecar.
    pub fn start(web: &Sidecar, method: Method, path: &'static str) -> Self {
        let (progress, answered) = watch::channel(0);
        let (progress, count) = (Arc::new(progress), Arc::new(AtomicUsize::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (progress, count, stop) = (progress.clone(), count.clone(), stop.clone());
            callers.spawn(call(web.caller(), method.clone(), path, move || {
                progress.send_replace(count.fetch_add(1, Ordering::Relaxed) + 1);
                !stop.load(Ordering::Relaxed)
            }));
        }
        Self { callers, answered, stop }
    }

    /// Waits until so many requests were answered.
    pub async fn reached(&mut self, requests: usize) {
        self.answered.wait_for(|answered| *answered >= requests).await.unwrap();
    }

    /// Waits until so many more requests were answered.
    pub async fn more(&mut self, requests: usize) {
        let now = *self.answered.borrow();
        self.reached(now + requests).await;
    }

    /// Ends it.
    pub async fn end(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        while let Some(tally) = self.callers.join_next().await {
            let tally = tally.unwrap();
            all.requests += tally.requests;
            all.connections += tally.connections;
            all.failures.extend(tally.failures);
            for (app, requests) in tally.by_app {
                *all.by_app.entry(app).or_default() += requests;
            }
        }
        all
    }
}

impl Tally {
    /// That at least `requests` were made, and none failed.
    pub fn is_whole(&self, requests: usize) {
        println!("{} requests: {:?}, {} connections", self.requests, self.by_app, self.connections);
        let some: Vec<_> = self.failures.iter().take(8).collect();
        assert!(self.failures.is_empty(), "{} of {} failed: {some:#?}", self.failures.len(), self.requests);
        assert!(self.requests >= requests, "{} requests", self.requests);
    }
}

async fn call(
    mut caller: Caller,
    method: Method,
    path: &'static str,
    mut go_on: impl FnMut() -> bool,
) -> Tally {
    let body = if method == Method::POST { "some words" } else { "" };
    let mut tally = Tally::default();
    loop {
        tally.requests += 1;
        match caller.call(method.clone(), "api", path, body.into()).await {
            Ok(answer) if answer.status == 200 => {
                *tally.by_app.entry(answer.app().to_owned()).or_default() += 1;
            }
            Ok(answer) => tally.failures.push(format!("{}: {}", answer.status, answer.proxy_status())),
            Err(error) => tally.failures.push(error.to_string()),
        }
        if !go_on() {
            tally.connections = caller.connections();
            return tally;
        }
    }
}

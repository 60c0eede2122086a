//! What is measured while the story is told: the last second, and the renewals of certificates.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::screen::{Screen, View};
use crate::story::{Story, Verdict};
use crate::town::Town;
use crate::traffic::{Seen, Traffic};

/// Over how long rates and latencies are shown.
const WINDOW: Duration = Duration::from_secs(1);

/// Looks at the mesh from time to time.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    town: &'a Town,
    traffic: &'a Traffic,
    story: &'a Story<'a>,
    begun: Instant,
    /// What had been seen at each look within the window.
    looks: VecDeque<(Instant, Seen)>,
    expiries: Vec<u64>,
    renewals: Vec<u64>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(town: &'a Town, traffic: &'a Traffic, story: &'a Story<'a>) -> Self {
        let (begun, expiries) = (Instant::now(), town.expiries());
        let renewals = vec![0; expiries.len()];
        let looks = VecDeque::from([(begun, traffic.seen())]);
        Self { town, traffic, story, begun, looks, expiries, renewals }
    }

    /// Shows how things are, until the output cannot be written.
    pub(crate) async fn show(&mut self, screen: &mut Screen) -> io::Result<()> {
        loop {
            tokio::time::sleep(screen.pace()).await;
            screen.show(&self.look())?;
        }
    }

    /// How things are now.
    pub(crate) fn look(&mut self) -> View {
        let (now, seen) = (Instant::now(), self.traffic.seen());
        while self.looks.len() > 1 && self.looks.get(1).is_some_and(|(when, _)| now - *when >= WINDOW) {
            self.looks.pop_front();
        }
        let expiries = self.town.expiries();
        for ((renewals, before), after) in self.renewals.iter_mut().zip(&self.expiries).zip(&expiries) {
            *renewals += u64::from(before != after);
        }
        self.expiries = expiries;
        let earlier = self.looks.front();
        let recent = earlier.map_or_else(|| seen.clone(), |(_, earlier)| seen.since(earlier));
        let window = earlier.map_or(WINDOW, |(when, _)| now - *when);
        self.looks.push_back((now, seen.clone()));
        View {
            elapsed: self.begun.elapsed(),
            scene: self.story.scene(),
            seen,
            recent,
            window,
            applications: self.town.applications(),
            retries: self.town.retries(),
            renewals: self.renewals.iter().sum(),
        }
    }

    /// Whether every sidecar has had a new certificate.
    pub(crate) fn renewed(&self) -> Verdict {
        let (nodes, least) = (self.renewals.len(), self.renewals.iter().min().copied().unwrap_or_default());
        let found = format!("each of {nodes} sidecars renewed its own {least} times or more");
        Verdict { scene: "certificates", holds: least > 0, found }
    }
}

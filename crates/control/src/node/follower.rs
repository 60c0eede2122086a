//! Keeps a stream to the control API open, and applies what it brings.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use outrigger_certs::{Identity, control};
use outrigger_config::Name;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};
use tracing::info;

use super::backoff::Backoff;
use super::held::{Held, Incoming};
use super::state::Saved;
use super::wire::{Origin, WireError};
use super::{Pulse, Sink};
use crate::message::{FromControl, FromNode, Refusal};

/// The longest time between two tries: short, so that a control API that is back is caught up with soon.
const CAP: Duration = Duration::from_secs(2);

pub(super) struct Follower<S> {
    pub(super) origin: Arc<Origin>,
    pub(super) node: Name,
    pub(super) version: String,
    pub(super) pulse: Pulse,
    pub(super) sink: S,
    /// Told when what is held may be out of date.
    pub(super) doubts: Arc<Notify>,
    pub(super) held: Held,
    pub(super) identities: watch::Receiver<Option<Arc<Identity>>>,
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) save: watch::Sender<Option<Arc<Saved>>>,
    /// What the sink refused when it last applied; `None` before it first has.
    pub(super) outcome: Option<Vec<Refusal>>,
    /// Since when the stream is up.
    pub(super) up: Option<Instant>,
}

/// Waits until somebody doubts what is held, but at least for the pause: however many do, a control API that is only
/// just back is not asked by all its nodes at once.
async fn doubted(doubts: Arc<Notify>, pause: Duration) {
    sleep(pause).await;
    doubts.notified().await;
}

impl<S: Sink> Follower<S> {
    /// Applies what is held from before, then follows, stream after stream.
    pub(super) async fn run(mut self) -> Infallible {
        if self.held.store().is_some() {
            self.apply().await;
        }
        let mut backoff = Backoff::new(CAP);
        loop {
            let identity = match &self.identity {
                Some(identity) => identity.clone(),
                None => self.next_identity().await,
            };
            let Err(error) = self.follow(&identity).await;
            if let Some(since) = self.up.take() {
                self.sink.connected(false);
                // Two nodes of one name throw each other out: they do so ever more slowly, and say it once.
                if since.elapsed() >= CAP {
                    backoff.reset();
                }
            }
            let delay = backoff.after("no stream from the control API", error);
            let doubted = doubted(self.doubts.clone(), delay / 4);
            tokio::select! {
                () = sleep(delay) => {}
                () = doubted => {}
                _ = self.next_identity() => {}
            }
        }
    }

    /// Waits for the certifier, and hands the new identity on. Dropping the future loses nothing.
    async fn next_identity(&mut self) -> Arc<Identity> {
        loop {
            if self.identities.changed().await.is_err() {
                // The certifier is gone, and this future goes with it.
                pending::<()>().await;
            }
            let identity = self.identities.borrow_and_update().clone();
            if let Some(identity) = identity {
                self.identity = Some(identity.clone());
                self.sink.identity(identity.clone());
                self.persist();
                return identity;
            }
        }
    }

    /// One stream, until it fails.
    async fn follow(&mut self, identity: &Identity) -> Result<Infallible, WireError> {
        let hello = FromNode::Hello {
            node: self.node.clone(),
            version: self.version.clone(),
            store: self.held.store().map(str::to_owned),
            revision: self.held.revision(),
            have: self.held.have(),
        };
        let mut stream = self.origin.stream(control::client_config(identity), &hello).await?;
        let mut incoming = Incoming::default();
        let Pulse { heartbeat, dead_after } = self.pulse;
        let mut heard = Instant::now();
        let mut beat = interval_at(heard + heartbeat, heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // In this order: what has come is read before the silence is judged.
            let message = tokio::select! {
                biased;
                message = stream.inbox.message() => message?,
                _ = beat.tick() => {
                    stream.outbox.say(&FromNode::Heartbeat {}).await?;
                    continue;
                }
                _ = self.next_identity() => continue,
                () = sleep_until(heard + dead_after) => return Err(WireError::Silent(dead_after)),
            };
            match message {
                FromControl::Heartbeat {} => {}
                FromControl::Welcome { store, revision } => {
                    info!("following the control API {}, which is at revision {revision}", store);
                    incoming.welcome(store);
                    self.up = Some(Instant::now());
                    self.sink.connected(true);
                }
                change @ (FromControl::Put { .. } | FromControl::Delete { .. }) => incoming.change(change),
                FromControl::Commit { revision } => {
                    let refused = self.commit(revision, &mut incoming).await;
                    stream.outbox.say(&FromNode::Applied { revision, refused }).await?;
                    self.persist();
                }
            }
            heard = Instant::now();
        }
    }

    /// Makes a commit live. Answers everything that is refused now.
    async fn commit(&mut self, revision: u64, incoming: &mut Incoming) -> Vec<Refusal> {
        let changed = self.held.commit(revision, incoming);
        if changed || self.outcome.is_none() {
            self.apply().await;
        }
        let by_sink = self.outcome.iter().flatten();
        self.held.refused().chain(by_sink).cloned().collect()
    }

    async fn apply(&mut self) {
        let (revision, resources) = (self.held.revision(), self.held.resources());
        let rejected = self.held.refused().len();
        self.outcome = Some(self.sink.apply(revision, resources, rejected).await);
    }

    /// Hands what is held to the saver, which writes the newest and passes over what came between.
    fn persist(&self) {
        self.save.send_replace(Some(Arc::new(Saved {
            identity: self.identity.clone(),
            store: self.held.store().map(str::to_owned),
            revision: self.held.revision(),
            objects: self.held.objects(),
        })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_doubt_shortens_the_wait_but_to_the_pause() {
        let (doubts, pause) = (Arc::<Notify>::default(), Duration::from_millis(200));
        let begun = Instant::now();
        for _ in 0..1_000 {
            doubts.notify_one();
        }
        doubted(doubts.clone(), pause).await;
        assert_eq!(begun.elapsed(), pause);
        let waited = tokio::time::timeout(Duration::from_hours(1), doubted(doubts, pause));
        assert!(waited.await.is_err(), "what was doubted before was asked for");
    }
}

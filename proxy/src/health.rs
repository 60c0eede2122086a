//! Whether endpoints are well, as far as that is not seen by requests themselves: on the control thread their answers
//! are compared now and then, those whose backend wants it are asked, and what changes is said.
//!
//! What is found is kept in each endpoint's load, where the workers look.

mod ask;
mod checks;
mod show;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use outrigger_balance::State;
use outrigger_certs::Identity;
use tokio::sync::Notify;
use tracing::{info, warn};

use self::ask::Found;
use self::checks::Checks;
use crate::director::{Published, current};
use crate::seldom::Seldom;
use crate::state::Live;

pub(crate) use self::show::{Collect, endpoints};

/// How often the endpoints are looked at.
const TICK: Duration = Duration::from_millis(250);

/// What the checks found, for those who watch over the proxy.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// The last answer of each endpoint that is asked, by the endpoint's id.
    last: HashMap<u64, Found>,
    /// How many checks of a backend had which result, in the order of [`Found::NAMES`].
    counts: HashMap<Arc<str>, [u64; 3]>,
}

impl Findings {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks after the endpoints of whatever table is live, for as long as it is polled. `changed` tells of a new one.
pub(crate) async fn tend(published: Published, changed: Arc<Notify>, findings: Findings) {
    let mut checks = Checks::new(findings.clone());
    let mut seen = Seen::default();
    let (mut generation, mut identity) = (None, None);
    loop {
        let live = current(&published);
        if let Some(live) = live {
            let now = Instant::now();
            if generation.replace(live.generation) != Some(live.generation) {
                let known = identity.replace(live.node.identity.clone());
                if known.is_some_and(|known| !same(known.as_ref(), live.node.identity.as_ref())) {
                    introduce(&live, now);
                }
                checks.follow(&live);
            }
            for outliers in live.backends.iter().filter_map(|backend| backend.backend.outliers.as_ref()) {
                outliers.tend(now);
            }
            seen.look(&live, &findings, now);
        }
        let _ = tokio::time::timeout(TICK, changed.notified()).await;
    }
}

fn same(a: Option<&Arc<Identity>>, b: Option<&Arc<Identity>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

/// This node is now somebody else to the others: whom it could not agree with before on who is who is tried again.
fn introduce(live: &Live, now: Instant) {
    for load in live.backends.iter().flat_map(|backend| &backend.backend.loads) {
        if load.standing(now).state == State::Stranger {
            load.succeeded();
        }
    }
}

/// How many changes are said at once, and how many looks later one more is: where a whole network is cut off, or many
/// endpoints come and go, nobody reads more, and the control thread has other things to do.
const SAID_AT_ONCE: u32 = 32;

/// Leaves out what would be too much to say.
#[derive(Debug)]
struct Room {
    left: u32,
    unsaid: u64,
    notice: Seldom,
}

impl Default for Room {
    fn default() -> Self {
        Self { left: SAID_AT_ONCE, unsaid: 0, notice: Seldom::default() }
    }
}

impl Room {
    /// Whether one more change is said.
    fn take(&mut self) -> bool {
        let is_said = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.unsaid += u64::from(!is_said);
        is_said
    }

    /// Time has passed. How many changes were not said, where it is time to say that.
    fn tick(&mut self) -> Option<u64> {
        self.left = (self.left + 1).min(SAID_AT_ONCE);
        (self.unsaid > 0 && self.notice.is_due()).then(|| std::mem::take(&mut self.unsaid))
    }
}

/// The endpoints that are not well, as was said last.
#[derive(Debug, Default)]
struct Seen {
    unwell: HashMap<u64, State>,
    room: Room,
}

impl Seen {
    /// Says what has changed since it last looked.
    fn look(&mut self, live: &Live, findings: &Findings, now: Instant) {
        if let Some(unsaid) = self.room.tick() {
            warn!(
                "{unsaid} more changes of how endpoints stand were not said one by one; the admin interface shows them at /endpoints"
            );
        }
        let mut before = std::mem::take(&mut self.unwell);
        for backend in live.backends.iter().map(|backend| &backend.backend) {
            for endpoint in &backend.endpoints {
                let (id, standing) = (endpoint.id(), endpoint.load.standing(now));
                let was = before.remove(&id);
                let (name, address, state) = (&*backend.name, endpoint.address, standing.state.as_str());
                match (standing.state, was) {
                    (State::Well, None) => continue,
                    (State::Well, Some(_)) => {
                        if self.room.take() {
                            info!(backend = name, endpoint = %address, state, "the endpoint is well again");
                        }
                        continue;
                    }
                    // That it may be tried is nothing new.
                    (State::Trial, _) => {}
                    (state, was) if was == Some(state) => {}
                    (now, _) if self.room.take() => {
                        let kept = findings.kept();
                        let found = kept.last.get(&id).filter(|_| now == State::Ill).map(Found::words);
                        let (why, colon) = (now.why(), if found.is_some() { ": " } else { "" });
                        let found = found.unwrap_or_default();
                        warn!(backend = name, endpoint = %address, state, "requests are kept away from the endpoint: {why}{colon}{found}");
                    }
                    _ => {}
                }
                let shown = if standing.state == State::Trial { was } else { None };
                self.unwell.insert(id, shown.unwrap_or(standing.state));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_all_the_time_is_said_now_and_then() {
        let mut room = Room::default();
        let said = (0..10_000).filter(|_| room.take()).count();
        assert_eq!(said, SAID_AT_ONCE as usize);
        assert_eq!(room.tick(), Some(10_000 - u64::from(SAID_AT_ONCE)));
        // From then on one for each look, and how many were left out not with each.
        let said: usize = (0..100)
            .map(|_| (0..10).filter(|_| room.take()).count() + usize::from(room.tick().is_some()))
            .sum();
        assert_eq!(said, 100);
        (0..SAID_AT_ONCE).for_each(|_| assert_eq!(room.tick(), None));
        assert!(room.take());
    }
}

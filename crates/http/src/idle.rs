//! How long a connection to an endpoint may rest before its peer closes it, as the peer says or shows. A request that is
//! written just as the connection is closed is lost, so it does not come to that: a connection that has rested nearly as
//! long is not used again.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use http::{HeaderMap, HeaderName};

/// What closes sooner than this does not do so because nobody uses it.
const SOONEST: Duration = Duration::from_millis(20);
/// How much longer a connection must have rested, unclosed, than any is known to, for that to be believed; and by how much
/// the known time then grows at most.
const GROWTH: f32 = 1.25;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The time after which an endpoint closes connections that rest. Shared by all workers.
#[derive(Debug, Default)]
pub struct IdleTime {
    /// What it says itself, in milliseconds; 0: nothing.
    told: AtomicU32,
    /// The least after which it was seen to close one, in milliseconds; 0: none was.
    seen: AtomicU32,
    /// Whether it was seen to close one that had hardly rested.
    abrupt: AtomicBool,
}

impl IdleTime {
    /// The time after which it closes connections, as far as that is known.
    pub fn known(&self) -> Option<Duration> {
        let (told, seen) = (self.told.load(Relaxed), self.seen.load(Relaxed));
        let least = match (told, seen) {
            (0, 0) => return None,
            (0, only) | (only, 0) => only,
            (told, seen) => told.min(seen),
        };
        Some(Duration::from_millis(least.into()))
    }

    /// How long a connection may have rested to be used again, where anything is known: 0.8 of that time.
    pub(crate) fn safe(&self) -> Option<Duration> {
        self.known().map(|time| time * 4 / 5)
    }

    /// Whether connections close here that were used just now.
    pub(crate) fn is_abrupt(&self) -> bool {
        self.abrupt.load(Relaxed)
    }

    /// Takes what the first response on a connection says of it (`Keep-Alive: timeout=5`).
    pub(crate) fn hear(&self, headers: &HeaderMap) {
        let told = headers.get(KEEP_ALIVE).and_then(|value| timeout(value.to_str().ok()?));
        let told = told.map_or(0, millis);
        if self.told.load(Relaxed) != told {
            self.told.store(told, Relaxed);
        }
    }

    /// Its peer closed a connection that had rested so long.
    pub(crate) fn closed_after(&self, rested: Duration) {
        if rested < SOONEST {
            self.abrupt.store(true, Relaxed);
            return;
        }
        let rested = millis(rested);
        let _ = self.seen.fetch_update(Relaxed, Relaxed, |seen| {
            let known = if seen == 0 { rested } else { seen.min(rested) };
            (known != seen).then_some(known)
        });
    }

    /// A connection has rested so long, and is still open.
    pub(crate) fn survived(&self, rested: Duration) {
        let rested = millis(rested);
        let _ = self.seen.fetch_update(Relaxed, Relaxed, |seen| {
            let grown = ((seen as f32 * GROWTH).ceil() as u32).max(seen.saturating_add(1));
            (seen != 0 && rested >= grown).then_some(grown)
        });
    }

    /// Forgets what was seen: the endpoint was not idle but down, and closed its connections for that.
    pub(crate) fn forget(&self) {
        if self.seen.load(Relaxed) != 0 {
            self.seen.store(0, Relaxed);
        }
        if self.is_abrupt() {
            self.abrupt.store(false, Relaxed);
        }
    }
}

/// The parameter `timeout`, in whole seconds (RFC 2068, section 19.7.1.1; what servers send today).
fn timeout(value: &str) -> Option<Duration> {
    let parameters = value.split(',').filter_map(|parameter| parameter.split_once('='));
    let mut timeouts = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("timeout"));
    let seconds = timeouts.next()?.1.trim().trim_matches('"').parse::<u32>().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

/// In milliseconds: at least one, for 0 stands for nothing.
fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn told(value: &'static str) -> Option<Duration> {
        let idle = IdleTime::default();
        idle.hear(&HeaderMap::from_iter([(KEEP_ALIVE, http::HeaderValue::from_static(value))]));
        idle.known()
    }

    #[test]
    fn a_server_says_how_long_it_waits() {
        assert_eq!(told("timeout=5"), Some(ms(5_000)));
        assert_eq!(told("max=100, Timeout = \"15\""), Some(ms(15_000)));
        assert_eq!(told("timeout=0"), Some(ms(1)), "it does not wait at all");
        assert_eq!(told("max=100"), None);
        assert_eq!(told("timeout=soon"), None);
        let idle = IdleTime::default();
        idle.closed_after(ms(3_000));
        idle.hear(&HeaderMap::from_iter([(KEEP_ALIVE, http::HeaderValue::from_static("timeout=5"))]));
        assert_eq!(idle.known(), Some(ms(3_000)), "what is seen counts too");
        assert_eq!(idle.safe(), Some(ms(2_400)));
    }

    #[test]
    fn what_closes_at_once_says_nothing_of_rest() {
        let idle = IdleTime::default();
        idle.closed_after(ms(3));
        assert_eq!((idle.known(), idle.is_abrupt()), (None, true));
        idle.closed_after(ms(300));
        idle.forget();
        assert_eq!((idle.known(), idle.is_abrupt()), (None, false));
    }

    #[test]
    fn a_longer_rest_is_believed_little_by_little() {
        let idle = IdleTime::default();
        idle.survived(ms(60_000));
        assert_eq!(idle.known(), None, "nothing was known that it could contradict");
        idle.closed_after(ms(100));
        idle.survived(ms(120));
        assert_eq!(idle.known(), Some(ms(100)), "a little longer is no news");
        idle.survived(ms(5_000));
        assert_eq!(idle.known(), Some(ms(125)));
        let steps = (0..).take_while(|_| {
            let before = idle.known();
            idle.survived(ms(5_000));
            idle.known() != before
        });
        assert!(steps.count() < 20);
        assert!(idle.known() > Some(ms(4_000)) && idle.known() <= Some(ms(5_000)), "{:?}", idle.known());
    }

    proptest! {
        #[test]
        fn with_any_closes_the_shortest_rest_is_known(rests in prop::collection::vec(20_u64..100_000, 1..50)) {
            let idle = IdleTime::default();
            for &rest in &rests {
                idle.closed_after(ms(rest));
            }
            prop_assert_eq!(idle.known(), rests.iter().min().map(|&rest| ms(rest)));
        }

        #[test]
        fn what_survives_never_makes_known_what_did_not(close in 20_u64..10_000, rests in prop::collection::vec(1_u64..100_000, 1..200)) {
            let idle = IdleTime::default();
            idle.closed_after(ms(close));
            for &rest in &rests {
                idle.survived(ms(rest));
            }
            let longest = rests.iter().copied().max().unwrap_or(0).max(close);
            prop_assert!(idle.known().unwrap() <= ms(longest));
            prop_assert!(idle.known().unwrap() >= ms(close));
        }
    }
}

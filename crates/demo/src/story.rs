//! What happens in the demo, scene by scene, and whether it went as it should.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use crate::screen::grouped;
use crate::town::{APPLICATIONS, Town};
use crate::traffic::{Seen, Traffic};

/// How long the application that is back may take to get requests.
const RETURN: Duration = Duration::from_secs(15);
/// The application that dies and comes back.
const VICTIM: &str = "reviews-2";
/// How long a scene lasts where nobody says, in its own unit: see [`Scene::units`].
const UNIT: Duration = Duration::from_secs(6);
/// Requests that may be counted in the scene before or after their own.
const STRAGGLERS: u64 = 10;

/// A part of the story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scene {
    Canary,
    Even,
    Killed,
    Back,
}

impl Scene {
    const ALL: [Self; 4] = [Self::Canary, Self::Even, Self::Killed, Self::Back];
    /// How many units the whole story has.
    const UNITS: u32 = 6;

    /// Its length. A caller waits twice as long with each time that it finds an endpoint dead, so being found again
    /// takes longer than dying.
    const fn units(self) -> u32 {
        if matches!(self, Self::Back) { 3 } else { 1 }
    }

    /// Its place, and of how many.
    pub(crate) const fn place(self) -> (usize, usize) {
        (self as usize + 1, Self::ALL.len())
    }

    /// In a word.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Canary => "90/10",
            Self::Even => "50/50",
            Self::Killed => "killed",
            Self::Back => "back",
        }
    }

    /// In a sentence.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Canary => "90/10: one request in ten goes to v2",
            Self::Even => "50/50: half of the requests go to v2",
            Self::Killed => "reviews-2 was killed: what it had is sent elsewhere",
            Self::Back => "reviews-2 is back",
        }
    }
}

/// Whether a part of the story went as it should.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) scene: &'static str,
    pub(crate) holds: bool,
    /// What was seen.
    pub(crate) found: String,
}

/// The story as it is told.
#[derive(Debug)]
pub(crate) struct Story<'a> {
    town: &'a Town,
    traffic: &'a Traffic,
    scene: Cell<Scene>,
    verdicts: RefCell<BTreeMap<Scene, Verdict>>,
}

impl<'a> Story<'a> {
    pub(crate) fn new(town: &'a Town, traffic: &'a Traffic) -> Self {
        Self { town, traffic, scene: Cell::new(Scene::Canary), verdicts: RefCell::default() }
    }

    /// What happens now.
    pub(crate) fn scene(&self) -> Scene {
        self.scene.get()
    }

    /// How what has happened went.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        self.verdicts.borrow().values().cloned().collect()
    }

    /// Tells it once within `length`, or again and again.
    pub(crate) async fn tell(&self, length: Option<Duration>) -> Result<()> {
        let unit = length.map_or(UNIT, |length| length / Scene::UNITS);
        loop {
            for scene in Scene::ALL {
                self.begin(scene).await?;
                let (before, retries) = (self.traffic.seen(), self.town.retries());
                tokio::time::sleep(unit * scene.units()).await;
                if scene == Scene::Back {
                    self.victim_answers(&before).await;
                }
                let seen = self.traffic.seen().since(&before);
                let verdict = judge(scene, &seen, self.town.retries() - retries);
                // A failure is remembered, however often it goes well after that.
                let mut verdicts = self.verdicts.borrow_mut();
                if verdicts.get(&scene).is_none_or(|earlier| earlier.holds) {
                    verdicts.insert(scene, verdict);
                }
            }
            if length.is_some() {
                return Ok(());
            }
        }
    }

    /// Waits until the victim has answered. It is tried again a second after it was found dead, and twice as long after each
    /// time in a row, which a busy machine may make longer than the scene.
    async fn victim_answers(&self, before: &Seen) {
        let _ = tokio::time::timeout(RETURN, async {
            while self.traffic.seen().since(before).by(VICTIM) == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    async fn begin(&self, scene: Scene) -> Result<()> {
        match scene {
            Scene::Canary => self.town.share(90, 10).await?,
            Scene::Even => self.town.share(50, 50).await?,
            Scene::Killed => self.town.kill(VICTIM).await?,
            Scene::Back => self.town.revive(VICTIM).await?,
        }
        self.scene.set(scene);
        Ok(())
    }
}

/// Compares what was seen in a scene with what was to be expected.
fn judge(scene: Scene, seen: &Seen, retries: u64) -> Verdict {
    let (all, victim) = (seen.requests(), seen.by(VICTIM));
    let total = grouped(all);
    let shares = |expected: f64| {
        let v2: u64 =
            APPLICATIONS.iter().filter(|app| app.version == "v2").map(|app| seen.by(app.name)).sum();
        let share = v2 as f64 / all.max(1) as f64;
        // Five standard deviations of a binomial share.
        let tolerance = 5.0 * (expected * (1.0 - expected) / all.max(1) as f64).sqrt() + 0.01;
        (
            (share - expected).abs() <= tolerance,
            format!("v2 answered {:.1}% of {total} requests", share * 100.0),
        )
    };
    let (holds, found) = match scene {
        Scene::Canary => shares(0.1),
        Scene::Even => shares(0.5),
        Scene::Killed => {
            let found = format!("the others answered {total} requests; sent again: {}", grouped(retries));
            (victim <= STRAGGLERS, found)
        }
        Scene::Back => (victim > 0, format!("{VICTIM} answered {} of {total} requests", grouped(victim))),
    };
    Verdict { scene: scene.name(), holds: holds && all > 0 && seen.failed == 0, found }
}

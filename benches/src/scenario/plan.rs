//! What a run will do, and how long it will take.

use std::{fmt, time::Duration};

use super::{Contender, Memory, Part, Turns, Wanted, Work, parts, turns::COUNTING};
use crate::{
    load::{Connect, Load, Tls},
    subject::{Hops, Kind},
};

/// What each sample takes besides its warm-up and itself: connections, and reading `/proc`.
const SAMPLE: f64 = 0.03;
/// Until a peer is up.
const START: f64 = 0.2;
/// A connection with one request on it.
const CONNECTION: f64 = 80e-6;
/// Until memory is read of what has been started.
pub(super) const SETTLE: Duration = Duration::from_millis(500);
/// Reading from a large configuration being written to going live, and going back.
const CHANGE: f64 = 0.6;
/// The kinds of change that [`Work::Faults`] has.
const FAULTS: f64 = 4.0;

/// What a run will do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Its parts.
    pub parts: Vec<Part>,
}

impl Plan {
    /// What `wanted` comes to.
    pub fn new(wanted: &Wanted) -> Self {
        Self { parts: wanted.scenarios.iter().flat_map(|name| parts::of(*name, wanted)).collect() }
    }

    /// Whether Outrigger itself is needed for it.
    pub fn needs_outrigger(&self) -> bool {
        let ours =
            |contenders: &[Contender]| contenders.iter().any(|contender| contender.kind == Kind::Outrigger);
        self.parts.iter().any(|part| match &part.work {
            Work::Turns(turns) => ours(&turns.contenders),
            Work::Memory(memory) => ours(&memory.contenders),
            Work::Start { contenders, .. } => ours(contenders),
            Work::Config(_) | Work::Faults { .. } => true,
        })
    }

    /// How long it will take, by and large.
    pub fn estimate(&self) -> Duration {
        self.parts.iter().map(estimate).sum()
    }
}

/// `4 parts, about 2 min`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts.len();
        let s = if parts == 1 { "" } else { "s" };
        write!(f, "{parts} part{s}, about {}", spell(self.estimate()))
    }
}

/// How long a part will take, by and large: what is skipped in the end is counted as well.
pub fn estimate(part: &Part) -> Duration {
    let seconds = match &part.work {
        Work::Turns(turns) => of_turns(turns),
        Work::Memory(memory) => of_memory(memory),
        Work::Start { contenders, times } => contenders.len() as f64 * f64::from(*times) * 0.1,
        Work::Config(config) => {
            START + 2.0 * f64::from(config.times) * (config.window.as_secs_f64() + CHANGE)
        }
        Work::Faults { time } => FAULTS * (time.as_secs_f64() + 1.0),
    };
    Duration::from_secs_f64(seconds)
}

fn of_turns(turns: &Turns) -> f64 {
    let Turns { loads, contenders, timing } = turns;
    let sample = timing.warm_up.as_secs_f64() + timing.sample.as_secs_f64() + SAMPLE;
    let sample = |load: &Load| sample + connecting(load);
    let once: f64 = loads.iter().map(sample).sum();
    let starting: f64 =
        contenders.iter().map(|contender| starting(&contender.kind, contender.setup.hops)).sum();
    let legs = if timing.back { 2.0 } else { 1.0 };
    let counting =
        if loads.len() == 1 { 2.0 * COUNTING.as_secs_f64() * contenders.len() as f64 } else { 0.0 };
    starting + counting + f64::from(timing.repetitions) * legs * contenders.len() as f64 * once
}

fn connecting(load: &Load) -> f64 {
    let handshake = if load.tls == Tls::Off { 0.0 } else { 1e-3 };
    if load.connect == Connect::Keep { f64::from(load.connections) * (CONNECTION + handshake) } else { 0.0 }
}

fn of_memory(memory: &Memory) -> f64 {
    let Memory { contenders, connections, times } = memory;
    let each = f64::from(*connections) * CONNECTION + SETTLE.as_secs_f64();
    let once: f64 = contenders.iter().map(|who| starting(&who.kind, who.setup.hops) + each).sum();
    f64::from(*times) * once
}

fn starting(kind: &Kind, hops: Hops) -> f64 {
    match (kind, hops) {
        (Kind::Direct, _) => 0.0,
        (Kind::Forwarder | Kind::Outrigger, _) => 0.05,
        (Kind::Peer(_), Hops::One) => START,
        (Kind::Peer(_), Hops::Two) => 2.0 * START,
    }
}

/// `40 s`, `3 min 20 s`, `12 min`: what somebody who waits wants to know.
pub fn spell(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    match seconds {
        0..90 => format!("{} s", seconds.max(1)),
        90..300 => format!("{} min {} s", seconds / 60, seconds % 60 / 10 * 10),
        _ => format!("{} min", (seconds + 30) / 60),
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::scenario::Name;

    fn wanted(quick: bool) -> Wanted {
        Wanted { peers: vec!["nginx".into(), "haproxy".into()], quick, ..Wanted::default() }
    }

    #[test]
    fn all_that_has_a_target_fits_into_the_time_that_it_may_take() {
        let plan = Plan::new(&wanted(false));
        let estimate = plan.estimate().as_secs();
        assert!((600..=800).contains(&estimate), "{estimate} s: {plan}");
        let quick = Plan::new(&wanted(true)).estimate().as_secs();
        assert!((60..=115).contains(&quick), "{quick} s");
    }

    #[test]
    fn more_takes_longer() {
        let one = Wanted { scenarios: vec![Name::Plain], ..Wanted::default() };
        let time = |wanted: &Wanted| Plan::new(wanted).estimate();
        assert!(time(&Wanted { repetitions: Some(12), ..one.clone() }) > time(&one).mul_f64(1.9));
        assert!(time(&Wanted { duration: Some(Duration::from_secs(20)), ..one.clone() }) > time(&one) * 5);
        assert!(time(&Wanted { peers: vec!["nginx".into()], ..one.clone() }) > time(&one));
        assert!(time(&Wanted { quick: true, ..one.clone() }) < time(&one));
    }

    #[test]
    fn names_within_a_plan_are_unique() {
        let all = Wanted { scenarios: Name::value_variants().to_vec(), ..wanted(false) };
        let plan = Plan::new(&all);
        let mut names: Vec<_> = plan.parts.iter().map(|part| &part.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), plan.parts.len());
        for part in &plan.parts {
            assert!(part.name.starts_with(part.scenario.as_str()), "{}", part.name);
            let Work::Turns(turns) = &part.work else { continue };
            let mut names: Vec<_> = turns.contenders.iter().map(|who| &who.name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), turns.contenders.len(), "{}", part.name);
        }
    }

    #[test]
    fn times_are_spelled_for_people() {
        let spelled = [0.2, 42.4, 100.0, 299.0, 301.0, 745.0].map(|s| spell(Duration::from_secs_f64(s)));
        assert_eq!(spelled, ["1 s", "42 s", "1 min 40 s", "4 min 50 s", "5 min", "12 min"]);
    }
}

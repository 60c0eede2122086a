//! What the endpoints of a backend look like as a whole: how many are well, and so how requests are shared among those of
//! different priorities and zones, and whether there is panic.
//!
//! It is worked out over all endpoints now and then, by whichever worker comes by, and read by every choice. While all
//! endpoints are well and nothing is asked of it, a choice reads one number that nobody writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::{Group, MOST_GROUPS};
use crate::Load;

/// At most this often it is worked out anew, in microseconds; with thousands of endpoints less often, so that it takes
/// well below a hundredth of a worker's time.
const INTERVAL: u64 = 10_000;
/// Added to that for each endpoint, in microseconds.
const INTERVAL_FOR_EACH: u64 = 2;
/// Endpoints of a priority are taken to be able to do this much more than they would have to if all were well: less than
/// 1 in 1.4 of them must be well before requests go to the next priority. As Envoy has it ("overprovisioning factor").
const SPARE: f32 = 1.4;
/// No endpoint in this node's zone is meant to get more than this many times the mean. The rest to [`MOST_COUNTED`] is
/// for chance, and the rest from there to 1.5 for what is under way between two looks.
const MOST_MEANT: f32 = 1.4;
/// No endpoint gets more than this many times the mean of a window.
const MOST_COUNTED: f32 = 1.45;
/// An endpoint with this many times as many requests in flight as the mean gets no more for being in this node's zone.
const MOST_BUSY: f32 = 1.5;
/// The least share that an endpoint has of what it will have once it has warmed up.
const COLD: f32 = 0.1;

/// What makes a choice more than a look at the endpoints themselves; 0: nothing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mood(u32);

impl Mood {
    const CALM: Self = Self(0);
    /// Something may have changed.
    const DOUBT: Self = Self(1);
    const ILL: Self = Self(1 << 1);
    const WARMING: Self = Self(1 << 2);
    const PANIC: Self = Self(1 << 3);
    const ZONES: Self = Self(1 << 4);

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn with(self, other: Self, really: bool) -> Self {
        if really { Self(self.0 | other.0) } else { self }
    }

    /// Whether so few endpoints are well that all are used.
    pub(super) const fn is_panic(self) -> bool {
        self.has(Self::PANIC)
    }

    /// Whether some endpoints have not come to their full share.
    pub(super) const fn is_warming(self) -> bool {
        self.has(Self::WARMING)
    }

    /// Whether this node's zone comes first.
    pub(super) const fn has_zones(self) -> bool {
        self.has(Self::ZONES)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outlook {
    made: Instant,
    mood: AtomicU32,
    /// When it may be worked out anew, in microseconds since it was made.
    due: AtomicU64,
    /// The share of the warmest endpoint (the bits of an `f32`): others are measured by it.
    warmest: AtomicU32,
    groups: Box<[Shared]>,
    slow_start: Option<Duration>,
    /// Below this share of endpoints that are well, in per cent, there is panic.
    panic_threshold: u32,
    zones: bool,
}

/// What is worked out of a group. Fractions are the bits of an `f32`, but for `until`.
#[derive(Debug, Default)]
struct Shared {
    /// Where its share of the requests ends, as a fraction of 2^32.
    until: AtomicU32,
    /// How many of the requests of a window an endpoint may get, for each unit of weight.
    most: AtomicU32,
    /// How many requests in flight are too many, for each unit of weight.
    busy: AtomicU32,
}

/// What one look at a group finds.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    weight: f32,
    /// The weight of the endpoints that are well.
    well: f32,
    /// Of that, what counts while they warm up.
    warm: f32,
    in_flight: f32,
}

impl Outlook {
    pub(super) fn new(
        groups: &[Group],
        slow_start: Option<Duration>,
        panic_threshold: u32,
        zones: bool,
        now: Instant,
    ) -> Self {
        Self {
            made: now,
            mood: AtomicU32::new(Mood::DOUBT.0),
            due: AtomicU64::new(0),
            warmest: AtomicU32::new(1f32.to_bits()),
            groups: groups.iter().map(|_| Shared::default()).collect(),
            slow_start,
            panic_threshold,
            zones,
        }
    }

    /// How things stand, looked at anew if that is called for.
    pub(super) fn mood(&self, groups: &[Group], loads: &[Arc<Load>], now: Instant) -> Mood {
        let mood = Mood(self.mood.load(Relaxed));
        if mood == Mood::CALM { mood } else { self.look(groups, loads, now) }
    }

    /// An endpoint was met that is not well.
    pub(super) fn doubt(&self) {
        if self.mood.load(Relaxed) == Mood::CALM.0 {
            self.mood.store(Mood::DOUBT.0, Relaxed);
        }
    }

    /// Whether all endpoints are well, and nothing is asked of it.
    pub(super) fn is_calm(&self) -> bool {
        self.mood.load(Relaxed) == Mood::CALM.0
    }

    /// Whether it was never worked out.
    pub(super) fn is_new(&self) -> bool {
        self.due.load(Relaxed) == 0
    }

    /// The group in which a fraction of 2^32 falls.
    pub(super) fn group(&self, fraction: u32) -> usize {
        self.groups.iter().position(|group| fraction < group.until.load(Relaxed)).unwrap_or_default()
    }

    /// How many of `total` requests of a window an endpoint of a group may get, for each unit of weight.
    pub(super) fn most(&self, group: usize, total: u32) -> f32 {
        self.groups.get(group).map_or(f32::MAX, |group| fraction(&group.most) * total as f32)
    }

    /// How many requests in flight are too many for an endpoint of a group, for each unit of weight.
    pub(super) fn busy(&self, group: usize) -> f32 {
        self.groups.get(group).map_or(f32::MAX, |group| fraction(&group.busy))
    }

    /// The share of an endpoint, of that of the warmest one, 0.1 to 1.
    pub(super) fn warmth(&self, load: &Load, now: Instant) -> f32 {
        (self.warmed(load, now) / fraction(&self.warmest)).clamp(COLD, 1.0)
    }

    fn warmed(&self, load: &Load, now: Instant) -> f32 {
        self.slow_start.map_or(1.0, |window| {
            (load.age_since_recovery(now).as_secs_f32() / window.as_secs_f32()).clamp(COLD, 1.0)
        })
    }

    #[cold]
    fn look(&self, groups: &[Group], loads: &[Arc<Load>], now: Instant) -> Mood {
        let elapsed = now.saturating_duration_since(self.made).as_micros() as u64;
        let due = self.due.load(Relaxed);
        let next = (elapsed + INTERVAL + INTERVAL_FOR_EACH * loads.len() as u64).max(1);
        if elapsed >= due && self.due.compare_exchange(due, next, Relaxed, Relaxed).is_ok() {
            let mood = self.work_out(groups, loads, now);
            self.mood.store(mood.0, Relaxed);
            return mood;
        }
        Mood(self.mood.load(Relaxed))
    }

    fn work_out(&self, groups: &[Group], loads: &[Arc<Load>], now: Instant) -> Mood {
        let mut warming = false;
        if self.slow_start.is_some() {
            let well = loads.iter().filter(|load| load.available(now));
            let (least, most) = well
                .map(|load| self.warmed(load, now))
                .fold((1f32, COLD), |(least, most), warmed| (least.min(warmed), most.max(warmed)));
            self.warmest.store(most.to_bits(), Relaxed);
            warming = least < 1.0;
        }
        let mut seen = [Seen::default(); MOST_GROUPS];
        let mut well = 0;
        for (seen, group) in seen.iter_mut().zip(groups) {
            for load in group.places(loads.len()).filter_map(|place| loads.get(place)) {
                let weight = load.weight() as f32;
                seen.weight += weight;
                if load.available(now) {
                    well += 1;
                    seen.well += weight;
                    seen.warm += if warming { weight * self.warmth(load, now) } else { weight };
                    seen.in_flight += load.in_flight() as f32;
                }
            }
        }
        let seen = seen.get(..groups.len()).unwrap_or_default();
        let levels = Levels::of(groups, seen);
        let few = well * 100 < self.panic_threshold as usize * loads.len();
        let panic = few && loads.len() > 1 && (levels.count == 1 || levels.enough < 1.0);
        self.share(groups, seen, &levels, panic);
        Mood::CALM
            .with(Mood::ILL, well < loads.len())
            .with(Mood::WARMING, warming)
            .with(Mood::PANIC, panic)
            .with(Mood::ZONES, self.zones)
    }

    /// Says which part of the requests each group gets.
    fn share(&self, groups: &[Group], seen: &[Seen], levels: &Levels, panic: bool) {
        let whole: f32 = seen.iter().map(|seen| seen.weight).sum();
        let mut until = 0f32;
        for (((group, seen), level), shared) in groups.iter().zip(seen).zip(&levels.each).zip(&*self.groups) {
            let part = if panic || levels.enough <= 0.0 {
                seen.weight / whole
            } else {
                let near = (MOST_MEANT * level.near / level.warm).min(1.0);
                match (level.near > 0.0, group.near) {
                    (true, true) => level.part * near,
                    (true, false) => level.part * (1.0 - near),
                    (false, true) => 0.0,
                    (false, false) => level.part,
                }
            };
            until += part;
            shared.until.store((f64::from(until) * f64::from(u32::MAX)) as u32, Relaxed);
            if self.zones {
                let weight = level.warm.max(f32::MIN_POSITIVE);
                shared.most.store((MOST_COUNTED * level.part / weight).to_bits(), Relaxed);
                shared.busy.store((MOST_BUSY * level.in_flight / weight).to_bits(), Relaxed);
            }
        }
        // What rounding leaves belongs to the last that has a share at all.
        let end = self.groups.iter().map(|group| group.until.load(Relaxed)).max().unwrap_or_default();
        let ending = self.groups.iter().skip_while(|group| group.until.load(Relaxed) < end);
        ending.for_each(|group| group.until.store(u32::MAX, Relaxed));
    }
}

fn fraction(bits: &AtomicU32) -> f32 {
    f32::from_bits(bits.load(Relaxed))
}

/// The priorities: which part of the requests each gets. The lower ones come first, as far as they can: each can do
/// [`SPARE`] times what its endpoints that are well would have to do if all were (Envoy, "Priority levels").
struct Levels {
    /// For each group, its level.
    each: [Level; MOST_GROUPS],
    /// How many there are.
    count: usize,
    /// How much of the requests they can take together, at most 1 each.
    enough: f32,
}

/// What is known of a priority.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    part: f32,
    /// The weight of its endpoints that are well, as it counts while they warm up.
    warm: f32,
    /// Of that, what is in this node's zone.
    near: f32,
    in_flight: f32,
}

impl Levels {
    fn of(groups: &[Group], seen: &[Seen]) -> Self {
        let mut levels = Self { each: [Level::default(); MOST_GROUPS], count: 0, enough: 0.0 };
        let health = |of: &[Seen]| {
            let (well, all) =
                of.iter().fold((0.0, 0.0), |(well, all), seen| (well + seen.well, all + seen.weight));
            if all > 0.0 { (SPARE * well / all).min(1.0) } else { 0.0 }
        };
        let chunks = || groups.chunk_by(|a, b| a.priority == b.priority).map(<[Group]>::len);
        let mut rest = seen;
        for length in chunks() {
            let (of, after) = rest.split_at(length.min(rest.len()));
            levels.enough += health(of);
            levels.count += 1;
            rest = after;
        }
        let enough = levels.enough.clamp(f32::MIN_POSITIVE, 1.0);
        let (mut rest, mut left, mut at) = (seen, 1f32, 0);
        for length in chunks() {
            let (of, after) = rest.split_at(length.min(rest.len()));
            let part = (health(of) / enough).min(left);
            left -= part;
            let sum = |part: fn(&Seen) -> f32| of.iter().map(part).sum();
            let near = groups.iter().skip(at).zip(of).filter(|(group, _)| group.near);
            let level = Level {
                part,
                warm: sum(|seen| seen.warm),
                near: near.map(|(_, seen)| seen.warm).sum(),
                in_flight: sum(|seen| seen.in_flight),
            };
            levels.each.iter_mut().skip(at).take(length).for_each(|each| *each = level);
            at += length;
            rest = after;
        }
        levels
    }
}

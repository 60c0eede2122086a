//! The choice of an endpoint.

mod hashed;
mod outlook;
mod quota;
mod weights;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use fastrand::Rng;
use outrigger_config::backend::{Balance, BalanceKind, HashKey, Locality};

pub use self::hashed::hash;
use self::hashed::{Table, mixed};
use self::outlook::{Mood, Outlook};
use self::quota::Quota;
use self::weights::Weights;
use crate::Load;

/// How often a draw that fell on an endpoint to be left out is repeated before all endpoints are looked at.
const REDRAWS: usize = 4;
/// The same where endpoints warm up, and many draws fall on such that do not have their full share.
const REDRAWS_WARMING: usize = 16;
/// How many endpoints are looked at in turn for one that has not got its part, before those of other zones are.
const STRICT_LOOKS: usize = 16;
/// Of two endpoints, the second must cost less than this share of the first to be taken instead: less is noise, and
/// then the turn decides, which goes by weight.
const CLEARLY_LESS: f32 = 0.8;
/// Latencies that differ by less than this factor are taken for the same: what is left of a peak makes as much of a
/// difference among equal endpoints. One that is really slower also has more in flight.
const SAME_LATENCY: f32 = 2.0;
/// What is added to latencies before they are compared, in seconds: among those of less than this, differences are the
/// operating systems' and not the endpoints'.
const NOISE: f32 = 0.002;
/// Priorities are 0 to 15, each with endpoints in this node's zone and others.
const MOST_GROUPS: usize = 32;

/// What is known of an endpoint before any request goes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its share among the others.
    pub weight: u32,
    /// Endpoints of a higher number take requests only as far as those of lower ones are not well.
    pub priority: u32,
    /// Whether it is in this node's own zone.
    pub near: bool,
    /// What it is known by where a hash decides: the same wherever and whenever it is computed.
    pub key: u64,
}

impl Member {
    /// An endpoint of this weight, like any other.
    pub const fn new(weight: u32) -> Self {
        Self { weight, priority: 0, near: false, key: 0 }
    }
}

/// What a request asks of the choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish<'a> {
    /// The endpoints to be left out, by their places: they were tried.
    pub tried: &'a [usize],
    /// The hash of what decides where the request goes, if it has that.
    pub hash: Option<u64>,
}

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// The endpoint, by its place.
    pub at: usize,
    /// Whether so few endpoints are well that all of them are used.
    pub panic: bool,
}

/// Chooses among the endpoints of one backend. Shared by all workers.
#[derive(Debug)]
pub struct Balancer {
    spec: Balance,
    members: Box<[Member]>,
    /// Those of the lowest priority first, of these the near ones first.
    groups: Box<[Group]>,
    outlook: Outlook,
    /// What each endpoint has got lately, where this node's zone comes first.
    quota: Option<Quota>,
}

/// The endpoints of one priority, in this node's zone or not.
#[derive(Debug)]
struct Group {
    priority: u32,
    near: bool,
    /// Which they are, by their places; empty where they are all there are.
    places: Box<[u32]>,
    weights: Weights,
    /// Who takes which hash, where a hash decides.
    table: Option<Table>,
    /// Requests so far, where each has its turn.
    turn: AtomicU64,
}

impl Group {
    fn new(kind: BalanceKind, priority: u32, near: bool, of: &[(u32, Member)], all: bool) -> Self {
        let members: Vec<Member> = of.iter().map(|(_, member)| *member).collect();
        let weights: Vec<u32> = members.iter().map(|member| member.weight).collect();
        Self {
            priority,
            near,
            places: if all { Box::default() } else { of.iter().map(|(place, _)| *place).collect() },
            weights: Weights::new(&weights),
            table: Table::new(kind, &members),
            turn: AtomicU64::new(0),
        }
    }

    fn len(&self, count: usize) -> usize {
        if self.places.is_empty() { count } else { self.places.len() }
    }

    /// The place among all endpoints of one of the group.
    fn place(&self, at: usize) -> usize {
        if self.places.is_empty() {
            at
        } else {
            self.places.get(at).map_or(usize::MAX, |place| *place as usize)
        }
    }

    fn places(&self, count: usize) -> impl Iterator<Item = usize> {
        (0..self.len(count)).map(|at| self.place(at))
    }

    /// The next turn. Two workers may take the same one, which costs less than a locked instruction for every request.
    fn next(&self) -> u64 {
        let turn = self.turn.load(Relaxed);
        self.turn.store(turn.wrapping_add(1), Relaxed);
        turn
    }
}

/// One choice, under way.
struct Choice<'a> {
    balancer: &'a Balancer,
    loads: &'a [Arc<Load>],
    wish: Wish<'a>,
    now: Instant,
    mood: Mood,
}

impl Balancer {
    /// A balancer over these endpoints, in the order in which their loads will stand.
    pub fn new(spec: &Balance, members: &[Member], now: Instant) -> Self {
        // The same key goes to the same endpoint from every node, and so from every zone.
        let local = spec.locality == Locality::PreferZone && !spec.kind.is_by_hash();
        let mut ordered: Vec<(u32, Member)> = (0..).zip(members.iter().copied()).collect();
        let group = |member: &Member| (member.priority.min(15), !(local && member.near));
        ordered.sort_by_key(|(_, member)| group(member));
        let apart: Vec<_> = ordered.chunk_by(|(_, a), (_, b)| group(a) == group(b)).collect();
        let groups: Box<[Group]> = apart
            .iter()
            .filter_map(|of| {
                let (priority, far) = group(&of.first()?.1);
                Some(Group::new(spec.kind, priority, !far, of, apart.len() == 1))
            })
            .collect();
        let zones = groups.windows(2).any(|pair| pair[0].priority == pair[1].priority);
        let slow_start = spec.slow_start.and_then(outrigger_config::Duration::limit);
        let slow_start = slow_start.filter(|_| !spec.kind.is_by_hash());
        Self {
            outlook: Outlook::new(&groups, slow_start, spec.panic_threshold, zones, now),
            quota: zones.then(|| Quota::new(members.len())),
            groups,
            spec: spec.clone(),
            members: members.into(),
        }
    }

    /// Whether a new balancer would do the same as this one.
    pub fn is_for(&self, spec: &Balance, members: &[Member]) -> bool {
        self.spec == *spec && *self.members == *members
    }

    /// Has it look at the endpoints anew: some may be others in the same places.
    pub fn look_again(&self) {
        self.outlook.doubt();
    }

    /// What of a request decides where it goes; nothing, where the choice is not by a hash.
    pub fn hash_keys(&self) -> &[HashKey] {
        &self.spec.hash
    }

    /// The endpoint for a request, where `loads` stand in the order of the endpoints given.
    ///
    /// Those that the wish names as tried are left out, and so are those that are not [available](Load::available), unless no other is
    /// left: better a try than a refusal. `None` where there is no endpoint, or all were tried.
    ///
    /// With fewer endpoints well than the panic threshold, all are used alike, but for those that cannot be
    /// [reached](Load::reachable): there is nothing to be gained at these.
    pub fn pick(&self, loads: &[Arc<Load>], wish: Wish<'_>, now: Instant, rng: &mut Rng) -> Option<Pick> {
        if self.outlook.is_calm()
            && let Some(at) = self.quick(loads, wish, now, rng)
        {
            return Some(Pick { at, panic: false });
        }
        if self.outlook.is_new() {
            // So that not all nodes of a mesh begin with the same endpoint.
            self.groups.iter().for_each(|group| group.turn.store(u64::from(rng.u32(..)), Relaxed));
        }
        let mood = self.outlook.mood(&self.groups, loads, now);
        let choice = Choice { balancer: self, loads, wish, now, mood };
        let at = choice.make(rng).or_else(|| choice.any(rng))?;
        if mood.has_zones()
            && let Some(quota) = &self.quota
        {
            quota.count(at);
        }
        Some(Pick { at, panic: mood.is_panic() })
    }

    /// The endpoint for a request, where all are well and alike: what almost every request needs, and no more. `None` where
    /// one that is drawn is not usable, or it is not so simple.
    fn quick(&self, loads: &[Arc<Load>], wish: Wish<'_>, now: Instant, rng: &mut Rng) -> Option<usize> {
        let [group] = &*self.groups else { return None };
        let weights = &group.weights;
        let usable = |at: usize| {
            let load: &Load = loads.get(at)?;
            if !load.available(now) {
                self.outlook.doubt();
                return None;
            }
            (!wish.tried.contains(&at)).then_some(load)
        };
        let by_latency = match self.spec.kind {
            BalanceKind::PeakEwma => true,
            BalanceKind::LeastRequest => false,
            BalanceKind::Random => return Some(weights.draw(rng)).filter(|&at| usable(at).is_some()),
            BalanceKind::RoundRobin => {
                let at = weights.in_turn(group.turn.fetch_add(1, Relaxed));
                return Some(at).filter(|&at| usable(at).is_some());
            }
            BalanceKind::RingHash | BalanceKind::Maglev => return None,
        };
        let first = weights.even(group.next());
        let a = usable(first)?;
        let Some(second) = weights.draw_other(first, rng) else { return Some(first) };
        let b = usable(second)?;
        let (mut cost, mut other) = (weights.queue(a, 1.0), weights.queue(b, 1.0));
        if by_latency {
            weigh(&mut cost, &mut other, a.felt(now), b.felt(now));
        }
        Some(if other < cost * CLEARLY_LESS { second } else { first })
    }

    /// Which group gets a request.
    fn group(&self, wish: Wish<'_>, rng: &mut Rng) -> usize {
        if self.groups.len() == 1 {
            return 0;
        }
        let fraction = match wish.hash {
            Some(hash) if self.spec.kind.is_by_hash() => (mixed(hash) >> 32) as u32,
            _ => rng.u32(..),
        };
        self.outlook.group(fraction)
    }
}

impl Choice<'_> {
    /// An endpoint out of the group whose turn it is, or of the others if that has none.
    fn make(&self, rng: &mut Rng) -> Option<usize> {
        let groups = &self.balancer.groups;
        let first = self.balancer.group(self.wish, rng);
        let inside = |strict: bool, rng: &mut Rng| {
            let others = (0..groups.len()).filter(|&at| at != first);
            [first].into_iter().chain(others).find_map(|at| self.within(at, strict, rng))
        };
        if self.mood.has_zones()
            && let Some(found) = inside(true, rng)
        {
            return Some(found);
        }
        inside(false, rng)
    }

    /// Any endpoint that was not tried; one that can be reached, if there is.
    fn any(&self, rng: &mut Rng) -> Option<usize> {
        let (count, tried) = (self.loads.len(), self.wish.tried);
        let start = if count == 0 { 0 } else { rng.usize(..count) };
        let reachable = |at: usize| self.loads.get(at).is_some_and(|load| load.reachable(self.now));
        scan(count, start, count, |at| !tried.contains(&at) && reachable(at))
            .or_else(|| scan(count, start, count, |at| !tried.contains(&at)))
    }

    /// Whether an endpoint may take the request.
    fn usable(&self, place: usize) -> bool {
        let Some(load) = self.loads.get(place) else { return false };
        if !load.available(self.now) {
            self.balancer.outlook.doubt();
            if !self.mood.is_panic() || !load.reachable(self.now) {
                return false;
            }
        }
        !self.wish.tried.contains(&place)
    }

    /// Whether an endpoint is warm enough for this one.
    fn warm(&self, place: usize, rng: &mut Rng) -> bool {
        let warmth = |load: &Arc<Load>| self.balancer.outlook.warmth(load, self.now);
        !self.mood.is_warming()
            || self.loads.get(place).map(warmth).is_some_and(|warmth| warmth >= 1.0 || rng.f32() < warmth)
    }

    /// Whether an endpoint has not got more lately than its part.
    fn has_room(&self, group: usize, place: usize) -> bool {
        let (Some(quota), Some(load)) = (&self.balancer.quota, self.loads.get(place)) else { return true };
        let weight = load.weight() as f32;
        quota.has_room(place, self.balancer.outlook.most(group, quota.total()) * weight)
            && load.in_flight() as f32 <= self.balancer.outlook.busy(group) * weight + quota::SLACK
    }

    /// An endpoint out of a group. `strict`: none that has got its part; then not every last one is looked at.
    fn within(&self, at: usize, strict: bool, rng: &mut Rng) -> Option<usize> {
        let group = self.balancer.groups.get(at)?;
        let usable = |place: usize| self.usable(place) && (!strict || self.has_room(at, place));
        let found = match self.balancer.spec.kind {
            BalanceKind::PeakEwma => self.better_of_two(group, usable, rng, |a, b| {
                let (mut cost, mut other) = (self.queue(group, a), self.queue(group, b));
                weigh(&mut cost, &mut other, a.felt(self.now), b.felt(self.now));
                (cost, other)
            }),
            BalanceKind::LeastRequest => {
                self.better_of_two(group, usable, rng, |a, b| (self.queue(group, a), self.queue(group, b)))
            }
            // The turn of an endpoint that is left out goes to whoever is next in turn, not to its neighbour, who would
            // get all of its share.
            BalanceKind::RoundRobin => self.repeat(usable, rng, |_| {
                group.place(group.weights.in_turn(group.turn.fetch_add(1, Relaxed)))
            }),
            BalanceKind::Random => self.repeat(usable, rng, |rng| group.place(group.weights.draw(rng))),
            BalanceKind::RingHash | BalanceKind::Maglev => match (self.wish.hash, &group.table) {
                (Some(hash), Some(table)) => {
                    table.find(hash, |at| usable(group.place(at))).map(|at| group.place(at))
                }
                _ => self.repeat(usable, rng, |rng| group.place(group.weights.draw(rng))),
            },
        };
        found.or_else(|| {
            let count = group.len(self.loads.len());
            let start = if count == 0 { return None } else { rng.usize(..count) };
            let looks = if strict { STRICT_LOOKS } else { count };
            scan(count, start, looks, |at| usable(group.place(at))).map(|at| group.place(at))
        })
    }

    /// How long the queue at an endpoint is, in proportion to what it is there for.
    fn queue(&self, group: &Group, load: &Load) -> f32 {
        let warmth = if self.mood.is_warming() { self.balancer.outlook.warmth(load, self.now) } else { 1.0 };
        group.weights.queue(load, warmth)
    }

    /// Draws again and again until an endpoint is usable.
    fn repeat(
        &self,
        usable: impl Fn(usize) -> bool,
        rng: &mut Rng,
        mut draw: impl FnMut(&mut Rng) -> usize,
    ) -> Option<usize> {
        let draws = if self.mood.is_warming() { REDRAWS_WARMING } else { REDRAWS };
        (0..draws).find_map(|_| {
            let place = draw(rng);
            (usable(place) && self.warm(place, rng)).then_some(place)
        })
    }

    /// Power of two choices: the one that costs less of two endpoints. The first is the one whose turn it is, so that equal
    /// ones get the same; the second is drawn at random.
    fn better_of_two(
        &self,
        group: &Group,
        usable: impl Fn(usize) -> bool,
        rng: &mut Rng,
        cost: impl Fn(&Load, &Load) -> (f32, f32),
    ) -> Option<usize> {
        let first = self.repeat(&usable, rng, |_| group.place(group.weights.even(group.next())))?;
        let second = self.other(group, first, &usable, rng);
        let (Some(a), Some(b)) = (self.loads.get(first), second.and_then(|place| self.loads.get(place)))
        else {
            return Some(first);
        };
        let (a, b) = cost(a, b);
        if b < a * CLEARLY_LESS { second } else { Some(first) }
    }

    /// A usable endpoint other than the first: drawn by weight; any, where the first outweighs the others so much that
    /// it is drawn again and again; none, where few others are usable.
    fn other(
        &self,
        group: &Group,
        first: usize,
        usable: impl Fn(usize) -> bool,
        rng: &mut Rng,
    ) -> Option<usize> {
        let count = group.len(self.loads.len());
        if count < 2 {
            return None;
        }
        (0..2 * REDRAWS).find_map(|draw| {
            let place =
                group.place(if draw < REDRAWS { group.weights.draw(rng) } else { rng.usize(..count) });
            (place != first && usable(place) && self.warm(place, rng)).then_some(place)
        })
    }
}

/// Makes the one of two queues longer whose endpoint is slower, by latencies in seconds.
fn weigh(a: &mut f32, b: &mut f32, latency_of_a: f32, latency_of_b: f32) {
    let (latency_of_a, latency_of_b) = (latency_of_a + NOISE, latency_of_b + NOISE);
    if latency_of_a > latency_of_b * SAME_LATENCY {
        *a *= latency_of_a / (latency_of_b * SAME_LATENCY);
    } else if latency_of_b > latency_of_a * SAME_LATENCY {
        *b *= latency_of_b / (latency_of_a * SAME_LATENCY);
    }
}

/// The first usable endpoint from `start` on, around the end, among so many.
fn scan(count: usize, start: usize, looks: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
    (start..count).chain(0..start).take(looks).find(|&at| usable(at))
}

#[cfg(test)]
mod tests;

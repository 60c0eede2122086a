//! A simulated application behind a limit: so many requests at once, the others queued, under a clock of its own.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use fastrand::Rng;
use outrigger_config::backend::AdaptiveConcurrency;

use super::Adaptive;

/// How long the application takes for a request.
#[derive(Clone, Copy)]
enum Service {
    /// Always as long, in seconds.
    Fixed(f64),
    /// At random around it: exponentially distributed.
    Jittery(f64),
    /// The most are quick, each twentieth takes 20 times as long.
    Mixed(f64),
}

impl Service {
    const fn mean(self) -> f64 {
        match self {
            Self::Fixed(mean) | Self::Jittery(mean) => mean,
            Self::Mixed(quick) => quick * 0.95 + quick * 20.0 * 0.05,
        }
    }

    fn time(self, random: &mut Rng) -> f64 {
        match self {
            Self::Fixed(time) => time,
            Self::Jittery(mean) => exponential(mean, random),
            Self::Mixed(quick) if random.f64() < 0.05 => quick * 20.0,
            Self::Mixed(quick) => quick,
        }
    }
}

fn exponential(mean: f64, random: &mut Rng) -> f64 {
    -mean * (1.0 - random.f64()).ln()
}

struct Application {
    /// How many requests it works on at once.
    workers: usize,
    service: Service,
    /// How much longer all take for each request that waits, as where memory runs short.
    thrash: f64,
}

impl Application {
    fn new(workers: usize, service: Service) -> Self {
        Self { workers, service, thrash: 0.0 }
    }

    /// How many requests it can answer in a second.
    fn capacity(&self) -> f64 {
        self.workers as f64 / self.service.mean()
    }
}

struct World {
    application: Application,
    limit: Option<Adaptive>,
    began: Instant,
    /// Seconds since.
    now: f64,
    random: Rng,
    /// When requests end that are worked on, and when they came.
    working: BinaryHeap<Reverse<(u64, u64)>>,
    queue: VecDeque<f64>,
}

/// What was seen for a while, in requests a second.
#[derive(Debug, Default)]
struct Seen {
    answered: f64,
    refused: f64,
    /// In seconds.
    slowest: f64,
    /// How many were let in on average.
    allowed: f64,
}

fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

impl World {
    fn new(application: Application, seed: u64) -> Self {
        let began = Instant::now();
        let spec = AdaptiveConcurrency::default();
        let limit = Some(Adaptive::new(&spec, spec.max, began, Rng::with_seed(seed)));
        let random = Rng::with_seed(seed + 1);
        Self {
            application,
            limit,
            began,
            now: 0.0,
            random,
            working: BinaryHeap::new(),
            queue: VecDeque::new(),
        }
    }

    fn in_flight(&self) -> usize {
        self.working.len() + self.queue.len()
    }

    fn begin(&mut self, came: f64) {
        let waiting = (self.in_flight()).saturating_sub(self.application.workers) as f64;
        let slower = 1.0 + self.application.thrash * waiting / self.application.workers as f64;
        let ends = self.now + self.application.service.time(&mut self.random) * slower;
        self.working.push(Reverse((nanos(ends), nanos(came))));
    }

    fn arrive(&mut self) -> bool {
        let allowed = self.limit.as_ref().map_or(usize::MAX, |limit| limit.allowed() as usize);
        if self.in_flight() >= allowed {
            return false;
        }
        if self.working.len() < self.application.workers {
            self.begin(self.now);
        } else {
            self.queue.push_back(self.now);
        }
        true
    }

    /// The next request is answered; how long it took.
    fn answer(&mut self) -> f64 {
        let in_flight = self.in_flight() as u32;
        let Some(Reverse((_, came))) = self.working.pop() else { return 0.0 };
        let latency = self.now - came as f64 / 1e9;
        if let Some(limit) = &self.limit {
            let at = self.began + Duration::from_secs_f64(self.now);
            limit.answered(Duration::from_secs_f64(latency.max(0.0)), in_flight, at);
        }
        while self.working.len() < self.application.workers
            && let Some(came) = self.queue.pop_front()
        {
            self.begin(came);
        }
        latency
    }

    /// So many requests a second for so many seconds.
    fn run(&mut self, rate: f64, seconds: f64) -> Seen {
        let (until, mut seen) = (self.now + seconds, Seen::default());
        let (mut allowed, mut arrivals) = (0.0, 0.0);
        let mut next = self.now + exponential(1.0 / rate, &mut self.random);
        loop {
            let ends = self.working.peek().map_or(f64::MAX, |Reverse((ends, _))| *ends as f64 / 1e9);
            if next.min(ends) > until {
                break;
            }
            if ends <= next {
                self.now = ends;
                let latency = self.answer();
                seen.answered += 1.0;
                seen.slowest = latency.max(seen.slowest);
            } else {
                self.now = next;
                seen.refused += f64::from(u8::from(!self.arrive()));
                next += exponential(1.0 / rate, &mut self.random);
                allowed += self.limit.as_ref().map_or(0.0, |limit| f64::from(limit.allowed()));
                arrivals += 1.0;
            }
        }
        self.now = until;
        Seen {
            answered: seen.answered / seconds,
            refused: seen.refused / seconds,
            allowed: allowed / arrivals,
            ..seen
        }
    }
}

const SERVICES: [Service; 5] = [
    Service::Fixed(0.01),
    Service::Jittery(0.01),
    Service::Jittery(0.1),
    Service::Mixed(0.005),
    Service::Fixed(0.001),
];

/// Each seed, kind of service and size of application.
fn all(mut test: impl FnMut(Application, u64)) {
    for seed in [1, 2] {
        for service in SERVICES {
            for workers in [4, 20, 100] {
                // What a simulation costs goes by the number of its requests.
                if workers as f64 / service.mean() < 25_000.0 {
                    test(Application::new(workers, service), seed);
                }
            }
        }
    }
}

#[test]
fn at_three_times_the_capacity_goodput_stays() {
    let mut least = f64::MAX;
    all(|application, seed| {
        let (capacity, workers, mean) =
            (application.capacity(), application.workers, application.service.mean());
        let mut world = World::new(application, seed);
        // What it is told by are answers: where there are few in a second, it takes longer.
        world.run(capacity * 3.0, 10.0 + 2000.0 / capacity);
        let seen = world.run(capacity * 3.0, 20.0);
        let share = seen.answered / capacity;
        least = share.min(least);
        assert!(share > 0.9, "{workers} workers of {mean} s, seed {seed}: {share:.3} {seen:?}");
        // What is let in is not queued for long.
        let most = workers as f64 * 2.5 + 12.0;
        assert!(seen.allowed < most, "{workers} workers of {mean} s, seed {seed}: {seen:?}");
    });
    println!("least goodput at three times the capacity: {least:.3} of the capacity");
}

#[test]
fn where_a_queue_costs_goodput_the_limit_saves_it() {
    let application = || Application { thrash: 0.1, ..Application::new(20, Service::Jittery(0.01)) };
    let capacity = application().capacity();
    let mut world = World::new(application(), 7);
    world.run(capacity * 3.0, 10.0);
    let with = world.run(capacity * 3.0, 20.0);
    let mut world = World::new(application(), 7);
    world.limit = None;
    world.run(capacity * 3.0, 10.0);
    let without = world.run(capacity * 3.0, 20.0);
    assert!(with.answered > capacity * 0.9, "{with:?}");
    assert!(without.answered < capacity * 0.5, "{without:?}");
}

#[test]
fn nobody_is_refused_where_there_is_room() {
    all(|application, seed| {
        let (capacity, workers, mean) =
            (application.capacity(), application.workers, application.service.mean());
        let mut world = World::new(application, seed);
        // The load comes and goes.
        world.run(capacity * 0.3, 10.0);
        for share in [0.1, 0.4, 0.2, 0.6] {
            let seen = world.run(capacity * share, 10.0);
            let refused = seen.refused / (capacity * share);
            assert!(refused < 0.01, "{workers} workers of {mean} s, seed {seed}, {share}: {seen:?}");
        }
    });
}

#[test]
fn it_follows_a_capacity_that_grows_and_shrinks() {
    for seed in 1..=5 {
        let mut world = World::new(Application::new(10, Service::Jittery(0.01)), seed);
        world.run(3000.0, 10.0);
        world.application.workers = 40;
        world.run(12_000.0, 5.0);
        let grown = world.run(12_000.0, 10.0);
        assert!(grown.answered > 4000.0 * 0.9, "{grown:?}");
        world.application.workers = 10;
        world.run(12_000.0, 5.0);
        let shrunk = world.run(12_000.0, 10.0);
        assert!(shrunk.answered > 1000.0 * 0.9 && shrunk.allowed < 45.0, "{shrunk:?}");
    }
}

#[test]
fn an_application_that_becomes_slower_by_itself_is_not_choked() {
    for seed in 1..=5 {
        let mut world = World::new(Application::new(20, Service::Jittery(0.01)), seed);
        world.run(6000.0, 10.0);
        // Its database takes four times as long.
        world.application.service = Service::Jittery(0.04);
        world.run(1500.0, 5.0);
        let slower = world.run(1500.0, 15.0);
        assert!(slower.answered > 500.0 * 0.9, "{slower:?}");
    }
}

#[test]
fn a_limit_learned_under_overload_comes_down() {
    // It is overloaded from the first request on: nobody has ever seen its pace.
    for seed in 1..=5 {
        let mut world = World::new(Application::new(4, Service::Jittery(0.02)), seed);
        world.run(1000.0, 30.0);
        let seen = world.run(1000.0, 20.0);
        assert!(seen.answered > 200.0 * 0.9 && seen.allowed < 20.0, "{seen:?}");
    }
}

#[test]
fn bounds_are_kept() {
    let spec = AdaptiveConcurrency { min: 10, max: 30, tolerance_percent: 150 };
    let began = Instant::now();
    let limit = Adaptive::new(&spec, 25, began, Rng::with_seed(1));
    let mut random = Rng::with_seed(2);
    for step in 0..200_000u32 {
        let latency = Duration::from_micros(random.u64(100..100_000));
        limit.answered(latency, random.u32(1..100), began + Duration::from_millis(step.into()));
        assert!((10..=25).contains(&limit.allowed()), "{}", limit.allowed());
    }
}

#[test]
fn where_nobody_is_answered_in_time_the_limit_falls_all_the_same() {
    let began = Instant::now();
    let spec = AdaptiveConcurrency::default();
    let limit = Adaptive::new(&spec, spec.max, began, Rng::with_seed(1));
    let millis = Duration::from_millis;
    for step in 0..2000 {
        limit.answered(millis(10), limit.allowed(), began + millis(step));
    }
    let before = limit.allowed();
    for step in 2000..40_000 {
        let (allowed, now) = (limit.allowed(), began + millis(step));
        limit.abandoned(millis(5), allowed, now);
        limit.abandoned(millis(10 * u64::from(allowed)), allowed, now);
    }
    assert!(limit.allowed() < before / 2, "{before} {}", limit.allowed());
}

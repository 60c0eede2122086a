//! Subjects under the same loads, in turn: all are started, and then each is measured while the others are idle.

use std::time::Duration;

use anyhow::Result;

use super::{
    Contender, Part, Timing, Turns,
    book::Book,
    order,
    progress::Progress,
    run::{Application, Surroundings, skipped},
};
use crate::{
    load::{Arrivals, Callers, Load, Measured},
    process::Usage,
    result::{Sample, Spent},
    subject::{Subject, Syscalls},
};

/// How long system calls are counted.
pub(super) const COUNTING: Duration = Duration::from_millis(100);

/// A subject that takes turns.
struct Racer<'a> {
    contender: &'a Contender,
    subject: Subject,
    /// It has ended, or in a sweep met what it cannot take.
    out: bool,
}

/// The work of one part.
pub(super) struct Race<'a> {
    part: &'a Part,
    work: &'a Turns,
    around: &'a Surroundings<'a>,
    book: &'a mut Book,
    progress: &'a Progress,
}

pub(super) async fn run(
    part: &Part,
    work: &Turns,
    around: &Surroundings<'_>,
    book: &mut Book,
    progress: &Progress,
) -> Result<()> {
    Race { part, work, around, book, progress }.run().await
}

impl Race<'_> {
    async fn run(mut self) -> Result<()> {
        let Some(first) = self.work.loads.first() else { return Ok(()) };
        self.book.begin(self.part, Some(first));
        let application = self.around.application(first).await?;
        let mut racers = self.enter(&application).await;
        let legs = if self.work.timing.back { 2 } else { 1 };
        for leg in 0..legs * self.work.timing.repetitions {
            let repetition = leg / legs;
            for (step, load) in (0_u32..).zip(&self.work.loads) {
                // The same arrivals for all, and others in the next repetition.
                let load = Load { seed: load.seed + u64::from(repetition) * 1000, ..load.clone() };
                for index in order::turns(racers.len(), leg + step) {
                    if let Some(racer) = racers.get_mut(index).filter(|racer| !racer.out) {
                        self.turn(racer, &load, repetition).await;
                    }
                }
            }
        }
        if self.work.loads.len() == 1 {
            self.system_calls(first, &racers).await;
        }
        Ok(())
    }

    /// Counts system calls: apart from all samples, as every one of them takes longer meanwhile.
    async fn system_calls(&mut self, load: &Load, racers: &[Racer<'_>]) {
        for racer in racers.iter().filter(|racer| !racer.out && !racer.subject.processes.is_empty()) {
            let name = &racer.contender.name;
            self.progress.say(format_args!("{name}, system calls"));
            match self.count(load, racer).await {
                Ok(calls) => self.book.set_system_calls(name, calls),
                Err(why) => self.book.skip("system calls", why),
            }
        }
    }

    /// System calls for each request.
    async fn count(&self, load: &Load, racer: &Racer<'_>) -> Result<f64, String> {
        let told = |error: anyhow::Error| format!("{error:#}");
        // Whether it is possible, before anything is done for it.
        drop(Syscalls::of(&racer.subject)?);
        let target = self.around.target(&racer.subject, load);
        let mut callers = Callers::connect(load, &target).await.map_err(told)?;
        callers.run(COUNTING / 2).await.map_err(told)?;
        let mut calls = Syscalls::of(&racer.subject)?;
        let measured = callers.run(COUNTING).await.map_err(told)?;
        let calls = calls.count().map_err(|error| error.to_string())?;
        Ok(calls as f64 / measured.answered.max(1) as f64)
    }

    /// Starts those that can be started.
    async fn enter<'w>(&mut self, application: &Application) -> Vec<Racer<'w>>
    where
        Self: 'w,
    {
        let mut racers = Vec::new();
        for contender in &self.work.contenders {
            self.progress.say(format_args!("starting {}", contender.name));
            match self.around.start(contender, application).await {
                Ok(subject) => {
                    self.book.enter(contender, Some(&subject));
                    racers.push(Racer { contender, subject, out: false });
                }
                Err(why) => self.book.skip(skipped(self.part, contender), why),
            }
        }
        racers
    }

    /// One turn. A sample that does not count is taken once more; in a sweep it is the end of the subject's way.
    async fn turn(&mut self, racer: &mut Racer<'_>, load: &Load, repetition: u32) {
        let sweep = self.work.loads.len() > 1;
        let rate = match load.arrivals.rate() {
            Some(rate) if sweep => format!(" at {rate}/s"),
            _ => String::new(),
        };
        let name = &racer.contender.name;
        let of = self.work.timing.repetitions;
        self.progress.say(format_args!("{name}{rate}, {} of {of}", repetition + 1));
        for attempt in 0..2 {
            match self.sample(racer, load, repetition).await {
                Ok(false) => return,
                Ok(true) if attempt == 0 => self.progress.say(format_args!("{name}, once more")),
                Ok(true) => racer.out = sweep,
                // Whatever is wrong with one, the others go on.
                Err(error) => {
                    racer.out = true;
                    let what = skipped(self.part, racer.contender);
                    self.progress.note(format_args!("{what}: {error:#}"));
                    self.book.fail(what, format!("{error:#}"));
                    return;
                }
            }
        }
    }

    /// Whether it was rejected.
    async fn sample(&mut self, racer: &Racer<'_>, load: &Load, repetition: u32) -> Result<bool> {
        let Timing { warm_up, sample, .. } = self.work.timing;
        let at = self.book.now();
        let Taken { measured, spent, resident_kib } =
            take(&racer.subject, load, self.around, warm_up, sample).await?;
        let mut sample = Sample::new(repetition, at, load, &measured, spent, resident_kib);
        sample.rejected = measured.rejected(load);
        let rejected = !sample.counts();
        self.book.push(&racer.contender.name, sample, Some(&measured));
        Ok(rejected)
    }
}

/// What one sample has shown.
pub(super) struct Taken {
    pub(super) measured: Measured,
    pub(super) spent: Option<Spent>,
    pub(super) resident_kib: Option<u64>,
}

/// Connects, warms up, and takes a sample.
pub(super) async fn take(
    subject: &Subject,
    load: &Load,
    around: &Surroundings<'_>,
    warm_up: Duration,
    sample: Duration,
) -> Result<Taken> {
    let mut callers = Callers::connect(load, &around.target(subject, load)).await?;
    callers.stay_awake(around.environment.cpus.is_some() && load.arrivals != Arrivals::Saturated);
    callers.run(warm_up).await?;
    let before = subject.usage()?;
    let measured = callers.run(sample).await?;
    let after = subject.usage()?;
    let has_processes = !subject.processes.is_empty();
    Ok(Taken {
        spent: (has_processes && measured.answered > 0)
            .then(|| spent(&after.since(&before), measured.answered)),
        resident_kib: has_processes.then(|| subject.resident_kib()).transpose()?,
        measured,
    })
}

fn spent(usage: &Usage, requests: u64) -> Spent {
    let each = |sum: f64| sum / requests as f64;
    let cpu = each(usage.cpu.as_secs_f64() * 1e6);
    let user = cpu * usage.user_share().unwrap_or_default();
    Spent {
        cpu,
        user,
        system: cpu - user,
        voluntary_switches: each(usage.voluntary_switches as f64),
        involuntary_switches: each(usage.involuntary_switches as f64),
        syscalls: None,
    }
}

//! What is going on, on standard error: a bar where somebody looks at it, a line for each part where not.

use std::{
    fmt,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plan::{Plan, estimate, spell};

/// How far a run is.
pub struct Progress {
    /// None where standard error is no terminal.
    bar: Option<ProgressBar>,
    clock: Clock,
    parts: usize,
    part: usize,
}

impl Progress {
    /// Of a run that does `plan` and starts now.
    pub fn new(plan: &Plan) -> Self {
        let clock = Clock::new(plan.parts.iter().map(estimate).collect());
        let bar = io::stderr().is_terminal().then(|| {
            let target = ProgressDrawTarget::stderr_with_hz(4);
            let bar = ProgressBar::with_draw_target(Some(clock.total().as_millis() as u64), target);
            // Both templates are constants without mistakes.
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {prefix} {wide_msg}") {
                bar.set_style(style.progress_chars("━╸─"));
            }
            bar
        });
        Self { bar, clock, parts: plan.parts.len(), part: 0 }
    }

    /// The next part begins.
    pub fn part(&mut self, name: &str) {
        self.part += 1;
        self.clock.next(Instant::now());
        match &self.bar {
            Some(bar) => {
                bar.set_prefix(format!("{}/{} {name}", self.part, self.parts));
                self.say("starting");
            }
            None => {
                let left = spell(self.clock.left(Instant::now()));
                eprintln!("outrigger-bench: {}/{} {name}; {left} left", self.part, self.parts);
            }
        }
    }

    /// What is done now, within the part.
    pub fn say(&self, what: impl fmt::Display) {
        if let Some(bar) = &self.bar {
            let left = self.clock.left(Instant::now());
            bar.set_position(self.clock.total().saturating_sub(left).as_millis() as u64);
            bar.set_message(format!("{what}; {} left", spell(left)));
        }
    }

    /// A line that stays.
    pub fn note(&self, what: impl fmt::Display) {
        let line = format!("outrigger-bench: {what}");
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How much is left of parts whose lengths were estimated.
struct Clock {
    /// Of the parts that have not begun.
    waiting: std::collections::VecDeque<Duration>,
    /// When the current part began, and how long it was to take.
    current: Option<(Instant, Duration)>,
    total: Duration,
}

impl Clock {
    fn new(estimates: Vec<Duration>) -> Self {
        Self { total: estimates.iter().sum(), waiting: estimates.into(), current: None }
    }

    fn total(&self) -> Duration {
        self.total
    }

    fn next(&mut self, now: Instant) {
        self.current = self.waiting.pop_front().map(|estimate| (now, estimate));
    }

    fn left(&self, now: Instant) -> Duration {
        let current =
            self.current.map(|(began, estimate)| estimate.saturating_sub(now.duration_since(began)));
        current.unwrap_or_default() + self.waiting.iter().sum::<Duration>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_that_of_this_part_and_of_those_to_come() {
        let seconds = Duration::from_secs;
        let start = Instant::now();
        let mut clock = Clock::new(vec![seconds(10), seconds(20)]);
        assert_eq!(clock.left(start), seconds(30));
        clock.next(start);
        assert_eq!(clock.left(start + seconds(4)), seconds(26));
        // One that takes longer than was thought does not take from the others.
        assert_eq!(clock.left(start + seconds(15)), seconds(20));
        clock.next(start + seconds(15));
        assert_eq!(clock.left(start + seconds(16)), seconds(19));
        clock.next(start + seconds(40));
        assert_eq!((clock.left(start + seconds(40)), clock.total()), (seconds(0), seconds(30)));
    }
}

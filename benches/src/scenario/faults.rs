//! What fails while things change under load.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

use super::{
    Part,
    book::Book,
    parts,
    progress::Progress,
    run::{Surroundings, give_up},
};
use crate::{
    fault::{self, Fault},
    result::Sample,
    subject::Hops,
};

pub(super) async fn run(
    part: &Part,
    time: Duration,
    around: &Surroundings<'_>,
    book: &mut Book,
    progress: &Progress,
) -> Result<()> {
    book.begin(part, Some(&fault::load()));
    for fault in Fault::value_variants() {
        let mut contender = parts::outrigger(around.wanted);
        contender.name = name(*fault);
        if *fault == Fault::Certificates {
            contender.setup.hops = Hops::Two;
        }
        progress.say(&contender.name);
        let at = book.now();
        match fault::run(*fault, around.environment, time).await {
            Ok(outcome) => {
                book.enter(&contender, None);
                let answered = outcome.requests.saturating_sub(outcome.errors);
                let seconds = time.as_secs_f64();
                let sample = Sample {
                    asked_rate: fault::load().arrivals.rate(),
                    rate: answered as f64 / seconds,
                    answered,
                    errors: outcome.errors,
                    first_error: outcome.first_error,
                    ..Sample::idle(0, at, seconds, None)
                };
                book.push(&contender.name, sample, None);
                let slowest = outcome.slowest.as_secs_f64() * 1e3;
                let told = format!(
                    "{} {}, the slowest answer took {slowest:.1} ms",
                    outcome.changes,
                    fault.changes()
                );
                book.remark(&contender.name, told);
            }
            Err(error) => give_up(book, part, &contender, format!("{error:#}")),
        }
    }
    Ok(())
}

/// As the command line would have it.
fn name(fault: Fault) -> String {
    fault.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::figures::{GOALS, Source};

    #[test]
    fn every_fault_has_a_figure() {
        for fault in Fault::value_variants() {
            let name = name(*fault);
            let is = |source| matches!(source, Source::Errors { of, .. } if of == name);
            assert!(GOALS.iter().any(|goal| is(goal.source)), "{name}");
        }
    }
}

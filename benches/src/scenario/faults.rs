//! What fails while things change under load.

use std::time::Duration;

use anyhow::Result;

use super::{
    Part,
    book::Book,
    parts,
    progress::Progress,
    run::{Surroundings, give_up},
};
use crate::{
    fault::{self, Fault, Outcome},
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
    let load = fault::load();
    book.begin(part, Some(&load));
    for (fault, name) in Fault::ALL {
        let mut contender = parts::outrigger(around.wanted);
        contender.name = name.into();
        if fault == Fault::Certificates {
            contender.setup.hops = Hops::Two;
        }
        progress.say(name);
        let at = book.now();
        match fault::run(fault, around.environment, time).await {
            Ok(Outcome { measured, changes }) => {
                book.enter(&contender, None);
                // Requests that fail count, however late the generator was.
                book.push(name, Sample::new(0, at, &load, &measured, None, None), Some(&measured));
                let slowest = Duration::from_nanos(measured.latency.max());
                let told = format!("{changes} {}, the slowest answer took {slowest:.1?}", fault.changes());
                book.remark(name, told);
            }
            Err(error) => give_up(book, part, &contender, format!("{error:#}")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::figures::{GOALS, Source};

    #[test]
    fn every_fault_has_a_figure() {
        for (_, name) in Fault::ALL {
            let is = |source| matches!(source, Source::Errors { of, .. } if of == name);
            assert!(GOALS.iter().any(|goal| is(goal.source)), "{name}");
        }
    }
}

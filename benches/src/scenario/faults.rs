//! Changes under load.

use std::time::Duration;

use super::{Part, book::Book, parts, progress::Progress, run::Surroundings};
use crate::{
    fault::{self, Fault, Outcome},
    result::Sample,
    subject,
};

pub(super) async fn run(
    part: &Part,
    time: Duration,
    around: &Surroundings<'_>,
    book: &mut Book,
    progress: &Progress,
) {
    let contender = parts::outrigger(around.wanted);
    if let Err(why) = subject::available(&contender.kind, &contender.setup, around.environment) {
        return book.fail(&part.name, why);
    }
    let load = fault::load();
    book.begin(part, Some(&load));
    for (fault, name) in Fault::ALL {
        progress.say(name);
        let at = book.now();
        let Outcome { measured, changes } = match fault::run(fault, around.environment, time).await {
            Ok(outcome) => outcome,
            Err(error) => {
                progress.note(format_args!("{name} in {}: {error:#}", part.name));
                book.fail(format!("{name} in {}", part.name), format!("{error:#}"));
                continue;
            }
        };
        let slowest = Duration::from_nanos(measured.latency.max());
        progress.note(format_args!(
            "{}: {changes} {}, slowest answer {slowest:.1?}",
            part.name,
            fault.changes()
        ));
        // Failures count, however late the generator was.
        let sample = Sample::new(0, at, &load, &measured, None, None);
        book.enter_as(name, &contender, None);
        book.push(name, sample, Some(&measured));
    }
}

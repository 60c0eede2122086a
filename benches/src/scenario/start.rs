//! From the start of a process to its first answer.

use anyhow::Result;

use super::{
    Contender, Part,
    book::Book,
    parts,
    progress::Progress,
    run::{Surroundings, give_up},
};
use crate::{
    result::Sample,
    subject::{available, first_answer},
};

pub(super) async fn run(
    part: &Part,
    contenders: &[Contender],
    times: u32,
    around: &Surroundings<'_>,
    book: &mut Book,
    progress: &Progress,
) -> Result<()> {
    book.begin(part, None);
    let application = around.application(&parts::at_rate(parts::RATE)).await?;
    let environment = &application.environment;
    let mut failed = Vec::new();
    for repetition in 0..times {
        for contender in contenders {
            let Contender { name, kind, setup, .. } = contender;
            if failed.contains(&name) {
                continue;
            }
            progress.say(format_args!("{name}, {} of {times}", repetition + 1));
            let at = book.now();
            let first = match available(kind, setup, environment) {
                Ok(_) => first_answer(kind, setup, environment, around.dir).await,
                Err(why) => Err(anyhow::Error::msg(why)),
            };
            match first {
                Ok(time) => {
                    if repetition == 0 {
                        book.enter(contender, None);
                    }
                    let seconds = time.as_secs_f64();
                    book.push(name, Sample::idle(repetition, at, seconds, None), None);
                }
                Err(error) => {
                    failed.push(name);
                    give_up(book, part, contender, format!("{error:#}"));
                }
            }
        }
    }
    Ok(())
}

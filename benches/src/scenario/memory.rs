//! Resident memory of subjects: before the first connection, and with connections on which nothing is sent any more.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    Contender, Memory, Part,
    ask::ask,
    book::Book,
    parts,
    plan::SETTLE,
    progress::Progress,
    run::{Application, Surroundings, give_up},
};
use crate::result::Sample;

/// Descriptors that are needed besides those of held connections.
const SPARE: u64 = 1024;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn run(
    part: &Part,
    work: &Memory,
    around: &Surroundings<'_>,
    book: &mut Book,
    progress: &Progress,
) -> Result<()> {
    if work.connections > 0 {
        // Children inherit it.
        let connections = u64::from(work.connections);
        // Some proxies set two aside for each connection.
        if let Err(error) = raise_descriptors(connections + SPARE, 2 * connections + SPARE) {
            book.skip(&part.name, format!("{error:#}"));
            return Ok(());
        }
    }
    book.begin(part, None);
    let application = around.application(&parts::at_rate(parts::RATE)).await?;
    let mut failed = Vec::new();
    for repetition in 0..work.times {
        for contender in &work.contenders {
            if failed.contains(&&contender.name) {
                continue;
            }
            progress.say(format_args!("{}, {} of {}", contender.name, repetition + 1, work.times));
            if let Err(why) = once(contender, work, repetition, around, &application, book).await {
                failed.push(&contender.name);
                give_up(book, part, contender, why);
            }
        }
    }
    Ok(())
}

async fn once(
    contender: &Contender,
    work: &Memory,
    repetition: u32,
    around: &Surroundings<'_>,
    application: &Application,
    book: &mut Book,
) -> Result<(), String> {
    let at = book.now();
    let subject = around.start(contender, application).await?;
    if repetition == 0 {
        book.enter(contender, Some(&subject));
    }
    let held = hold(subject.address, work.connections).await.map_err(|error| format!("{error:#}"))?;
    sleep(SETTLE).await;
    let resident = subject.resident_kib().map_err(|error| format!("{error:#}"))?;
    check(&held).map_err(|error| format!("{error:#}"))?;
    drop(held);
    book.push(&contender.name, Sample::idle(repetition, at, book.now() - at, Some(resident)), None);
    Ok(())
}

/// Makes connections, one after the other, each with one request on it that is answered.
async fn hold(address: SocketAddr, connections: u32) -> Result<Vec<TcpStream>> {
    let mut held = Vec::with_capacity(connections as usize);
    for number in 1..=connections {
        let connection =
            timeout(PATIENCE, one(address)).await.context("no answer within 10 s").and_then(|one| one);
        held.push(connection.with_context(|| format!("connection {number} of {connections}"))?);
    }
    Ok(held)
}

/// Some proxies close idle connections to have room for new ones.
fn check(held: &[TcpStream]) -> Result<()> {
    let open = held.iter().filter(|stream| {
        let read = stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    });
    let open = open.count();
    ensure!(open == held.len(), "it has closed {} of {} connections", held.len() - open, held.len());
    Ok(())
}

async fn one(address: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let status = ask(&mut stream, "bench.local").await?;
    ensure!(status == 200, "the answer was {status}");
    Ok(stream)
}

/// Raises the limit of open files to `wanted`, if that may be, or else to what may be from `least` on.
fn raise_descriptors(least: u64, wanted: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let possible = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    ensure!(
        possible >= least,
        "it takes {least} open files and the limit is {possible}: raise it (`ulimit -Hn`, or as root)"
    );
    setrlimit(Resource::Nofile, Rlimit { current: Some(possible), ..limit })
        .with_context(|| format!("the limit of open files cannot be raised to {possible}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_many_files_it_takes() {
        let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        if most < u64::MAX {
            let error = raise_descriptors(most + 1, most + 1).unwrap_err().to_string();
            assert!(error.contains(&format!("the limit is {most}")), "{error}");
        }
        raise_descriptors(16, 16).unwrap();
    }
}

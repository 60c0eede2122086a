//! A large configuration that comes while requests do: when it goes live, and which requests are late because of it.

use std::{
    fmt::Write,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    Config, Contender, Part,
    ask::ask,
    book::Book,
    parts,
    progress::Progress,
    run::{Application, Surroundings},
};
use crate::{
    load::{Callers, Load},
    result::Sample,
    subject::Subject,
};

/// Samples of how long it took.
pub(super) const LIVE: &str = "live";
/// Samples of the load while it changed.
pub(super) const CHANGING: &str = "while it changes";
/// Samples of the load without a change.
pub(super) const UNCHANGED: &str = "without a change";
/// When a request is late.
const LATE: Duration = Duration::from_millis(1);
/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked at whether it is live: what the figure may be too large by.
const LOOK: Duration = Duration::from_millis(1);
/// The host that only the large configuration has a route for.
const LARGE: &str = "large.bench.local";
/// Endpoints of one backend.
const ENDPOINTS: u32 = 10;

pub(super) async fn run(
    part: &Part,
    work: &Config,
    around: &Surroundings<'_>,
    book: &mut Book,
    progress: &Progress,
) -> Result<()> {
    let contender = parts::outrigger(around.wanted);
    let application = around.application(&work.load).await?;
    let changing = Changing::start(work, &contender, around, &application).await?;
    book.begin(part, Some(&work.load));
    for name in [LIVE, CHANGING, UNCHANGED] {
        book.enter_as(name, &contender, Some(&changing.subject));
    }
    for repetition in 0..work.times {
        progress.say(format_args!("{} of {}", repetition + 1, work.times));
        let load = Load { seed: work.load.seed + u64::from(repetition) * 1000, ..work.load.clone() };
        // A B B A, as everywhere.
        let order = if repetition.is_multiple_of(2) { [true, false] } else { [false, true] };
        for change in order {
            sample(&changing, &load, work, repetition, change, around, book).await?;
        }
    }
    Ok(())
}

async fn sample(
    changing: &Changing,
    load: &Load,
    work: &Config,
    repetition: u32,
    change: bool,
    around: &Surroundings<'_>,
    book: &mut Book,
) -> Result<()> {
    let mut callers = Callers::connect(load, &around.target(&changing.subject, load)).await?;
    callers.stay_awake(around.environment.cpus.is_some());
    changing.prepare(change)?;
    callers.run(work.window / 4).await?;
    let at = book.now();
    let measured = if change {
        let (measured, live) = tokio::join!(callers.run(work.window), async {
            sleep(work.window / 4).await;
            changing.change(true).await
        });
        let live = live?;
        book.push(LIVE, Sample::idle(repetition, at, live.as_secs_f64(), None), None);
        let measured = measured?;
        // Back again, when nobody looks.
        changing.prepare(false)?;
        changing.change(false).await?;
        measured
    } else {
        callers.run(work.window).await?
    };
    let mut sample = Sample::new(repetition, at, load, &measured, None, None);
    sample.rejected = measured.rejected(load);
    book.push(if change { CHANGING } else { UNCHANGED }, sample, Some(&measured));
    Ok(())
}

/// How many of these are late.
pub(super) fn late(latency: &Histogram<u64>) -> u64 {
    latency.count_between(LATE.as_nanos() as u64, u64::MAX)
}

/// A proxy whose file is replaced by another, and back.
struct Changing {
    subject: Subject,
    file: PathBuf,
    small: String,
    large: String,
}

impl Changing {
    async fn start(
        work: &Config,
        contender: &Contender,
        around: &Surroundings<'_>,
        application: &Application,
    ) -> Result<Self> {
        let subject = around.start(contender, application).await.map_err(anyhow::Error::msg)?;
        let (name, small) = subject.configuration.first().cloned().context("the proxy has no file")?;
        let file = subject.folder().context("the proxy has no folder")?.join(name);
        let large = enlarged(&small, work.routes).context("the proxy's file has no routes and backends")?;
        Ok(Self { subject, file, small, large })
    }

    /// Writes the other file, beside the one that the proxy has.
    fn prepare(&self, large: bool) -> Result<()> {
        let text = if large { &self.large } else { &self.small };
        fs::write(self.staged(), text).with_context(|| format!("cannot write {}", self.staged().display()))
    }

    fn staged(&self) -> PathBuf {
        self.file.with_extension("new")
    }

    /// Puts the other file in the place of the one that the proxy has, and waits until it is live. Returns how long that took.
    async fn change(&self, large: bool) -> Result<Duration> {
        let mut probe = TcpStream::connect(self.subject.address).await?;
        let began = Instant::now();
        fs::rename(self.staged(), &self.file)
            .with_context(|| format!("cannot write {}", self.file.display()))?;
        let live = async {
            while (ask(&mut probe, LARGE).await? == 302) != large {
                sleep(LOOK).await;
            }
            anyhow::Ok(began.elapsed())
        };
        timeout(PATIENCE, live).await.context("a configuration did not go live within 20 s")?
    }
}

/// `small` with so many routes more, and as many endpoints of other backends. Nothing is sent to those. The first of the
/// routes tells [`LARGE`] from all others.
fn enlarged(small: &str, routes: u32) -> Option<String> {
    let (before, rest) = small.split_once("httpRoutes:\n")?;
    let (own, backends) = rest.split_once("backends:\n")?;
    let mut text = format!(
        "{before}httpRoutes:\n  - {{ name: {LARGE}, listeners: [bench], hostnames: [{LARGE}], rules: [{{ filters: \
         [{{ type: RequestRedirect, requestRedirect: {{ path: {{ type: ReplaceFullPath, replaceFullPath: / }} }} }}] }}] }}\n"
    );
    let others = (routes / ENDPOINTS).max(1);
    for n in 1..routes {
        let (host, one, two) = (n % 100, n % others, (n + 1) % others);
        let _ = writeln!(
            text,
            "  - {{ name: r{n}, listeners: [bench], hostnames: [h{host}.bench.local], rules: [{{ matches: [{{ path: \
             {{ type: PathPrefix, value: /service-{n} }}, headers: [{{ name: x-env, value: e{n} }}] }}], backendRefs: \
             [{{ name: b{one}, weight: 9 }}, {{ name: b{two} }}], timeouts: {{ request: 10s }} }}] }}"
        );
    }
    text += own;
    text += "backends:\n";
    text += backends;
    for n in 0..others {
        let address = |e| format!("{{ address: '10.{}.{}.{e}:8080' }}", n / 256, n % 256);
        let endpoints: Vec<_> = (0..ENDPOINTS).map(address).collect();
        let _ = writeln!(text, "  - {{ name: b{n}, endpoints: [{}] }}", endpoints.join(", "));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_enlarged_by_as_many_routes_and_endpoints() {
        let small = "listeners:\n  - { name: bench, address: 127.0.0.1:0, protocol: HTTP }\nhttpRoutes:\n  \
            - { name: bench, listeners: [bench], rules: [{ backendRefs: [{ name: app }] }] }\nbackends:\n  \
            - { name: app, endpoints: [{ address: '127.0.0.1:80' }] }\n";
        let text = enlarged(small, 100).unwrap();
        let file = outrigger_config::file::parse(&text).unwrap();
        assert!(file.rejected.is_empty() && file.warnings.is_empty(), "{file:?}\n{text}");
        assert_eq!(file.resources.len(), 3 + 100 + 10);
        assert_eq!(text.matches("address: '10.").count(), 100);
        assert_eq!(enlarged("tcpRoutes:\n", 100), None);
    }
}

//! The `outrigger-demo` command: a whole mesh on this machine, with traffic to look at.

mod screen;
mod story;
mod town;
mod traffic;
mod watch;

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use screen::Screen;
use story::Story;
use town::{HOST, Town};
use traffic::Traffic;
use watch::Watch;

/// How long certificates live, at least and at most. They are renewed at half of it.
const LIFETIME: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(20));

/// A whole mesh on this machine: a control API, a caller and an application in two versions, each with a sidecar.
///
/// Requests are sent at a constant rate while routes are changed, an application dies and comes back, and certificates
/// are renewed. No root, no container, no fixed port. Ctrl-C ends it.
#[derive(Debug, Parser)]
#[command(name = "outrigger-demo", version)]
struct Arguments {
    /// End after so many seconds; exit with 1 if a request failed, or something did not happen [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(6..=86_400))]
    seconds: Option<u32>,
    /// Requests in a second
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(50..=10_000))]
    rate: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("outrigger-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo; whether all went well.
async fn run(arguments: &Arguments) -> Result<bool> {
    let length = arguments.seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let lifetime = length.map_or(LIFETIME.1, |length| (length / 3).clamp(LIFETIME.0, LIFETIME.1));
    let town = Town::start(lifetime).await?;
    let mut screen = Screen::new();
    screen::print(&introduction(&screen, &town)?)?;
    let traffic = Traffic::start(town.outbound(), HOST, arguments.rate)?;
    let story = Story::new(&town, &traffic);
    let mut watch = Watch::new(&town, &traffic, &story);
    let interrupted = tokio::select! {
        told = story.tell(length) => told.map(|()| false)?,
        shown = watch.show(&mut screen) => shown.map(|()| false)?,
        ended = tokio::signal::ctrl_c() => ended.map(|()| true)?,
    };
    let mut view = watch.look();
    screen.show(&view)?;
    let mut verdicts = story.verdicts();
    if !interrupted || view.renewals > 0 {
        verdicts.push(watch.renewed());
    }
    view.seen = traffic.stop()?;
    screen::print(&screen.summary(&view, &verdicts))?;
    Ok(view.seen.failed == 0 && verdicts.iter().all(|verdict| verdict.holds))
}

/// What there is, and what to try meanwhile.
fn introduction(screen: &Screen, town: &Town) -> Result<String> {
    let (outbound, admin, rest) = (town.outbound(), town.admin()?, town.rest()?);
    let ways = [
        (format!("-H 'Host: {HOST}' http://{outbound}/"), "who answers?"),
        (format!("http://{admin}/metrics"), "the caller's metrics"),
        (format!("http://{admin}/config"), "the caller's config"),
        (format!("http://{rest}/v1/nodes"), "the sidecars"),
        (format!("http://{rest}/v1/httpRoutes/reviews"), "the route"),
    ];
    let width = ways.iter().map(|(arguments, _)| arguments.len()).max().unwrap_or_default();
    let mut text = screen.title("Outrigger: a service mesh on this machine");
    text.push_str("\n\n  shop → sidecar ═ mutual TLS ═ sidecar → reviews-1 and -2 (v1), -3 (v2)\n\n");
    text.push_str(&screen.title("Try meanwhile"));
    for (arguments, answer) in ways {
        let _ = write!(text, "\n  curl {arguments:width$}  {}", screen.dim(&format!("# {answer}")));
    }
    text.push_str("\n\n");
    Ok(text)
}

//! The `outrigger-demo` command: a whole mesh on this machine, with traffic to look at.

mod screen;
mod story;
mod town;
mod traffic;
mod watch;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use screen::Screen;
use story::Story;
use town::{HOST, Town};
use traffic::Traffic;
use watch::Watch;

/// How long certificates live where the demo has no end.
const LIFETIME: Duration = Duration::from_secs(20);

/// A whole mesh on this machine: a control API, a caller and an application in two versions, each with a sidecar.
///
/// Requests are sent at a constant rate while routes are changed, an application dies and comes back, and certificates
/// are renewed. No root, no container, no fixed port. Ctrl-C ends it.
#[derive(Debug, Parser)]
#[command(name = "outrigger-demo", version)]
struct Arguments {
    /// End after so many seconds; exit with 1 if a request failed, or something did not happen [default: never]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=86_400))]
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
    let lifetime = length.map_or(LIFETIME, |length| (length / 3).min(LIFETIME));
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
    let title = screen.title("Outrigger: a service mesh in this process");
    let ways = screen.title("Try meanwhile");
    Ok(format!(
        "{title}

  shop --> its sidecar == mutual TLS ==> sidecar --> reviews-1, reviews-2 (v1), reviews-3 (v2)

{ways}
  curl -H 'Host: {HOST}' http://{outbound}/   which version answers: ask again
  curl http://{admin}/metrics                what the caller's sidecar counts
  curl http://{admin}/config                 what it was told
  curl http://{rest}/v1/nodes                who runs which revision
  curl http://{rest}/v1/httpRoutes/reviews   the route

"
    ))
}

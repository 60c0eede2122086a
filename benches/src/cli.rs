//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    diff::{self, Speaks},
    instructions,
    load::{Connect, Tls, Traffic},
    page,
    scenario::{Contestant, Name, Overrides, Pattern, Wanted},
    subject::Peer,
};

/// What a proxy costs (latency, CPU, memory), and what it changes.
#[derive(Debug, Parser)]
#[command(name = "outrigger-bench", version, arg_required_else_help = true)]
pub struct Cli {
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measures, prints every figure with its target, and exits with 1 if a request failed or something could not be
    /// measured.
    Run(Box<RunArgs>),
    /// Compares the results of two runs, figure by figure and subject by subject.
    Compare(page::CompareArgs),
    /// Writes the pages of a run again, from its results.
    Report(page::ReportArgs),
    /// Finds out what a proxy changes: sends a corpus of exchanges with and without it, and exits with 1 if anything
    /// differs that may not.
    Diff(DiffArgs),
    /// Counts the instructions that the proxy needs for a request, and exits with 1 if they are more than the baseline
    /// has by over 2%.
    Instructions(instructions::Options),
    /// Copies bytes from one socket to another: the floor that `run` compares with.
    #[command(hide = true)]
    Forward(ForwardArgs),
}

/// Of the hidden `forward`.
#[derive(Debug, Args)]
pub struct ForwardArgs {
    /// Where to accept.
    #[arg(long)]
    pub listen: SocketAddr,
    /// Where to connect.
    #[arg(long)]
    pub to: SocketAddr,
}

/// Of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// What to measure [default: all that has figures with targets, and the curve; `custom`, if an option describes a
    /// load].
    #[arg(value_name = "SCENARIO", value_enum)]
    pub scenarios: Vec<Name>,
    /// Other proxies to compare with: nginx, haproxy, envoy, linkerd, each also as NAME=PATH; or any NAME=COMMAND with
    /// {listen} and {application} in it. What is missing is skipped.
    #[arg(long, value_name = "PROXY", value_delimiter = ',')]
    pub against: Vec<Peer>,
    /// Fewer and shorter samples: two minutes instead of twelve, and wider intervals.
    #[arg(long)]
    pub quick: bool,
    /// Length of a sample: `2s`, `500ms`, or seconds.
    #[arg(long, alias = "seconds", value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// How often each subject is measured.
    #[arg(long, alias = "rounds", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repetitions: Option<u32>,
    /// Where to write results [default: a new folder among the temporary ones].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Also write the results as JSON to FILE; `-`: to standard output, instead of the tables.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Only print the scenarios and how long each takes.
    #[arg(long)]
    pub list: bool,
    /// What `custom` measures besides --against [default: direct,outrigger,sidecars].
    #[arg(long, alias = "paths", value_name = "SUBJECT", value_enum, value_delimiter = ',')]
    pub subjects: Vec<Contestant>,
    /// The load, where it is not to be as the scenario has it.
    #[command(flatten)]
    pub load: LoadArgs,
    /// An application that runs already, instead of ours.
    #[arg(long, value_name = "ADDRESS")]
    pub to: Option<SocketAddr>,
    /// A proxy that runs already, and forwards to the application behind --to.
    #[arg(long, value_name = "ADDRESS")]
    pub through: Option<SocketAddr>,
    /// The host of requests to what --to and --through name.
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// The path of requests to what --to and --through name.
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// Workers of each proxy.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
    /// The proxy's binary [default: `outrigger` beside this program].
    #[arg(long, value_name = "PATH")]
    pub outrigger: Option<PathBuf>,
    /// A further argument for each `outrigger run`; may be given several times.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub proxy_arg: Vec<String>,
}

/// The load, where it is not to be as the scenario has it.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Load")]
pub struct LoadArgs {
    /// What is spoken.
    #[arg(long, value_enum, alias = "protocol", value_name = "KIND")]
    pub traffic: Option<Traffic>,
    /// Requests in a second.
    #[arg(long, value_name = "R", value_parser = rate)]
    pub rate: Option<f64>,
    /// How requests come.
    #[arg(long, value_enum, value_name = "HOW")]
    pub arrivals: Option<Pattern>,
    /// Short for --arrivals saturated.
    #[arg(long, hide = true, conflicts_with_all = ["arrivals", "rate"])]
    pub saturate: bool,
    /// Connections.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub connections: Option<u32>,
    /// Requests at a time on each connection of HTTP/2 and gRPC.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub streams: Option<u32>,
    /// Bytes of each request's content; 0: GET.
    #[arg(long, value_name = "N")]
    pub request_bytes: Option<usize>,
    /// Bytes of each response's content.
    #[arg(long, value_name = "N")]
    pub response_bytes: Option<usize>,
    /// Which connection a request is sent on.
    #[arg(long, value_enum, value_name = "WHICH")]
    pub connect: Option<Connect>,
    /// TLS between callers and proxy.
    #[arg(long, value_enum, value_name = "HOW")]
    pub tls: Option<Tls>,
}

impl LoadArgs {
    fn overrides(self) -> Overrides {
        Overrides {
            traffic: self.traffic,
            rate: self.rate,
            arrivals: if self.saturate { Some(Pattern::Saturated) } else { self.arrivals },
            connections: self.connections,
            streams: self.streams,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            connect: self.connect,
            tls: self.tls,
        }
    }
}

impl RunArgs {
    /// What is wanted. An option that describes a load, or names something that runs already, without a scenario means
    /// `custom`: the figures with targets are for the loads that they name.
    pub fn wanted(&self) -> Wanted {
        let load = self.load.overrides();
        let foreign = self.to.is_some() || self.through.is_some();
        let scenarios = if !self.scenarios.is_empty() {
            let mut scenarios = self.scenarios.clone();
            scenarios.sort_unstable();
            scenarios.dedup();
            scenarios
        } else if !load.is_empty() || foreign || !self.subjects.is_empty() {
            vec![Name::Custom]
        } else {
            Wanted::default().scenarios
        };
        Wanted {
            scenarios,
            peers: self.against.iter().map(|peer| peer.name.clone()).collect(),
            quick: self.quick,
            duration: self.duration,
            repetitions: self.repetitions,
            load,
            subjects: self.subjects.clone(),
            workers: self.workers,
            through: self.through,
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            foreign: self.to.is_some(),
        }
    }
}

/// Of `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Which paths [default: direct,proxy,sidecars].
    #[arg(long = "path", value_enum, value_delimiter = ',')]
    pub paths: Vec<Way>,
    /// What callers speak [default: both; with --through http1].
    #[arg(long = "caller", value_enum, value_delimiter = ',')]
    pub callers: Vec<Speaks>,
    /// What the application speaks [default: both; with --through http1].
    #[arg(long = "application", value_enum, value_delimiter = ',')]
    pub applications: Vec<Speaks>,
    /// The exchanges with such a name alone; `*` stands for anything.
    #[arg(long, value_name = "NAME")]
    pub only: Option<String>,
    /// Only names the exchanges.
    #[arg(long)]
    pub list: bool,
    /// Only prints which differences are allowed, as a table in Markdown.
    #[arg(long)]
    pub allowed: bool,
    /// Prints what both ends saw, without the proxy (-) and with it (+), for each exchange that differs, and with
    /// --only for each.
    #[arg(long)]
    pub verbose: bool,
    /// Where to write the results as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Another proxy, which already runs: where it accepts. It must forward everything to --listen.
    #[arg(long, value_name = "ADDRESS", requires = "listen", conflicts_with = "paths")]
    pub through: Option<SocketAddr>,
    /// Where that proxy forwards to: the application is started there.
    #[arg(long, value_name = "ADDRESS", requires = "through")]
    pub listen: Option<SocketAddr>,
}

/// A path of `diff`.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Way {
    /// No proxy: shows that the exchanges themselves are right.
    Direct,
    /// One proxy.
    Proxy,
    /// Two sidecars, with mutual TLS between them.
    Sidecars,
}

impl From<Way> for diff::Path {
    fn from(way: Way) -> Self {
        match way {
            Way::Direct => Self::Direct,
            Way::Proxy => Self::Proxy,
            Way::Sidecars => Self::Sidecars,
        }
    }
}

/// `2s`, `500ms`, `1m`, or a number of seconds. A sample in which nothing is sent would report zeros as if they had been
/// measured.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let scale = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        _ => return Err(format!("no unit `{unit}`: write 2s, 500ms or 1m")),
    };
    match number.trim().parse::<f64>().map(|number| number * scale) {
        Ok(seconds) if (0.01..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("not a time from 10ms to an hour".into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (1.0..=1e7).contains(&rate) => Ok(rate),
        _ => Err("not a number of requests in a second, from 1".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(line: &str) -> Result<RunArgs, clap::Error> {
        let words = ["outrigger-bench", "run"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words)?.command {
            Command::Run(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_scenario_all_that_has_targets_is_measured() {
        let wanted = run("--against nginx,haproxy --quick").unwrap().wanted();
        assert_eq!(wanted.scenarios, Wanted::default().scenarios);
        assert_eq!((wanted.peers, wanted.quick), (vec!["nginx".to_owned(), "haproxy".to_owned()], true));
    }

    #[test]
    fn an_option_that_describes_a_load_means_custom() {
        for line in ["--rate 5000", "--saturate", "--subjects direct", "--to 127.0.0.1:80", "--tls full"] {
            assert_eq!(run(line).unwrap().wanted().scenarios, [Name::Custom], "{line}");
        }
        let wanted = run("latency --rate 5000 --seconds 10").unwrap().wanted();
        assert_eq!(wanted.scenarios, [Name::Latency]);
        assert_eq!((wanted.load.rate, wanted.duration), (Some(5000.0), Some(Duration::from_secs(10))));
    }

    #[test]
    fn a_scenario_that_there_is_not_is_refused_with_what_was_meant() {
        let error = run("latncy").unwrap_err().to_string();
        assert!(error.contains("a similar value exists: 'latency'"), "{error}");
    }

    #[test]
    fn times_have_units() {
        let spelled = ["2s", "500ms", "1.5", "1m"].map(|text| duration(text).unwrap().as_millis());
        assert_eq!(spelled, [2000, 500, 1500, 60_000]);
        for text in ["0", "0s", "2h", "x", "-1s", ""] {
            duration(text).unwrap_err();
        }
    }
}

//! The `outrigger-control` command: the server, and its client for people and scripts.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use outrigger_config::{Duration, Name, SpiffeId};

mod apply;
mod client;
mod serve;
mod show;

use client::Client;

/// The control API of a mesh, and its client.
#[derive(Debug, Parser)]
#[command(name = "outrigger-control", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the control API on its embedded store.
    Serve(ServeArgs),
    /// Puts every resource of a file, as one change.
    Apply {
        /// The file, in the configuration language, or resources as JSON; `-`: standard input.
        #[arg(short, long)]
        file: PathBuf,
        /// Wait so long until every connected node has it, and fail if one refuses an object.
        #[arg(long, value_name = "TIME")]
        wait: Option<Duration>,
        #[command(flatten)]
        server: ServerArg,
    },
    /// Shows resources: all, those of a kind, or one.
    Get {
        /// The kind: listeners, httpRoutes, grpcRoutes, tlsRoutes, tcpRoutes, backends or certificates.
        kind: Option<String>,
        /// The name; the resource is then shown as a file that `apply` takes.
        name: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArg,
    },
    /// Deletes a resource.
    Delete {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        #[command(flatten)]
        server: ServerArg,
    },
    /// Shows the nodes: who is connected, what each runs, what it refused.
    Nodes {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: ServerArg,
    },
    /// Makes a token that lets a node in.
    Token(TokenArgs),
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "write an IP address and a port, such as 127.0.0.1:15010 or [::]:15012")
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// The folder of the store and the keys; made if it is not there.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where REST listens.
    #[arg(long, default_value = "127.0.0.1:15010", value_name = "ADDRESS", value_parser = |text: &str| address(text))]
    listen: SocketAddr,
    /// Where the nodes' stream and signing listen.
    #[arg(long, default_value = "0.0.0.0:15012", value_name = "ADDRESS", value_parser = |text: &str| address(text))]
    stream: SocketAddr,
    /// The trust domain of the identities.
    #[arg(long, default_value = "outrigger.local", value_name = "DOMAIN")]
    trust_domain: String,
    /// How long a node's certificate lives; it is renewed at half of that.
    #[arg(long, default_value = "24h", value_name = "TIME")]
    leaf_lifetime: Duration,
    /// The root certificate, PEM; made at the first start where it is not given.
    #[arg(long, requires = "root_key", value_name = "FILE")]
    root_cert: Option<PathBuf>,
    /// The root's private key, PEM.
    #[arg(long, requires = "root_cert", value_name = "FILE")]
    root_key: Option<PathBuf>,
    /// A further DNS name or address under which it is called. Can be repeated.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Debug, Args)]
struct TokenArgs {
    /// The node's name.
    #[arg(long)]
    node: Name,
    /// The identity that it gets; spiffe://TRUST-DOMAIN/node/NAME where it is not given.
    #[arg(long, value_name = "SPIFFE-ID")]
    id: Option<SpiffeId>,
    /// How long the token is good for.
    #[arg(long, default_value = "1h", value_name = "TIME")]
    ttl: Duration,
    /// Make it from this data directory, without asking a server.
    #[arg(long, conflicts_with = "server", value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArg,
}

#[derive(Debug, Args)]
struct ServerArg {
    /// Where the control API's REST listens.
    #[arg(long, default_value = "http://127.0.0.1:15010", value_name = "URL")]
    server: String,
}

impl ServerArg {
    fn client(&self) -> anyhow::Result<Client> {
        Client::new(&self.server)
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(cli.command)));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            complain(format_args!("outrigger-control: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(arguments) => serve::serve(arguments).await,
        Command::Apply { file, wait, server } => apply::apply(&server.client()?, &file, wait).await,
        Command::Get { kind, name, json, server } => {
            show::get(&server.client()?, kind.as_deref(), name.as_deref(), json).await
        }
        Command::Delete { kind, name, server } => show::delete(&server.client()?, &kind, &name).await,
        Command::Nodes { json, server } => show::nodes(&server.client()?, json).await,
        Command::Token(arguments) => show::token(arguments).await,
    }
}

/// Prints what was asked for. Whoever reads may have had enough: that is no error.
fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints what is wrong.
fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

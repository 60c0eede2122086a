//! `outrigger capture`: puts, removes or prints the rules that redirect an application's traffic.

use clap::{Args, Subcommand};
use outrigger_net::capture::{CaptureError, Cidr, Rules, down};

/// What to do with the rules.
#[derive(Debug, Subcommand)]
pub(crate) enum Capture {
    /// Puts the rules, in place of those that are there. Needs root.
    Up(RuleArgs),
    /// Removes the rules completely. Needs root.
    Down,
    /// Prints the rules, as `nft -f -` takes them.
    Print(RuleArgs),
}

/// Which traffic is redirected, and where to.
#[derive(Debug, Args)]
pub(crate) struct RuleArgs {
    /// Where what the application sends is redirected to.
    #[arg(long, value_name = "PORT", default_value_t = 15001, value_parser = port())]
    outbound: u16,
    /// Where what it receives is redirected to.
    #[arg(long, value_name = "PORT", default_value_t = 15006, value_parser = port())]
    inbound: u16,
    /// The proxy's user, whose traffic is left alone.
    #[arg(long, value_name = "UID", default_value_t = 1337)]
    uid: u32,
    /// Ports that the application connects to without redirection.
    #[arg(long, value_name = "PORT", value_parser = port(), value_delimiter = ',')]
    skip_outbound_ports: Vec<u16>,
    /// Ports that the application listens on without redirection.
    #[arg(long, value_name = "PORT", value_parser = port(), value_delimiter = ',')]
    skip_inbound_ports: Vec<u16>,
    /// Networks that the application connects to without redirection: 10.96.0.0/12.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    skip_outbound_cidrs: Vec<Cidr>,
}

impl RuleArgs {
    fn rules(self) -> Rules {
        Rules {
            outbound: self.outbound,
            inbound: self.inbound,
            uid: self.uid,
            skip_outbound_ports: self.skip_outbound_ports,
            skip_inbound_ports: self.skip_inbound_ports,
            skip_outbound_cidrs: self.skip_outbound_cidrs,
        }
    }
}

/// Nothing listens on port 0, and nftables would take it for any.
fn port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

/// Does it.
pub(crate) fn run(capture: Capture) -> Result<(), CaptureError> {
    match capture {
        Capture::Up(args) => args.rules().up(),
        Capture::Down => down(),
        Capture::Print(args) => {
            print!("{}", args.rules().ruleset());
            Ok(())
        }
    }
}

//! The nftables rules that redirect what an application sends and receives to the proxy.
//!
//! They belong into a network namespace of the application's own (a pod, a container): there they redirect every new
//! TCP connection but those left out. UDP is not touched. All rules are in one table, so that they are taken
//! back completely by deleting it, and one transaction puts the whole table in place of an older one.

mod cidr;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};

pub use cidr::{Cidr, CidrError};

/// Ports of the proxy itself besides the two that traffic is redirected to: admin, metrics, readiness.
const OWN_PORTS: [u16; 3] = [15000, 15020, 15021];
/// Deletes the table whether or not it is there: `table` makes it if need be.
const DELETE: &str = "table inet outrigger\ndelete table inet outrigger\n";

/// What is captured and what is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The proxy's port for what the application sends.
    pub outbound: u16,
    /// The proxy's port for what the application receives.
    pub inbound: u16,
    /// The user id of the proxy, whose own connections are left alone.
    pub uid: u32,
    /// Ports of others that the application reaches without the proxy.
    pub skip_outbound_ports: Vec<u16>,
    /// Ports of the application that are reached without the proxy.
    pub skip_inbound_ports: Vec<u16>,
    /// Networks that the application reaches without the proxy.
    pub skip_outbound_cidrs: Vec<Cidr>,
}

impl Default for Rules {
    /// Ports 15001 and 15006, user 1337, nothing more left out.
    fn default() -> Self {
        Self {
            outbound: 15001,
            inbound: 15006,
            uid: 1337,
            skip_outbound_ports: Vec::new(),
            skip_inbound_ports: Vec::new(),
            skip_outbound_cidrs: Vec::new(),
        }
    }
}

/// Why the rules could not be put or removed.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The program `nft` is not there.
    #[error(
        "cannot change the capture rules: `nft` is not installed; install it (`apt-get install nftables`)"
    )]
    Missing,
    /// This user may not change rules.
    #[error(
        "cannot change the capture rules: this needs root or CAP_NET_ADMIN in the network namespace; run it with sudo, \
         or give the container the capability NET_ADMIN"
    )]
    Permission,
    /// The kernel or `nft` refuses the rules.
    #[error("cannot change the capture rules: nft refuses them: {text}")]
    Refused {
        /// What `nft` wrote to standard error.
        text: String,
    },
    /// `nft` could not be run.
    #[error("cannot change the capture rules: running `nft` failed: {0}")]
    Run(#[from] io::Error),
}

impl Rules {
    /// The rules as text for `nft -f -`. Putting them twice, or over others of ours, is harmless.
    pub fn ruleset(&self) -> String {
        let mut text = format!("{DELETE}table inet outrigger {{\n");
        self.output(&mut text);
        self.prerouting(&mut text);
        text.push_str("}\n");
        text
    }

    /// Puts the rules into the network namespace of this process, in place of those put before.
    ///
    /// Connections that exist live on as they are.
    pub fn up(&self) -> Result<(), CaptureError> {
        nft(&self.ruleset())
    }

    /// What the application sends.
    fn output(&self, text: &mut String) {
        text.push_str("\tchain output {\n\t\ttype nat hook output priority -100; policy accept;\n");
        text.push_str(ONLY_NEW);
        let _ = writeln!(text, "\t\tmeta skuid {} return", self.uid);
        // An address of this very namespace is reached over loopback too.
        text.push_str("\t\toifname \"lo\" return\n");
        skip_ports(text, self.skip_outbound_ports.iter().copied());
        for cidr in &self.skip_outbound_cidrs {
            let _ = writeln!(text, "\t\t{} daddr {cidr} return", if cidr.is_ipv4() { "ip" } else { "ip6" });
        }
        let _ = writeln!(text, "\t\tmeta l4proto tcp redirect to :{}\n\t}}", self.outbound);
    }

    /// What the application receives.
    fn prerouting(&self, text: &mut String) {
        text.push_str("\tchain prerouting {\n\t\ttype nat hook prerouting priority -100; policy accept;\n");
        text.push_str(ONLY_NEW);
        text.push_str("\t\tiifname \"lo\" return\n");
        let own = OWN_PORTS.into_iter().chain([self.outbound, self.inbound]);
        skip_ports(text, own.chain(self.skip_inbound_ports.iter().copied()));
        let _ = writeln!(text, "\t\tmeta l4proto tcp redirect to :{}\n\t}}", self.inbound);
    }
}

/// Connections that are older than the rules look new to connection tracking; redirecting them in the middle would
/// break them.
const ONLY_NEW: &str = "\t\ttcp flags & (fin | syn | rst | ack) != syn return\n";

fn skip_ports(text: &mut String, ports: impl Iterator<Item = u16>) {
    let ports: Vec<String> = ports.collect::<BTreeSet<_>>().iter().map(u16::to_string).collect();
    if !ports.is_empty() {
        let _ = writeln!(text, "\t\ttcp dport {{ {} }} return", ports.join(", "));
    }
}

/// Removes the rules from the network namespace of this process; harmless if there are none.
pub fn down() -> Result<(), CaptureError> {
    nft(DELETE)
}

/// Hands a ruleset to `nft`, which applies all of it or nothing.
fn nft(ruleset: &str) -> Result<(), CaptureError> {
    // An ordinary user's PATH may lack the folder that it is in.
    let output = match run("nft", ruleset) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => run("/usr/sbin/nft", ruleset),
        output => output,
    };
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CaptureError::Missing,
        _ => CaptureError::Run(error),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.contains("Operation not permitted") {
        return Err(CaptureError::Permission);
    }
    Err(CaptureError::Refused { text })
}

fn run(program: &str, input: &str) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(["-f", "-"])
        // The error text is looked at, so it must not be translated.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // If `nft` went away without reading, what it says says more than this broken pipe.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output()
}

#[cfg(test)]
mod tests;

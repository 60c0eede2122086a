//! The ports that browsers find: 443 and 80 where they can be had, otherwise 8443 and 8080.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use outrigger_net::listen::{self, BindError};

/// What is listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ports {
    /// For HTTPS.
    pub(crate) https: u16,
    /// For HTTP, which leads to HTTPS.
    pub(crate) http: u16,
    /// This machine's loopback addresses.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Chooses the ports that were not asked for.
///
/// # Errors
/// A port cannot be listened on: why, by whom it is used, and what to do.
pub(crate) fn choose(https: Option<u16>, http: Option<u16>) -> Result<Ports, String> {
    let addresses = loopback();
    let https = choose_one(&addresses, https, [443, 8443], "--https-port")?;
    let http = choose_one(&addresses, http, [80, 8080], "--http-port")?;
    Ok(Ports { https, http, addresses })
}

/// The loopback addresses that this machine has: browsers try both.
fn loopback() -> Vec<IpAddr> {
    let both: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let there = |ip: &IpAddr| !matches!(listen::bind((*ip, 0).into(), 1), Err(BindError::NotLocal { .. }));
    both.into_iter().filter(there).collect()
}

fn choose_one(
    addresses: &[IpAddr],
    asked: Option<u16>,
    preferred: [u16; 2],
    flag: &str,
) -> Result<u16, String> {
    let [first, otherwise] = preferred;
    match asked {
        Some(port) => free(addresses, port).map_err(|error| refusal(&error, flag)),
        None => free(addresses, first)
            .or_else(|_| free(addresses, otherwise))
            .map_err(|error| refusal(&error, flag)),
    }
}

/// Whether a port can be listened on, on all of the addresses; with port 0, one that can.
fn free(addresses: &[IpAddr], port: u16) -> Result<u16, BindError> {
    let mut port = port;
    let mut held = Vec::new();
    for ip in addresses {
        let bound = listen::bind((*ip, port).into(), 1)?;
        port = bound.local.port();
        held.push(bound);
    }
    Ok(port)
}

fn refusal(error: &BindError, flag: &str) -> String {
    match error {
        BindError::InUse { address } => {
            let by = holder(Path::new("/proc"), address.port());
            let by = by.map_or("something listens there".to_owned(), |by| format!("{by} listens there"));
            format!("cannot listen on {address}: {by}; stop it, or choose another port with {flag} PORT")
        }
        BindError::Permission { address } => format!(
            "cannot listen on {address}: permission denied; choose a port from 1024 on with {flag} PORT, or allow it: \
             sudo sysctl net.ipv4.ip_unprivileged_port_start={}",
            address.port().min(80)
        ),
        error => error.to_string(),
    }
}

/// The process that listens on a port, if `/proc` tells: `node (pid 1234)`. Of other users' processes it does not.
fn holder(proc: &Path, port: u16) -> Option<String> {
    let sockets: Vec<String> = ["net/tcp", "net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(proc.join(table)).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    let processes = fs::read_dir(proc).ok()?.flatten();
    let numbered = processes.filter_map(|p| Some((p.file_name().to_str()?.parse::<u32>().ok()?, p.path())));
    let mut holders = numbered.filter(|(_, path)| holds(path, &sockets));
    let (pid, path) = holders.next()?;
    let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim()))
}

/// The sockets that listen on a port, as links in `/proc/PID/fd` name them (proc_net(5)).
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let wanted = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|row| row.split_ascii_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(1).is_some_and(|local| local.ends_with(&wanted)) && row.get(3) == Some(&LISTEN))
        .filter_map(|row| row.get(9).map(|inode| format!("socket:[{inode}]")))
        .collect()
}

fn holds(process: &Path, sockets: &[String]) -> bool {
    let Ok(open) = fs::read_dir(process.join("fd")) else { return false };
    open.flatten().any(|file| {
        fs::read_link(file.path())
            .is_ok_and(|link| link.to_str().is_some_and(|link| sockets.iter().any(|socket| socket == link)))
    })
}

/// The address of a site's listener.
pub(crate) fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_used_is_refused_with_who_uses_it() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let why = choose(Some(port), Some(0)).unwrap_err();
        assert!(why.contains(&format!("(pid {}) listens there", std::process::id())), "{why}");
        assert!(why.contains("--https-port PORT"), "{why}");
    }

    #[test]
    fn port_0_is_one_that_is_free_on_both_addresses() {
        let ports = choose(Some(0), Some(0)).unwrap();
        assert!(ports.https > 0 && ports.http > 0 && ports.addresses.contains(&Ipv4Addr::LOCALHOST.into()));
    }
}

//! What systemd is told of a service of `Type=notify` (`sd_notify(3)`).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says a state, such as `READY=1`, where the environment names somebody who wants to know.
pub(crate) fn notify(state: &str) {
    let Some(to) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match to.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&to),
    };
    if let Err(error) = address.and_then(|address| send(&address, state)) {
        tracing::warn!(%error, "NOTIFY_SOCKET cannot be told that {state}");
    }
}

fn send(to: &SocketAddr, state: &str) -> io::Result<()> {
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), to).map(drop)
}

//! Listening: one socket per worker on one address, and the options of every TCP connection.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// How many connections may wait to be accepted on a socket; the kernel caps it at `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// Sockets that listen on one address.
#[derive(Debug)]
pub struct Bound {
    /// The address listened on, with the port that the system chose where port 0 was asked for.
    pub local: SocketAddr,
    /// One non-blocking socket per worker; the kernel spreads connections over them.
    pub sockets: Vec<TcpListener>,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket listens there.
    #[error(
        "cannot listen on {address}: the address is in use; stop what listens there \
         (`ss -ltnp 'sport = :{}'` shows it) or choose another port", address.port()
    )]
    InUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The port is reserved for privileged users.
    #[error(
        "cannot listen on {address}: permission denied; choose a port from 1024 on, or give the program \
         CAP_NET_BIND_SERVICE"
    )]
    Permission {
        /// The address asked for.
        address: SocketAddr,
    },
    /// No interface of this machine has the address.
    #[error(
        "cannot listen on {address}: no interface has this address; `ip address` lists those that do, \
         0.0.0.0 stands for every one{}", if address.is_ipv6() { " (IPv6 may be switched off here)" } else { "" }
    )]
    NotLocal {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Anything else that the system says.
    #[error("cannot listen on {address}: {source}")]
    System {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EADDRINUSE) => Self::InUse { address },
            Some(libc::EACCES | libc::EPERM) => Self::Permission { address },
            Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT) => Self::NotLocal { address },
            _ => Self::System { address, source },
        }
    }
}

/// Binds `count` sockets (at least one) on one address, to give one to each worker.
///
/// With port 0 the system chooses a port once and all sockets share it. `[::]` takes IPv4 as well, and IPv4 alone on a
/// machine that has no IPv6. Accepted connections inherit what [`configure`] sets, so they need no call of it.
///
/// # Errors
/// A port that anybody listens on already, this process included, is [`BindError::InUse`].
pub fn bind(address: SocketAddr, count: usize) -> Result<Bound, BindError> {
    open(address, |address| {
        if address.port() != 0 {
            // SO_REUSEPORT would silently share the port with another process of the same user, which would
            // then get part of the connections; a socket without it is refused.
            socket(address, Sharing::Alone)?;
        }
        share(address, count)
    })
}

/// The same on a port that this process listens on already, in another [`Bound`]: both get connections until one is
/// dropped.
///
/// # Errors
/// A port that another user's process listens on, or one that does not share it, is [`BindError::InUse`].
pub fn bind_beside(address: SocketAddr, count: usize) -> Result<Bound, BindError> {
    open(address, |address| share(address, count))
}

/// Opens `[::]` as `0.0.0.0` where there is no IPv6.
fn open(address: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<Bound>) -> Result<Bound, BindError> {
    let bound = match bind(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && is_without_ipv6(&error) => {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    };
    bound.map_err(|source| BindError::new(address, source))
}

/// The same, but for connections: none comes before [`listen`] has been called for each socket.
///
/// # Errors
/// As [`bind_beside`].
pub fn reserve_beside(address: SocketAddr, count: usize) -> Result<Bound, BindError> {
    open(address, |address| reserve(address, count))
}

/// Has a bound socket take connections; one that does already goes on.
///
/// # Errors
/// What the system says.
pub fn listen(socket: &TcpListener) -> io::Result<()> {
    SockRef::from(socket).listen(BACKLOG)
}

/// Another handle of the same socket: a connection goes to whichever accepts first.
///
/// # Errors
/// No file descriptor is left.
pub fn copy(socket: &impl AsFd) -> io::Result<TcpListener> {
    Ok(socket.as_fd().try_clone_to_owned()?.into())
}

/// Accepts a connection that waits, whatever a runtime knows of it. It does not block, nor does this.
///
/// # Errors
/// None waits ([`io::ErrorKind::WouldBlock`]), or what the system says.
pub fn accept(socket: &impl AsFd) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = SockRef::from(socket).accept()?;
    stream.set_nonblocking(true)?;
    let peer = peer.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    Ok((stream.into(), peer))
}

/// Makes a socket that another process has opened one like those of this module. Answers where it listens.
///
/// # Errors
/// It is not one that listens for TCP.
pub fn adopt(socket: &TcpListener) -> io::Result<SocketAddr> {
    let of = SockRef::from(socket);
    if of.r#type()? != Type::STREAM || !of.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen"));
    }
    let local = socket.local_addr()?;
    socket.set_nonblocking(true)?;
    options(&of)?;
    Ok(local)
}

fn share(address: SocketAddr, count: usize) -> io::Result<Bound> {
    let bound = reserve(address, count)?;
    bound.sockets.iter().try_for_each(listen)?;
    Ok(bound)
}

fn reserve(address: SocketAddr, count: usize) -> io::Result<Bound> {
    let first = socket(address, Sharing::Workers)?;
    let local = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(socket(local, Sharing::Workers)?);
    }
    Ok(Bound { local, sockets })
}

/// Whether the kernel was started without IPv6 (`ipv6.disable=1`).
fn is_without_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    Workers,
}

/// A bound socket that does not listen yet.
fn socket(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A port whose old connections are still in TIME_WAIT can be taken again at once.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(sharing == Sharing::Workers)?;
    options(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Sets what every connection of the proxy has: no delay of small writes (`TCP_NODELAY`), and keep-alive probes
/// after a minute of silence, every 15 s, which find a peer that vanished within two minutes.
pub fn configure(stream: &tokio::net::TcpStream) -> io::Result<()> {
    options(&SockRef::from(stream))
}

/// Bounds what the kernel keeps of a connection, or of those that a socket accepts from now on, in bytes: what was received
/// and not read (`SO_RCVBUF`), and what was written and not sent (`TCP_NOTSENT_LOWAT`). What is on its way is not bounded, so
/// that a peer is as fast as the way there allows; one that does not read keeps this much here, not the 4 MiB that the
/// kernel may come to.
pub fn confine(socket: &impl AsFd, bytes: u64) -> io::Result<()> {
    let socket = SockRef::from(socket);
    // The kernel doubles the one, for what it needs beside the bytes themselves.
    socket.set_recv_buffer_size(usize::try_from(bytes / 2).unwrap_or(usize::MAX))?;
    socket.set_tcp_notsent_lowat(u32::try_from(bytes / 4).unwrap_or(u32::MAX))
}

/// Whether a connection failed for want of something on this side: file descriptors or memory.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

fn options(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(Duration::from_mins(1))
            .with_interval(Duration::from_secs(15))
            .with_retries(4),
    )
}

#[cfg(test)]
mod tests;

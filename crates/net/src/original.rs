//! Where a redirected connection was going: what conntrack remembers of it (`SO_ORIGINAL_DST`).

use std::net::{IpAddr, SocketAddr};

use socket2::SockRef;
use tokio::net::TcpStream;

/// The address that the caller connected to, before the capture rules redirected it here.
///
/// `None` if the connection was not redirected: there is no entry for it, or the entry names `local`, which is the
/// address that this connection has here (`stream.local_addr()`; the proxy's own port, after a redirect). IPv4
/// addresses come back as such, also from a dual-stack socket.
pub fn destination(stream: &TcpStream, local: SocketAddr) -> Option<SocketAddr> {
    let local = plain(local);
    let socket = SockRef::from(stream);
    // Conntrack keeps one table per family; a dual-stack socket with an IPv4 peer is in that of IPv4.
    let original = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() }
        .ok()?
        .as_socket()?;
    let original = plain(original);
    ((original.ip(), original.port()) != (local.ip(), local.port())).then_some(original)
}

/// An IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) as the IPv4 address it stands for.
fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_nobody_redirected_has_none() {
        for address in ["127.0.0.1:0", "[::]:0"] {
            let bound = crate::listen::bind(address.parse().unwrap(), 1).unwrap();
            let listener =
                tokio::net::TcpListener::from_std(bound.sockets.into_iter().next().unwrap()).unwrap();
            let target = SocketAddr::new("127.0.0.1".parse().unwrap(), bound.local.port());
            let (_caller, accepted) = tokio::join!(TcpStream::connect(target), listener.accept());
            let (stream, _) = accepted.unwrap();
            assert_eq!(destination(&stream, stream.local_addr().unwrap()), None);
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mapped = "[::ffff:10.1.2.3]:80".parse().unwrap();
        assert_eq!(plain(mapped), "10.1.2.3:80".parse().unwrap());
        let six = "[fd00::1]:80".parse().unwrap();
        assert_eq!(plain(six), six);
    }
}

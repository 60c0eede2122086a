//! What a TLS ClientHello says before anybody answers it: for routing a connection that is passed through.

use std::io::{self, Read};
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::net::TcpStream;

use crate::peek::{self, Peeked};

/// The longest ClientHello that is looked at; with post-quantum keys they are about 1.7 KiB.
const LONGEST: usize = 16 * 1024;

/// The parts of a ClientHello that decide where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// The name asked for (SNI, RFC 6066, 3), lower case; never an IP address.
    pub server_name: Option<String>,
    /// The protocols offered (ALPN, RFC 7301, 3.1), the caller's favourite first.
    pub alpn: Vec<Vec<u8>>,
}

/// The fatal alert for a name that nobody here answers to, `unrecognized_name` (RFC 6066, 3; RFC 8446, 6), as a whole
/// record: what a caller is told whose connection is not passed on.
pub const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// Waits for a whole ClientHello and reads it, leaving every byte in place for the next reader.
///
/// `None` if the connection does not begin with one, or it is not whole after `timeout`, at the end of the stream, or
/// after 16 KiB.
pub async fn peek(stream: &TcpStream, timeout: Duration) -> io::Result<Option<Hello>> {
    let mut buffer = vec![0; LONGEST];
    Ok(match peek::until(stream, &mut buffer, timeout, parse).await? {
        Peeked::Decided(hello) => hello,
        Peeked::Undecided { .. } => None,
    })
}

/// The same over bytes already read: `None` if more are needed, `Some(None)` if this is no ClientHello.
pub fn parse(bytes: &[u8]) -> Option<Option<Hello>> {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    // rustls takes the bytes in portions; it must not be offered an empty one, which would mean the end.
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest.by_ref()).is_err() {
            return Some(None);
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Some(Some(Hello {
                    server_name: hello.server_name().map(str::to_ascii_lowercase),
                    alpn: hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect(),
                }));
            }
            Err(_) => return Some(None),
        }
    }
    None
}

#[cfg(test)]
mod tests;

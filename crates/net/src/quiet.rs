//! Whether a connection that nobody uses is still as it was left.

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::net::TcpStream;

/// Whether nothing has come on a connection: no byte, no end, no reset. Asks the kernel, and so knows what the runtime has
/// not been told yet; takes nothing away. One system call.
pub fn is_quiet(stream: &TcpStream) -> bool {
    matches!(recv(stream, &mut [0_u8], RecvFlags::PEEK | RecvFlags::DONTWAIT), Err(Errno::AGAIN))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    /// A connection as the runtime sees it, and its other end.
    fn pair() -> (TcpStream, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        let (far, _) = listener.accept().unwrap();
        (TcpStream::from_std(near).unwrap(), far)
    }

    #[tokio::test]
    async fn an_end_is_seen_before_the_runtime_has_run() {
        let (near, far) = pair();
        assert!(is_quiet(&near));
        drop(far);
        assert!(!is_quiet(&near));
    }

    #[tokio::test]
    async fn a_byte_is_seen_and_stays() {
        let (near, mut far) = pair();
        far.write_all(b"x").unwrap();
        assert!(!is_quiet(&near));
        near.readable().await.unwrap();
        assert_eq!(near.try_read(&mut [0; 8]).unwrap(), 1);
        assert!(is_quiet(&near));
    }
}

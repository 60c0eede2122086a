//! What two processes say to each other, a line of JSON at a time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

/// What is spoken. A process that speaks another is refused.
pub(super) const VERSION: u32 = 1;
/// How long a line may be.
const MAX_LINE: usize = 1024 * 1024;

/// What the two say to each other.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Word {
    /// The running process: these sockets are to be had.
    Offer { version: u32, pid: u32, sockets: Vec<Offered> },
    /// The new one: it wants them.
    Take { version: u32, pid: u32 },
    /// The new one: all is set up.
    Ready,
    /// The running one: it stops once the other accepts.
    Yours,
    /// The new one: it accepts.
    Accepting,
    /// The running one: it does not stop, for this reason.
    No(String),
}

/// Sockets with one address.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offered {
    /// What they are for.
    pub(super) r#use: Use,
    /// The listener's name, or what of the proxy's own it is.
    pub(super) name: String,
    /// The address that was asked for, perhaps with port 0.
    pub(super) asked: SocketAddr,
    /// Where they listen.
    pub(super) local: SocketAddr,
    /// How many there are.
    pub(super) count: usize,
}

/// What sockets are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Use {
    /// A listener of the configuration.
    Listener,
    /// The proxy's own: administration, metrics, readiness.
    Own,
}

pub(super) async fn say(stream: &UnixStream, word: &Word) -> io::Result<()> {
    let mut line = serde_json::to_vec(word)?;
    line.push(b'\n');
    let mut rest = line.as_slice();
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The next word, which must come within a time. The other says nothing more until it is answered.
pub(super) async fn hear(stream: &UnixStream, patience: Duration) -> io::Result<Word> {
    let line = async {
        let (mut line, mut part) = (Vec::new(), [0; 4096]);
        while line.last() != Some(&b'\n') {
            stream.readable().await?;
            let read = match stream.try_read(&mut part) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            line.extend_from_slice(part.get(..read).unwrap_or_default());
            if line.len() > MAX_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the line has no end"));
            }
        }
        Ok(line)
    };
    let line = tokio::time::timeout(patience, line).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok(serde_json::from_slice(&line)?)
}

/// Whether an error says that the other is gone.
pub(super) fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::UnexpectedEof | Kind::BrokenPipe | Kind::ConnectionReset)
}

/// The other's user, where it is not this process's.
pub(super) fn stranger(stream: &UnixStream) -> io::Result<Option<(u32, u32)>> {
    let (theirs, ours) = (socket_peercred(stream)?.uid.as_raw(), rustix::process::geteuid().as_raw());
    Ok((theirs != ours).then_some((theirs, ours)))
}

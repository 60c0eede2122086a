//! What passes on the wire, as tcpdump sees it.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

use super::{Pod, Process};

/// Marks the end of a recording: packets are recorded in order, so when it is there, so is all that came before.
const END: &[u8] = b"the recording of the wire ends here";
/// The discard service's port; nothing listens there.
const END_PORT: u16 = 9;
const LONG: Duration = Duration::from_secs(10);

/// A recording that goes on until [`stop`](Self::stop).
#[derive(Debug)]
pub struct Tcpdump<'a> {
    pod: &'a Pod,
    process: Process,
    file: NamedTempFile,
}

impl<'a> Tcpdump<'a> {
    pub(super) fn start(pod: &'a Pod, filter: &str) -> io::Result<Self> {
        let file = NamedTempFile::new()?;
        let path = file.path().to_string_lossy();
        let filter =
            if filter.is_empty() { String::new() } else { format!("({filter}) or udp dst port {END_PORT}") };
        // As root to the end (-Z), unbuffered on both sides.
        let options = ["tcpdump", "-i", "eth0", "-Z", "root", "-U", "--immediate-mode", "-w", &path, &filter];
        let process = pod.spawn_as(0, &options)?;
        process.wait_for("listening on", LONG)?;
        Ok(Self { pod, process, file })
    }

    /// Ends the recording: all that has passed until now is in it.
    pub fn stop(self) -> io::Result<Wire> {
        let pod = self.pod;
        pod.within(|| {
            let socket = UdpSocket::bind((pod.ipv4(), 0))?;
            socket.send_to(END, ("224.0.0.1", END_PORT))
        })??;
        let deadline = Instant::now() + LONG;
        loop {
            let wire = Wire { pcap: std::fs::read(self.file.path())? };
            if wire.contains(END) {
                return Ok(wire);
            }
            if Instant::now() >= deadline {
                return Err(io::Error::other(format!(
                    "tcpdump records nothing; it wrote {:?}",
                    self.process.lines()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A recording, in the format of libpcap.
#[derive(Debug, Clone)]
pub struct Wire {
    /// The whole file.
    pub pcap: Vec<u8>,
}

impl Wire {
    /// Whether these bytes passed in one packet.
    pub fn contains(&self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        bytes.is_empty() || self.pcap.windows(bytes.len()).any(|window| window == bytes)
    }
}

//! A folder with a configuration in it, and what a proxy that runs from it says.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrigger_proxy::{Options, Proxy, Source, StartError, start};
use tempfile::TempDir;
use tokio::sync::watch;

/// How long anything that should happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A folder with a configuration in it.
pub(crate) struct Desk {
    folder: TempDir,
    said: watch::Sender<Vec<String>>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), said: watch::Sender::new(Vec::new()) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file as it stands, as a shell's redirection does.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Puts a file in place of another, as editors do.
    pub(crate) fn replace(&self, name: &str, text: &str) {
        let beside = self.path(&format!(".{name}.new"));
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.path(name)).unwrap();
    }

    /// Starts a proxy from `proxy.yaml`, after writing it.
    pub(crate) async fn start(&self, text: &str) -> Proxy {
        self.try_start(text).await.unwrap()
    }

    pub(crate) async fn try_start(&self, text: &str) -> Result<Proxy, StartError> {
        self.write("proxy.yaml", text);
        start(self.options(&self.path("proxy.yaml"))).await
    }

    pub(crate) fn options(&self, path: &Path) -> Options {
        let tell = |said: watch::Sender<Vec<String>>| {
            let said = Mutex::new(said);
            Arc::new(move |line: &str| said.lock().unwrap().send_modify(|lines| lines.push(line.to_owned())))
        };
        Options {
            announce: tell(self.said.clone()),
            complain: tell(self.said.clone()),
            ..Options::quiet(Source::File(path.to_owned()))
        }
    }

    /// Waits until a line with all of `parts` was said; also one that was said already.
    pub(crate) async fn said(&self, parts: &[&str]) -> String {
        let mut said = self.said.subscribe();
        let line = |lines: &Vec<String>| {
            lines.iter().find(|line| parts.iter().all(|part| line.contains(part))).cloned()
        };
        let waited = tokio::time::timeout(PATIENCE, said.wait_for(|lines| line(lines).is_some())).await;
        if let Ok(lines) = waited {
            return line(&lines.unwrap()).unwrap();
        }
        panic!("nobody said {parts:?}; said was:\n{}", self.lines().join("\n"))
    }

    /// All that was said so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.said.borrow().clone()
    }

    /// Forgets what was said.
    pub(crate) fn hush(&self) {
        self.said.send_modify(Vec::clear);
    }
}

/// Asks again and again until there is an answer, where there is nothing to wait for.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let asked = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// The value of a metric, summed over the series whose line contains all of `labels`.
pub(crate) fn metric(text: &str, name: &str, labels: &[&str]) -> f64 {
    text.lines()
        .filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        })
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// Waits until so many objects are rejected: the gauge follows what was said.
pub(crate) async fn rejected(proxy: &Proxy, many: u32) {
    eventually(&format!("{many} are rejected"), || async {
        let now = metric(&proxy.metrics(), "outrigger_config_rejected", &[]);
        ((now - f64::from(many)).abs() < 0.5).then_some(())
    })
    .await;
}

/// An address on which nothing listens, and which nothing gets by chance: its port is none of those that the system
/// chooses (`net.ipv4.ip_local_port_range`).
pub(crate) fn free() -> SocketAddr {
    let mut ports = std::iter::repeat_with(|| fastrand::u16(20_000..32_000));
    let port = ports.find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok()).unwrap();
    SocketAddr::from(([127, 0, 0, 1], port))
}

//! A cgroup with a limit of memory, below the one that the tests run in; removed with all that is in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A cgroup of its own.
pub(crate) struct Cgroup {
    folder: PathBuf,
    /// Whether it is one of version 2 (cgroups(7)).
    unified: bool,
}

impl Cgroup {
    /// One with so many bytes; `None` where none can be made.
    pub(crate) fn make(bytes: u64) -> Option<Self> {
        let name = format!("outrigger-test-{}-{bytes}", std::process::id());
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let below = |prefix: &str| own.lines().find_map(|line| Some(line.split_once(prefix)?.1.to_owned()));
        let (parent, unified) = match below(":memory:/") {
            Some(path) => (Path::new("/sys/fs/cgroup/memory").join(path), false),
            None => (Path::new("/sys/fs/cgroup").join(below("0::/")?), true),
        };
        if unified {
            // Refused where the parent has processes itself; then it may be on already.
            let _ = fs::write(parent.join("cgroup.subtree_control"), "+memory");
        }
        let cgroup = Self { folder: parent.join(name), unified };
        fs::create_dir(&cgroup.folder).ok()?;
        cgroup.write(if unified { "memory.max" } else { "memory.limit_in_bytes" }, &bytes.to_string())?;
        if !unified {
            // Only with a limit of their own are sockets accounted for.
            cgroup.write("memory.kmem.tcp.limit_in_bytes", &(4 * bytes).to_string())?;
        }
        Some(cgroup)
    }

    fn write(&self, file: &str, text: &str) -> Option<()> {
        // Opened, not created: a file that is not there says that memory is not accounted for.
        let mut file = fs::OpenOptions::new().write(true).open(self.folder.join(file)).ok()?;
        std::io::Write::write_all(&mut file, text.as_bytes()).ok()
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap_or_default()
    }

    /// How many of its processes were killed for want of memory.
    pub(crate) fn killed(&self) -> u64 {
        let text = self.read(if self.unified { "memory.events" } else { "memory.oom_control" });
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap()
    }

    /// What cannot be taken back from its processes, and the kernel for them, in bytes.
    pub(crate) fn used(&self) -> u64 {
        let stat = self.read("memory.stat");
        let of = |name: &str| {
            let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or(0)
        };
        if self.unified {
            return of("anon") + of("kernel") + of("sock") - of("slab_reclaimable");
        }
        let number = |file| self.read(file).trim().parse::<u64>().unwrap_or(0);
        of("rss") + number("memory.kmem.usage_in_bytes") + number("memory.kmem.tcp.usage_in_bytes")
    }
}

/// The most that was used while something went on.
pub(crate) async fn peak<T>(cgroup: &Cgroup, during: impl Future<Output = T>) -> (T, u64) {
    let mut peak = 0;
    let mut during = std::pin::pin!(during);
    loop {
        let done = tokio::time::timeout(Duration::from_millis(2), during.as_mut()).await;
        peak = peak.max(cgroup.used());
        if let Ok(done) = done {
            return (done, peak);
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Its last process may be about to go.
        for _ in 0..500 {
            if fs::remove_dir(&self.folder).is_ok() || !self.folder.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

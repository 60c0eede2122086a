//! The cgroup that this process runs in: what it may use, and what the kernel keeps for it. Both versions: one hierarchy for
//! all controllers (cgroups(7), version 2), and one with memory alone (version 1).

use std::fs;
use std::path::{Path, PathBuf};

/// From here on version 1 means that there is no limit: it has no word for it.
const UNLIMITED: u64 = 1 << 60;

/// A process's cgroup, as far as memory goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroup {
    version: Version,
    /// Where the hierarchy is mounted: no cgroup above is in view.
    top: PathBuf,
    /// The process's own folder, `top` or below.
    folder: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Cgroup {
    /// The cgroup of this process; `None` where memory is not accounted for.
    pub(crate) fn of_this_process() -> Option<Self> {
        let read = |path| fs::read_to_string(path).ok();
        Self::find(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)
    }

    /// The cgroup that `/proc/PID/cgroup` and `/proc/PID/mountinfo` speak of (cgroups(7), proc_pid_mountinfo(5)).
    fn find(cgroups: &str, mounts: &str) -> Option<Self> {
        let found = |version, filesystem: &str, is_it: fn(&str) -> bool| {
            let path = cgroups.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                is_it(controllers).then_some(path)
            })?;
            let (root, top) = mounts.lines().find_map(|line| mount(line, filesystem))?;
            // Seen from within a container the path may be the host's, of which the mount shows a part.
            let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(path));
            let folder = top.join(below.strip_prefix("/").unwrap_or(below));
            let mut cgroup = Self { version, folder: top.clone(), top };
            // One that does not account for memory itself is accounted for in the one around it.
            let accounts = |folder: &&Path| cgroup.limit_file(folder).is_file();
            let folder = if folder.is_dir() { &*folder } else { &*cgroup.top };
            let within = folder.ancestors().take_while(|folder| folder.starts_with(&cgroup.top));
            cgroup.folder = within.into_iter().find(accounts)?.to_owned();
            Some(cgroup)
        };
        found(Version::One, "cgroup", |controllers| controllers.split(',').any(|it| it == "memory"))
            .or_else(|| found(Version::Two, "cgroup2", str::is_empty))
    }

    fn limit_file(&self, folder: &Path) -> PathBuf {
        folder.join(match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        })
    }

    /// The least limit of it and those around it that are in view, in bytes.
    pub(crate) fn limit(&self) -> Option<u64> {
        let around = self.folder.ancestors().take_while(|folder| folder.starts_with(&self.top));
        around.filter_map(|folder| self.limit_of(folder)).min()
    }

    /// Whether it has a limit of its own, as a container has.
    pub(crate) fn is_limited(&self) -> bool {
        self.limit_of(&self.folder).is_some()
    }

    fn limit_of(&self, folder: &Path) -> Option<u64> {
        // `max` is none.
        number(&self.limit_file(folder)).filter(|bytes| *bytes < UNLIMITED)
    }

    /// What the kernel keeps for its processes, the buffers of their sockets included, in bytes.
    pub(crate) fn kernel(&self) -> Option<u64> {
        match self.version {
            // Sockets have an account of their own there, which the limit does not hold for; what they take is taken all
            // the same.
            Version::One => {
                let of = |file| number(&self.folder.join(file)).unwrap_or(0);
                Some(of("memory.kmem.usage_in_bytes") + of("memory.kmem.tcp.usage_in_bytes"))
            }
            Version::Two => {
                let stat = fs::read_to_string(self.folder.join("memory.stat")).ok()?;
                let of = |name: &str| {
                    let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                    line.and_then(|bytes| bytes.parse::<u64>().ok())
                };
                // `kernel` came with Linux 5.18; what can be reclaimed of it is.
                let kernel = of("kernel").or_else(|| of("slab"));
                let reclaimable = of("slab_reclaimable").unwrap_or(0);
                Some(kernel.unwrap_or(0).saturating_sub(reclaimable) + of("sock").unwrap_or(0))
            }
        }
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// What of a hierarchy a mount shows, and where, if it is of this kind and has memory in it.
fn mount<'a>(line: &'a str, filesystem: &str) -> Option<(&'a str, PathBuf)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, top) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let same = kind.next() == Some(filesystem);
    let options = kind.nth(1).unwrap_or_default();
    let memory = filesystem == "cgroup2" || options.split(',').any(|option| option == "memory");
    (same && memory).then(|| (root, PathBuf::from(top)))
}

#[cfg(test)]
mod tests;

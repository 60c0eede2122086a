//! Where a run takes place: what else decides how fast anything is.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
    process::Command,
};

use crate::{result::Host, subject::Cpus};

const CPUS: &str = "/sys/devices/system/cpu";

impl Host {
    /// This host, with the proxies on the cores of `cpus`.
    pub fn this(cpus: Option<&Cpus>) -> Self {
        let pinned = cpus.map(|cpus| cpus.pinned(1));
        let core = pinned.as_ref().and_then(|pinned| pinned.proxies.first()).copied().unwrap_or(0);
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: commit(),
            optimised: !cfg!(debug_assertions),
            kernel: text("/proc/sys/kernel/osrelease"),
            processor: value(&info, "model name").map(Into::into),
            cores: cpus.map_or_else(cores, Cpus::count),
            pinned,
            governor: text(format!("{CPUS}/cpu{core}/cpufreq/scaling_governor")),
            hypervisor: hypervisor(&info),
            mitigations: mitigations(),
            memory_mib: memory_mib(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        }
    }
}

/// How many cores this program may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}

/// The commit that is checked out where this program was built, if that is still there.
fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output =
            Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit} with changes") })
}

/// The hypervisor by name, where that can be told; `unknown` where there is one.
fn hypervisor(info: &str) -> Option<String> {
    if let Some(kind) = text("/sys/hypervisor/type") {
        return Some(kind);
    }
    if !value(info, "flags")?.split(' ').any(|flag| flag == "hypervisor") {
        return None;
    }
    let clocks = text(format!("{}/clocksource0/available_clocksource", "/sys/devices/system/clocksource"));
    let clocks = clocks.unwrap_or_default();
    let known = [("kvm-clock", "KVM"), ("hyperv", "Hyper-V"), ("xen", "Xen")];
    let kind = known.iter().find_map(|(clock, kind)| clocks.contains(clock).then_some(*kind));
    let dmi = "/sys/class/dmi/id";
    let product = ["sys_vendor", "product_name"].map(|field| text(format!("{dmi}/{field}")));
    let mut names: Vec<String> = product.into_iter().flatten().collect();
    names.extend(kind.map(Into::into));
    Some(if names.is_empty() { "unknown".into() } else { names.join(", ") })
}

/// What the kernel says of each of the processor's weaknesses, by name.
fn mitigations() -> Vec<(String, String)> {
    let Ok(files) = fs::read_dir(format!("{CPUS}/vulnerabilities")) else { return Vec::new() };
    let mut known: Vec<(String, String)> = files
        .filter_map(|file| {
            let file = file.ok()?;
            Some((file.file_name().into_string().ok()?, text(file.path())?))
        })
        .collect();
    known.sort();
    known
}

fn memory_mib(info: &str) -> u64 {
    let kib = value(info, "MemTotal").and_then(|value| value.strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// What stands behind the first `name:`.
fn value<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let line = info.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    Some(line.split_once(':')?.1.trim())
}

fn text(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// How many bytes of a program are needed to run it: what is left when its symbols and debugging information are taken
/// away, but for some KiB that name its sections.
///
/// # Errors
///
/// If it cannot be read, or is not ELF for 64-bit little-endian processors.
pub fn stripped_size(program: &Path) -> io::Result<u64> {
    loaded(&fs::read(program)?)
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "not a program for 64 bits (ELF)"))
}

/// Where the last segment that is loaded ends in the file (elf(5)).
fn loaded(file: &[u8]) -> Option<u64> {
    let number = |at: usize, bytes: usize| {
        let bytes = file.get(at..at.checked_add(bytes)?)?;
        Some(bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    // Magic, 64-bit, little-endian.
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut end = 0;
    for entry in 0..count {
        let at = usize::try_from(table.checked_add(entry * size)?).ok()?;
        let (kind, offset, length) = (number(at, 4)?, number(at + 8, 8)?, number(at + 32, 8)?);
        const PT_LOAD: u64 = 1;
        if kind == PT_LOAD {
            end = end.max(offset.checked_add(length)?);
        }
    }
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_it_is() {
        let host = Host::this(None);
        assert!(host.kernel.is_some() && host.memory_mib > 0 && host.cores > 0, "{host:?}");
        assert_eq!(value("a b\t: x: y\nflags: f\n", "a b"), Some("x: y"));
        assert_eq!(memory_mib("MemTotal:        8148992 kB\n"), 7958);
    }

    #[test]
    fn a_program_without_its_symbols_has_the_size_that_was_told() {
        let this = std::env::current_exe().unwrap();
        let told = stripped_size(&this).unwrap();
        assert!(told < fs::metadata(&this).unwrap().len());
        let dir = tempfile::tempdir().unwrap();
        let stripped = dir.path().join("stripped");
        match Command::new("strip").arg("-o").arg(&stripped).arg(&this).status() {
            Ok(status) if status.success() => {
                let real = fs::metadata(&stripped).unwrap().len();
                assert!(told <= real && real < told + 16_384, "{told} {real}");
            }
            _ => println!("skipped: needs strip"),
        }
        assert_eq!(loaded(b"\x7fELF\x02\x01"), None);
        assert_eq!(loaded(b"#!/bin/sh"), None);
    }
}

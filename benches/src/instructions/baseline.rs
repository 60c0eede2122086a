//! What requests are known to cost, by what the counts depend on beside the proxy's own code.

use std::{collections::BTreeMap, fmt, fs, io, path::Path, process::Command};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What the counts depend on beside the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Environment {
    /// The compiler that chose the instructions.
    rustc: String,
    /// The processor that valgrind shows to the program, which libraries choose their functions by, is its own matter.
    valgrind: String,
    /// Copying, comparing and allocating is the C library's.
    libc: String,
    /// The architecture, and whether it has the wide registers that the same libraries prefer.
    processor: String,
}

impl Environment {
    /// This machine's; `None` if it has no valgrind.
    pub(super) fn find() -> Option<Self> {
        let mut processor = std::env::consts::ARCH.to_owned();
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            processor.push_str("+avx2");
        }
        Some(Self {
            valgrind: says("valgrind", "--version")?,
            rustc: says("rustc", "--version").unwrap_or_default(),
            libc: says("getconf", "GNU_LIBC_VERSION").unwrap_or_default(),
            processor,
        })
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rustc, valgrind, libc, processor } = self;
        write!(f, "{rustc}, {valgrind}, {libc}, {processor}")
    }
}

/// What a program prints when asked so.
fn says(program: &str, argument: &str) -> Option<String> {
    let output =
        Command::new(program).arg(argument).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What was accepted, and in which environment.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Baseline {
    environment: Environment,
    /// Instructions a request, by the case's name.
    instructions: BTreeMap<String, u64>,
}

impl Baseline {
    /// What was counted here.
    pub(super) fn new(environment: Environment, counts: impl Iterator<Item = (&'static str, f64)>) -> Self {
        let instructions = counts.map(|(name, count)| (name.to_owned(), count.round() as u64)).collect();
        Self { environment, instructions }
    }

    /// Reads it; `None` if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let read = serde_json::from_slice(&text);
        read.map(Some).with_context(|| format!("{} is not a baseline", path.display()))
    }

    /// What a case cost, if it was counted in this environment.
    pub(super) fn of(&self, environment: &Environment, name: &str) -> Option<f64> {
        let count = self.instructions.get(name).filter(|_| self.environment == *environment)?;
        Some(*count as f64)
    }

    /// Writes it.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_only_with_the_same_environment() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("instructions.json");
        assert!(Baseline::read(&path).unwrap().is_none());
        let here = Environment {
            rustc: "rustc 1.95.0".into(),
            valgrind: "valgrind-3.19.0".into(),
            libc: "glibc 2.36".into(),
            processor: "x86_64+avx2".into(),
        };
        Baseline::new(here.clone(), [("http1", 12_000.4)].into_iter()).write(&path).unwrap();
        let baseline = Baseline::read(&path).unwrap().unwrap();
        assert_eq!(baseline.of(&here, "http1"), Some(12_000.0));
        assert_eq!(baseline.of(&here, "grpc"), None);
        let there = Environment { libc: "glibc 2.41".into(), ..here };
        assert_eq!(baseline.of(&there, "http1"), None);
    }
}

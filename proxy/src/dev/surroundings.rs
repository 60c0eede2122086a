//! What the command takes from its environment: the user's folders, and this machine as far as trust is concerned.

use std::fmt::Write;
use std::path::PathBuf;

use outrigger_certs::Authority;

use super::authority::{self, Files};
use super::trust::{Machine, Root};

/// What is taken from the environment.
pub(crate) struct Surroundings {
    pub(crate) files: Files,
    pub(crate) home: Option<PathBuf>,
    /// Who the authority is named after.
    pub(crate) owner: String,
}

impl Surroundings {
    pub(crate) fn look() -> Result<Self, String> {
        let path = |variable| std::env::var_os(variable).map(PathBuf::from);
        let data = authority::data_folder(path("XDG_DATA_HOME"), path("HOME"))?;
        let user = ["USER", "LOGNAME"].iter().find_map(|variable| std::env::var(variable).ok());
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let owner = format!("{}@{}", user.as_deref().unwrap_or("somebody"), host.trim());
        // A common name has 64 characters at most (RFC 5280, appendix A.1).
        let owner = owner.chars().filter(char::is_ascii_graphic).take(32).collect();
        Ok(Self { files: Files::new(&data), home: path("HOME"), owner })
    }

    pub(crate) fn machine(&self) -> Machine {
        Machine {
            root: PathBuf::from("/"),
            home: self.home.clone().unwrap_or_default(),
            path: std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
                // Where the system's own are, which a user's PATH may lack.
                .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
                .collect(),
            mac: cfg!(target_os = "macos"),
        }
    }

    pub(crate) fn root(&self, authority: &Authority) -> Root {
        let id = authority.fingerprint().iter().take(4).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Root { file: self.files.root(), pem: authority.cert_pem(), id }
    }
}

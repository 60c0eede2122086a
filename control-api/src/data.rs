//! The data directory: who may read it, and the few files beside the store.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The store.
pub(crate) const STORE: &str = "store.redb";
/// The root certificate, PEM.
pub(crate) const ROOT_CERTIFICATE: &str = "root.crt";
/// The root's private key, PEM.
pub(crate) const ROOT_KEY: &str = "root.key";
/// The key that tokens are signed with, PKCS#8 DER (RFC 5208).
pub(crate) const TOKEN_KEY: &str = "token.key";
/// What tokens say about the mesh, JSON; written at each start, so that tokens can be made beside a running server.
pub(crate) const MESH: &str = "mesh.json";

/// Why a file or folder could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be {what}: {reason}", path.display())]
pub struct FileError {
    /// Which.
    pub path: PathBuf,
    /// What was tried: read, written, made.
    pub what: &'static str,
    /// What the system says.
    pub reason: io::Error,
}

/// Makes the directory, for its owner alone, where it is not there. One that is there is left as it is, with a warning
/// if others may read it: it can be a mount point whose mode is not ours to change.
///
/// # Errors
/// If it cannot be made, or is not a directory.
pub(crate) fn prepare(path: &Path) -> Result<(), FileError> {
    let failed = |reason| FileError { path: path.into(), what: "used as the data directory", reason };
    if let Ok(found) = path.metadata() {
        if !found.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            tracing::warn!("others may look into {} (mode {mode:o}): chmod it to 700", path.display());
        }
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)
}

/// Reads a file.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|reason| FileError { path: path.into(), what: "read", reason })
}

/// Writes a file for its owner alone, whole or not at all, and on disk when this returns.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let failed = |reason| FileError { path: path.into(), what: "written", reason };
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    std::fs::rename(&draft, path).map_err(failed)?;
    // The name is on disk only once its directory is.
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all()).map_err(failed)
}

/// Sixteen random bytes in hexadecimal.
///
/// # Errors
/// If the system has no randomness to give.
pub(crate) fn random_id() -> Result<String, io::Error> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gave no random bytes"))?;
    Ok(hex(&bytes))
}

/// Bytes in lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

//! The local authority: a root certificate of this user's own, and a certificate for each name, all in the user's data
//! folder. It may vouch for `localhost` and names below it alone, so that its key, if stolen, opens nothing else.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use outrigger_certs::Authority;
use outrigger_config::Name;

use super::names::DOMAIN;

/// How long the certificate of a name lives: as long as browsers will allow in years to come.
const LIFETIME: Duration = Duration::from_hours(90 * 24);

/// The files of the local authority.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    folder: PathBuf,
}

/// Where the certificate of a name is, with its key: one file, so that both change at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) name: Name,
    pub(crate) file: PathBuf,
}

impl Files {
    /// In `outrigger` below the user's data folder.
    pub(crate) fn new(data: &Path) -> Self {
        Self { folder: data.join("outrigger") }
    }

    /// The root certificate.
    pub(crate) fn root(&self) -> PathBuf {
        self.authority().join("root.pem")
    }

    fn authority(&self) -> PathBuf {
        self.folder.join("authority")
    }

    /// The authority, made if there is none yet.
    pub(crate) fn open_or_create(&self, owner: &str) -> Result<Authority, String> {
        if let Some(there) = self.open()? {
            return Ok(there);
        }
        let made = Authority::create_constrained(DOMAIN, owner).map_err(|error| error.to_string())?;
        // Made aside, then renamed: of two that are started at once one makes it, and both have it.
        let aside = self.folder.join(format!("authority.{}", unique()));
        let kept = self.keep(&made, &aside);
        let _ = fs::remove_dir_all(&aside);
        match kept {
            Ok(()) => Ok(made),
            Err(error) => self.open()?.ok_or_else(|| {
                format!("the local authority cannot be kept in {}: {error}", self.folder.display())
            }),
        }
    }

    /// The authority, if there is one.
    pub(crate) fn open(&self) -> Result<Option<Authority>, String> {
        let certificate = match fs::read(self.root()) {
            Ok(certificate) => certificate,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot read {}: {error}", self.root().display())),
        };
        let path = self.authority().join("root.key");
        let key = fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Authority::from_pem(&certificate, &key, DOMAIN).map(Some).map_err(|error| {
            format!(
                "the local authority in {} cannot be used: {error}; `outrigger dev untrust` takes it out of what \
                 trusts it, then remove that folder: another is made",
                self.authority().display()
            )
        })
    }

    fn keep(&self, authority: &Authority, aside: &Path) -> io::Result<()> {
        private_folder(&self.folder)?;
        private_folder(aside)?;
        write_private(&aside.join("root.key"), authority.key_pem().expose())?;
        write_private(&aside.join("root.pem"), &authority.cert_pem())?;
        fs::rename(aside, self.authority())
    }

    /// Makes a certificate for each of the names.
    pub(crate) fn issue(&self, authority: &Authority, names: &[Name]) -> Result<Vec<Certificate>, String> {
        let folder = self.folder.join("certificates");
        let kept =
            |error: io::Error| format!("the certificates cannot be kept in {}: {error}", folder.display());
        private_folder(&self.folder).and_then(|()| private_folder(&folder)).map_err(kept)?;
        let issue = |name: &Name| {
            let (issued, key) = authority
                .server_identity(&[name.to_string()], LIFETIME, SystemTime::now())
                .map_err(|error| format!("no certificate for {name}: {error}"))?;
            let file = folder.join(format!("{name}.pem"));
            let aside = folder.join(format!("{name}.{}", unique()));
            write_private(&aside, &format!("{}{}", issued.chain_pem, key.expose()))
                .and_then(|()| fs::rename(&aside, &file))
                .map_err(kept)?;
            Ok(Certificate { name: name.clone(), file })
        };
        names.iter().map(issue).collect()
    }
}

/// Tells what is made aside from what others make at the same time.
fn unique() -> String {
    format!("{:016x}.new", fastrand::u64(..))
}

/// When certificates that were made at `made` are due to be made again: half way.
pub(crate) fn due(made: SystemTime) -> SystemTime {
    made + LIFETIME / 2
}

/// The user's data folder (XDG Base Directory Specification).
pub(crate) fn data_folder(xdg: Option<PathBuf>, home: Option<PathBuf>) -> Result<PathBuf, String> {
    let set = |path: Option<PathBuf>| path.filter(|path| path.is_absolute());
    set(xdg).or_else(|| set(home).map(|home| home.join(".local/share"))).ok_or_else(|| {
        "neither XDG_DATA_HOME nor HOME is set: there is nowhere to keep the local authority".to_owned()
    })
}

/// Makes a folder that its owner alone may enter, unless it is there.
fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    // What is left of one that was broken off may not be ours to read.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn it_is_made_once_and_is_nobody_elses() {
        let data = tempfile::tempdir().unwrap();
        let files = Files::new(data.path());
        assert!(files.open().unwrap().is_none());
        let made = files.open_or_create("ada").unwrap();
        assert_eq!(made.fingerprint(), files.open_or_create("ada").unwrap().fingerprint());
        assert_eq!(mode(&files.authority()), 0o700);
        assert_eq!(mode(&files.authority().join("root.key")), 0o600);
        let names = ["shop.localhost".parse().unwrap()];
        let issued = files.issue(&made, &names).unwrap();
        assert_eq!(mode(&issued[0].file), 0o600);
        let pem = fs::read(&issued[0].file).unwrap();
        let certified = outrigger_certs::edge::Certified::from_pem(&pem, &pem).unwrap();
        assert_eq!(certified.names(), ["shop.localhost"]);
        let days = certified.not_after().duration_since(SystemTime::now()).unwrap().as_secs() / 86_400;
        assert!((88..=90).contains(&days), "{days}");
        let left: Vec<_> = fs::read_dir(&files.folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "nothing is left beside: {left:?}");
    }

    #[test]
    fn one_that_cannot_be_used_is_not_replaced() {
        let data = tempfile::tempdir().unwrap();
        let files = Files::new(data.path());
        files.open_or_create("ada").unwrap();
        fs::write(files.authority().join("root.key"), "no key").unwrap();
        let why = files.open_or_create("ada").unwrap_err();
        assert!(why.contains("outrigger dev untrust"), "{why}");
    }

    #[test]
    fn many_at_once_have_the_same() {
        let data = tempfile::tempdir().unwrap();
        let files = Files::new(data.path());
        let seen: Vec<_> = std::thread::scope(|scope| {
            let open =
                || scope.spawn(|| files.open_or_create("ada").map(|authority| authority.fingerprint()));
            let threads: Vec<_> = (0..2).map(|_| open()).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(seen.iter().all(Result::is_ok), "{seen:?}");
    }
}

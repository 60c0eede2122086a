//! The keys and certificates that a subject is started with, the same for every proxy: P-256, of one authority.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use outrigger_certs::authority::{Authority, signing_request};

/// How long certificates are good for.
const LIFETIME: Duration = Duration::from_hours(24);
const TRUST_DOMAIN: &str = "bench.local";

/// An authority of its own for one subject, whose files are in the subject's folder.
#[derive(Debug)]
pub(crate) struct Certificates<'a> {
    authority: Authority,
    dir: &'a Path,
    /// The certificate of the authority, PEM.
    pub(crate) trust: PathBuf,
}

/// The files of one certificate, PEM.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// Leaf first.
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    /// Both, the chain first, as HAProxy has them.
    pub(crate) both: PathBuf,
}

impl<'a> Certificates<'a> {
    /// Makes the authority, and writes its certificate.
    pub(crate) fn create(dir: &'a Path) -> Result<Self> {
        let authority = Authority::create(TRUST_DOMAIN).context("cannot make the authority")?;
        let trust = write(dir, "trust.pem", &authority.cert_pem())?;
        Ok(Self { authority, dir, trust })
    }

    /// The authority's certificate, PEM.
    pub(crate) fn trust_pem(&self) -> String {
        self.authority.cert_pem()
    }

    /// One for either end of mutual TLS: `name` as the DNS name that proxies check which know no SPIFFE, and
    /// [`spiffe_id`] for those that do.
    pub(crate) fn identity(&self, name: &str) -> Result<Files> {
        let (key, request) = signing_request().context("cannot make a key")?;
        let id = spiffe_id(name).parse().context("not a SPIFFE ID")?;
        let issued = self
            .authority
            .sign(request.as_bytes(), &id, &[name.to_owned()], LIFETIME, SystemTime::now())
            .context("cannot sign a certificate")?;
        self.files(name, &issued.chain_pem, key.expose())
    }

    /// One for a listener that callers speak TLS to, for `bench.local`, `localhost` and `127.0.0.1`.
    pub(crate) fn server(&self) -> Result<Files> {
        let names = ["bench.local", "localhost", "127.0.0.1"].map(str::to_owned);
        let (issued, key) = self
            .authority
            .server_identity(&names, LIFETIME, SystemTime::now())
            .context("cannot sign a certificate")?;
        self.files("listener", &issued.chain_pem, key.expose())
    }

    fn files(&self, name: &str, chain: &str, key: &str) -> Result<Files> {
        Ok(Files {
            chain: write(self.dir, &format!("{name}-chain.pem"), chain)?,
            key: write(self.dir, &format!("{name}-key.pem"), key)?,
            both: write(self.dir, &format!("{name}-both.pem"), &[chain, key].concat())?,
        })
    }
}

/// The SPIFFE ID of [`Certificates::identity`].
pub(crate) fn spiffe_id(name: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/{name}")
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_accepted_in_the_mesh() {
        let dir = tempfile::tempdir().unwrap();
        let certificates = Certificates::create(dir.path()).unwrap();
        let files = certificates.identity("callee").unwrap();
        let read = |path| fs::read(path).unwrap();
        let (chain, key) = (read(&files.chain), read(&files.key));
        let identity = outrigger_certs::Identity::from_pem(&chain, &key, &read(&certificates.trust)).unwrap();
        assert_eq!(identity.id().as_str(), "spiffe://bench.local/callee");
        assert_eq!(read(&files.both), [chain, key].concat());
    }
}

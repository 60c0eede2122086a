//! The root of the mesh's identities, and the server's own certificate under it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_certs::rustls::ServerConfig;
use outrigger_certs::{Authority, control};
use outrigger_config::Hostname;
use tokio::sync::watch;

use crate::data::{self, ROOT_CERTIFICATE, ROOT_KEY, TOKEN_KEY};
use crate::{Running, Shared, StartError};

/// How long the server's own certificate lives. It is renewed at half of that, and never kept.
const SERVER_LIFETIME: Duration = Duration::from_hours(30 * 24);
/// How often the clock is looked at: a sleeping machine's timers stand still, and its clock may be set.
const GLANCE: Duration = Duration::from_mins(1);

/// The authority: of the given files, or of the data directory, where it is made if it is not there.
pub(crate) fn authority(
    folder: &Path,
    given: Option<&(PathBuf, PathBuf)>,
    trust_domain: &str,
) -> Result<Authority, StartError> {
    let own = (folder.join(ROOT_CERTIFICATE), folder.join(ROOT_KEY));
    let (certificate, key) = given.unwrap_or(&own);
    let wrong = |reason| StartError::Root { path: certificate.clone(), reason };
    match (given.is_some() || certificate.exists(), key.exists()) {
        (true, false) if given.is_none() => {
            Err(StartError::HalfARoot { found: certificate.clone(), missing: key.clone() })
        }
        // The key of the tokens is made after the root was whole: the certificate has gone since.
        (false, true) if folder.join(TOKEN_KEY).exists() => {
            Err(StartError::HalfARoot { found: key.clone(), missing: certificate.clone() })
        }
        (true, _) => {
            Authority::from_pem(&data::read(certificate)?, &data::read(key)?, trust_domain).map_err(wrong)
        }
        // A key alone is from a start that was cut off: nothing was ever signed with it.
        (false, _) => {
            let made = Authority::create(trust_domain).map_err(wrong)?;
            data::write_private(key, made.key_pem().expose().as_bytes())?;
            data::write_private(certificate, made.cert_pem().as_bytes())?;
            Ok(made)
        }
    }
}

/// What the server is called: the names given, and those that it always has.
pub(crate) fn server_names(given: &[String]) -> Vec<String> {
    let mut names: Vec<String> = given.to_vec();
    let always = ["localhost", "127.0.0.1", "::1", "outrigger-control", "outrigger-control.outrigger-system"];
    names.extend(always.map(String::from));
    names.push("outrigger-control.outrigger-system.svc".into());
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    if matches!(host.parse(), Ok(Hostname::Exact(_))) {
        names.push(host);
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The TLS configuration of the stream, renewed while the server runs.
pub(crate) struct Server {
    config: watch::Sender<Arc<ServerConfig>>,
}

impl Server {
    /// With a first certificate for `names`.
    pub(crate) fn new(authority: &Authority, names: &[String]) -> Result<Self, outrigger_certs::Error> {
        Ok(Self { config: watch::channel(make(authority, names)?).0 })
    }

    /// What to use for the next connection.
    pub(crate) fn current(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.config.subscribe()
    }

    /// Renews the certificate at half of its life, until the control API stops.
    pub(crate) async fn renew(self, shared: Arc<Shared>, mut running: Running) {
        let mut made = SystemTime::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(GLANCE) => {}
                () = running.stopped() => return,
            }
            let now = SystemTime::now();
            if !is_due(made, now) {
                continue;
            }
            match make(&shared.authority, &shared.names) {
                Ok(config) => {
                    made = now;
                    self.config.send_replace(config);
                }
                Err(error) => tracing::error!(%error, "the server's own certificate was not renewed"),
            }
        }
    }
}

/// Whether a certificate that was made then is to be renewed: at half of its life, or if the clock was set back since.
fn is_due(made: SystemTime, now: SystemTime) -> bool {
    now.duration_since(made).map_or(true, |age| age >= SERVER_LIFETIME / 2)
}

fn make(authority: &Authority, names: &[String]) -> Result<Arc<ServerConfig>, outrigger_certs::Error> {
    let (issued, key) = authority.server_identity(names, SERVER_LIFETIME, SystemTime::now())?;
    control::server_config(issued.chain_pem.as_bytes(), &key, authority.cert_pem().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_says_when_the_servers_certificate_is_due() {
        let (made, hour) = (SystemTime::now(), Duration::from_hours(1));
        let half = SERVER_LIFETIME / 2;
        for (now, due) in [
            (made, false),
            (made + half - hour, false),
            (made + half, true),
            (made + 2 * SERVER_LIFETIME, true),
            (made - hour, true),
        ] {
            assert_eq!(is_due(made, now), due);
        }
    }
}

//! What comes out of files beside the configuration: certificates with their keys, trusted authorities, the identity
//! of a node without a control API. Each is read when it changed, checked, and replaced as a whole; what is bad keeps
//! its last good version.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, fs};

use outrigger_certs::Identity;
use outrigger_certs::edge::{self, Ca, Certified};
use outrigger_config::backend::{BackendTls, CaCertificates};
use outrigger_config::file::IdentityFiles;
use outrigger_config::listener::{Certificate, Listener, ListenerTls, Protocol, TlsMode};
use outrigger_config::snapshot::Snapshot;
use outrigger_config::{Kind, Name};
use outrigger_control::message::Refusal;
use outrigger_http::endpoint::Origin;
use outrigger_telemetry::Metrics;
use rustls::ServerConfig;
use rustls::pki_types::ServerName;

/// What was read from files, by the name of the object that asked for it.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    certificates: BTreeMap<Name, (Content, Arc<Certified>)>,
    /// How listeners terminate TLS.
    pub(crate) listeners: BTreeMap<Name, Arc<ServerConfig>>,
    /// The protocol and the certificates that each of these was made for.
    made_for: BTreeMap<Name, (Option<Protocol>, Vec<Arc<Certified>>)>,
    /// How backends outside the mesh are reached.
    pub(crate) origins: BTreeMap<Name, Origin>,
    origins_from: BTreeMap<Name, (BackendTls, Content)>,
    identity: Content,
}

/// What was in some files; equal content is not parsed again. There are private keys in it, so it is never shown.
#[derive(Default, PartialEq, Eq)]
struct Content(Vec<Vec<u8>>);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Content(..)")
    }
}

fn read(folder: &Path, path: &Path) -> Result<Vec<u8>, String> {
    let path = folder.join(path);
    fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// How a listener terminates TLS, if it does.
pub(crate) fn terminated(listener: &Listener) -> Option<&ListenerTls> {
    listener.tls.as_ref().filter(|tls| tls.mode == TlsMode::Terminate)
}

/// Seconds since 1970, for gauges.
pub(crate) fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

impl Secrets {
    /// The files that a snapshot refers to.
    pub(crate) fn files(folder: &Path, snapshot: &Snapshot) -> BTreeSet<PathBuf> {
        let certificates = snapshot.certificates.iter().flat_map(|(_, spec)| [&spec.chain, &spec.key]);
        let authorities = snapshot.backends.iter().filter_map(|backend| {
            match backend.spec.tls.as_ref().map(|tls| &tls.ca_certificates) {
                Some(CaCertificates::File(path)) => Some(path),
                _ => None,
            }
        });
        certificates.chain(authorities).map(|path| folder.join(path)).collect()
    }

    /// Reads what a snapshot refers to. Answers with what could not be.
    pub(crate) fn load(&mut self, folder: &Path, snapshot: &Snapshot, metrics: &Metrics) -> Vec<Refusal> {
        let mut refused = Vec::new();
        let mut refuse = |kind: Kind, name: &Name, field: &str, reason: String| {
            let (kind, field) = (kind.as_str().into(), field.into());
            refused.push(Refusal { kind, name: name.clone(), field, reason });
        };
        self.certificates.retain(|name, _| snapshot.certificates.iter().any(|(n, _)| n == name));
        for (name, spec) in &snapshot.certificates {
            if let Err((field, reason)) = self.certificate(folder, name, spec) {
                refuse(Kind::Certificate, name, field, reason);
            }
            if let Some((_, certified)) = self.certificates.get(name) {
                let gauge = metrics.certificate_expiry.with_label_values(&[name.as_str()]);
                gauge.set(unix_seconds(certified.not_after()));
            }
        }
        self.terminate(snapshot, |name, reason| refuse(Kind::Listener, name, "tls.certificateRefs", reason));
        let with_tls =
            |name: &Name| snapshot.backends.iter().any(|b| b.name == *name && b.spec.tls.is_some());
        self.origins.retain(|name, _| with_tls(name));
        self.origins_from.retain(|name, _| with_tls(name));
        for backend in &snapshot.backends {
            let Some(tls) = &backend.spec.tls else { continue };
            if let Err(reason) = self.origin(folder, &backend.name, tls) {
                refuse(Kind::Backend, &backend.name, "tls.caCertificates", reason);
            }
        }
        refused
    }

    /// Reads a certificate. Fails with the field that is wrong, and why.
    fn certificate(
        &mut self,
        folder: &Path,
        name: &Name,
        spec: &Certificate,
    ) -> Result<(), (&'static str, String)> {
        let file = |field, path| read(folder, path).map_err(|why| (field, why));
        let content = Content(vec![file("chain", &spec.chain)?, file("key", &spec.key)?]);
        if self.certificates.get(name).is_some_and(|(before, _)| *before == content) {
            return Ok(());
        }
        let [chain, key] = content.0.as_slice() else { return Ok(()) };
        let certified = Certified::from_pem(chain, key).map_err(|error| {
            ("chain", format!("{} with {}: {error}", spec.chain.display(), spec.key.display()))
        })?;
        self.certificates.insert(name.clone(), (content, Arc::new(certified)));
        Ok(())
    }

    /// Makes the listeners' configurations anew whose certificates changed. One without any certificate cannot be
    /// opened.
    fn terminate(&mut self, snapshot: &Snapshot, mut refuse: impl FnMut(&Name, String)) {
        self.listeners.retain(|name, _| {
            snapshot.listeners.iter().any(|l| l.name == *name && terminated(&l.spec).is_some())
        });
        for listener in &snapshot.listeners {
            let Some(tls) = terminated(&listener.spec) else { continue };
            let name = &listener.name;
            let found = |r: &outrigger_config::listener::CertificateRef| self.certificates.get(&r.name);
            let certified: Vec<_> =
                tls.certificate_refs.iter().filter_map(found).map(|(_, c)| c.clone()).collect();
            if certified.is_empty() {
                let names: Vec<_> = tls.certificate_refs.iter().map(|r| r.name.as_str()).collect();
                refuse(
                    name,
                    format!("no certificate can be used ({}), so it is not opened", names.join(", ")),
                );
                self.listeners.remove(name);
                continue;
            }
            let protocol = listener.spec.protocol;
            let same = self.made_for.get(name).is_some_and(|(before, made_of)| {
                let equal = made_of.iter().zip(&certified).all(|(a, b)| Arc::ptr_eq(a, b));
                *before == protocol && made_of.len() == certified.len() && equal
            });
            if same && self.listeners.contains_key(name) {
                continue;
            }
            match edge::server_config(&certified) {
                Ok(mut config) => {
                    if protocol == Some(Protocol::Tls) {
                        // What is spoken inside is between the caller and the application.
                        Arc::make_mut(&mut config).alpn_protocols.clear();
                    }
                    self.listeners.insert(name.clone(), config);
                    self.made_for.insert(name.clone(), (protocol, certified));
                }
                Err(error) => refuse(name, error.to_string()),
            }
        }
    }

    fn origin(&mut self, folder: &Path, name: &Name, tls: &BackendTls) -> Result<(), String> {
        let (ca, content) = match &tls.ca_certificates {
            CaCertificates::System => (Ca::System, Content::default()),
            CaCertificates::File(path) => {
                let pem = read(folder, path)?;
                (Ca::Pem(pem.clone()), Content(vec![pem]))
            }
        };
        let from = (tls.clone(), content);
        if self.origins.contains_key(name) && self.origins_from.get(name) == Some(&from) {
            return Ok(());
        }
        let say = |error: outrigger_certs::Error| error.to_string();
        let http1 = edge::client_config(ca.clone(), &[b"http/1.1"]).map_err(say)?;
        let http2 = edge::client_config(ca, &[b"h2"]).map_err(say)?;
        let server = ServerName::try_from(tls.hostname.as_str().to_owned())
            .map_err(|error| format!("{}: {error}", tls.hostname))?;
        self.origins.insert(name.clone(), Origin { name: server, http1, http2 });
        self.origins_from.insert(name.clone(), from);
        Ok(())
    }

    /// This node's identity out of its files; `None` if they have not changed.
    pub(crate) fn identity(
        &mut self,
        folder: &Path,
        files: &IdentityFiles,
    ) -> Result<Option<Arc<Identity>>, String> {
        let content = Content(vec![
            read(folder, &files.chain)?,
            read(folder, &files.key)?,
            read(folder, &files.trust)?,
        ]);
        if self.identity == content {
            return Ok(None);
        }
        let [chain, key, trust] = content.0.as_slice() else { return Ok(None) };
        let identity = Identity::from_pem(chain, key, trust).map_err(|error| format!("identity: {error}"))?;
        self.identity = content;
        Ok(Some(Arc::new(identity)))
    }
}

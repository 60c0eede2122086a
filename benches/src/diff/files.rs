//! The files that Outrigger's own proxies are started from.

use std::{
    fmt::Write,
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use outrigger_certs::authority::{Authority, signing_request};

use super::exchange::Speaks;

pub(crate) const TRUST_DOMAIN: &str = "bench.local";
pub(crate) const CALLER: &str = "spiffe://bench.local/caller";
pub(crate) const CALLEE: &str = "spiffe://bench.local/callee";

pub(crate) const EDGE: &str = "{ name: bench, address: 127.0.0.1:0, protocol: HTTP }";
pub(crate) const INBOUND: &str =
    "{ name: bench, address: 127.0.0.1:0, direction: Inbound, mtls: { mode: Strict } }";
pub(crate) const OUTBOUND: &str =
    "{ name: bench, address: 127.0.0.1:0, direction: Outbound, protocol: HTTP }";

/// The one way that a proxy sends everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) to: SocketAddr,
    pub(crate) identity: Option<&'static str>,
    pub(crate) protocol: Speaks,
    /// Rules before the one that takes everything.
    pub(crate) rules: &'static str,
}

/// The rule that CONNECT needs.
pub(crate) const CONNECT: &str = "      - { matches: [{ method: CONNECT }], backendRefs: [{ name: app }] }\n";

impl Route {
    pub(crate) fn file(&self, listener: &str, identity: &str) -> String {
        let Self { to, protocol, rules, .. } = self;
        let protocol = match protocol {
            Speaks::Http1 => "HTTP",
            Speaks::Http2 => "H2C",
        };
        let expected = self.identity.map(|id| format!(", identity: '{id}'")).unwrap_or_default();
        format!(
            "admin: {{ address: 127.0.0.1:0 }}
{identity}listeners:
  - {listener}
httpRoutes:
  - name: bench
    listeners: [bench]
    rules:
{rules}      - backendRefs: [{{ name: app }}]
backends:
  - name: app
    protocol: {protocol}
    endpoints:
      - {{ address: '{to}'{expected} }}
"
        )
    }
}

/// Makes a key and a certificate for `id`, writes them to `dir`, and returns the configuration's lines for them.
pub(crate) fn identity(authority: &Authority, dir: &Path, name: &str, id: &str) -> Result<String> {
    let (key, request) = signing_request().context("cannot make a key")?;
    let id = id.parse().context("not a SPIFFE ID")?;
    let issued = authority
        .sign(request.as_bytes(), &id, &[], Duration::from_hours(24), SystemTime::now())
        .context("cannot sign a certificate")?;
    let mut lines = String::from("identity:\n");
    let trust = authority.cert_pem();
    for (field, text) in
        [("chain", issued.chain_pem.as_str()), ("key", key.expose()), ("trust", trust.as_str())]
    {
        let path = dir.join(format!("{name}-{field}.pem"));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let _ = writeln!(lines, "  {field}: '{}'", path.display());
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_files_that_are_right() {
        let to = "127.0.0.1:80".parse().unwrap();
        let files = "identity:\n  chain: 'a b.pem'\n  key: 'k.pem'\n  trust: 't.pem'\n";
        for (listener, identity, files) in
            [(EDGE, None, ""), (INBOUND, None, files), (OUTBOUND, Some(CALLEE), files)]
        {
            for (protocol, rules) in [(Speaks::Http1, ""), (Speaks::Http2, CONNECT)] {
                let text = Route { to, identity, protocol, rules }.file(listener, files);
                let file = outrigger_config::file::parse(&text).unwrap();
                assert!(file.rejected.is_empty() && file.warnings.is_empty(), "{file:?}\n{text}");
                assert_eq!(file.resources.len(), 3);
                assert_eq!(file.identity.is_some(), !files.is_empty());
            }
        }
    }

    #[test]
    fn identities_are_accepted_by_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(TRUST_DOMAIN).unwrap();
        let lines = identity(&authority, dir.path(), "callee", CALLEE).unwrap();
        assert!(lines.starts_with("identity:\n  chain: '"), "{lines}");
        let read = |field: &str| fs::read(dir.path().join(format!("callee-{field}.pem"))).unwrap();
        let identity =
            outrigger_certs::Identity::from_pem(&read("chain"), &read("key"), &read("trust")).unwrap();
        assert_eq!(identity.id().as_str(), CALLEE);
    }
}

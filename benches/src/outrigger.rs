//! Outrigger's own proxies: the files that they are started from, and where they listen.

use std::{
    fmt::Write,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};
use outrigger_certs::authority::{Authority, signing_request};

use crate::{
    caller::Protocol,
    path::{Environment, Subject},
    process::Process,
};

pub(crate) const TRUST_DOMAIN: &str = "bench.local";
pub(crate) const CALLER: &str = "spiffe://bench.local/caller";
pub(crate) const CALLEE: &str = "spiffe://bench.local/callee";

pub(crate) const EDGE: &str = "{ name: bench, address: 127.0.0.1:0, protocol: HTTP }";
pub(crate) const INBOUND: &str =
    "{ name: bench, address: 127.0.0.1:0, direction: Inbound, mtls: { mode: Strict } }";
pub(crate) const OUTBOUND: &str =
    "{ name: bench, address: 127.0.0.1:0, direction: Outbound, protocol: HTTP }";

/// The `outrigger` binary: `given`, or the one beside this program.
///
/// # Errors
///
/// If there is none, with the command that builds it.
pub fn find(given: Option<&Path>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().context("cannot find this program")?.with_file_name("outrigger"),
    };
    if !path.is_file() {
        let build = if cfg!(debug_assertions) { "cargo build" } else { "cargo build --release" };
        bail!(
            "there is no proxy at {}: build it with `{build} -p outrigger-proxy`, or name one with --outrigger PATH",
            path.display()
        );
    }
    Ok(path)
}

/// One proxy between callers and the application, without TLS.
pub(crate) async fn proxy(environment: &Environment, dir: &Path) -> Result<Subject> {
    let route =
        Route { to: environment.application, identity: None, protocol: environment.protocol, rules: "" };
    let (process, address) = start(environment, dir, "proxy", &route.file(EDGE, "")).await?;
    Ok(Subject { address, processes: vec![process] })
}

/// Two sidecars: callers → one of them → mutual TLS → the other → the application.
pub(crate) async fn sidecars(environment: &Environment, dir: &Path) -> Result<Subject> {
    let authority = Authority::create(TRUST_DOMAIN).context("cannot make the authority")?;
    let protocol = environment.protocol;

    let identity = identity(&authority, dir, "callee", CALLEE)?;
    let route = Route { to: environment.application, identity: None, protocol, rules: "" };
    let (callee, address) = start(environment, dir, "callee", &route.file(INBOUND, &identity)).await?;

    let identity = self::identity(&authority, dir, "caller", CALLER)?;
    let route = Route { to: address, identity: Some(CALLEE), protocol, rules: "" };
    let (caller, address) = start(environment, dir, "caller", &route.file(OUTBOUND, &identity)).await?;
    Ok(Subject { address, processes: vec![caller, callee] })
}

/// The one way that a proxy sends everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) to: SocketAddr,
    pub(crate) identity: Option<&'static str>,
    pub(crate) protocol: Protocol,
    /// Rules before the one that takes everything.
    pub(crate) rules: &'static str,
}

/// The rule that CONNECT needs.
pub(crate) const CONNECT: &str = "      - { matches: [{ method: CONNECT }], backendRefs: [{ name: app }] }\n";

impl Route {
    pub(crate) fn file(&self, listener: &str, identity: &str) -> String {
        let Self { to, protocol, rules, .. } = self;
        let protocol = match protocol {
            Protocol::H1 => "HTTP",
            Protocol::H2 => "H2C",
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

async fn start(
    environment: &Environment,
    dir: &Path,
    name: &str,
    file: &str,
) -> Result<(Process, SocketAddr)> {
    let path = dir.join(format!("{name}.yaml"));
    fs::write(&path, file).with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = Command::new(find(environment.outrigger.as_deref())?);
    command.arg("run").arg("-c").arg(&path);
    command.args(["--workers", "1", "--access-log", "off"]).args(&environment.proxy_args);
    let mut process = Process::start(name, command, environment.cpus, dir)?;
    let address = process.line("`outrigger: listener bench on ADDRESS`", listening).await?;
    Ok((process, address))
}

/// Where the listener `bench` accepts, if this line says so.
fn listening(line: &str) -> Option<SocketAddr> {
    line.strip_prefix("outrigger: listener bench on ")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_where_a_proxy_listens() {
        let address = "127.0.0.1:4000".parse().unwrap();
        assert_eq!(listening("outrigger: listener bench on 127.0.0.1:4000"), Some(address));
        assert_eq!(listening("outrigger: admin on http://127.0.0.1:4000"), None);
    }

    #[test]
    fn says_how_to_build_a_proxy_that_is_not_there() {
        let error = find(Some(Path::new("/nowhere/outrigger"))).unwrap_err().to_string();
        assert!(
            error.starts_with("there is no proxy at /nowhere/outrigger: build it with `cargo build"),
            "{error}"
        );
    }

    #[test]
    fn writes_files_that_are_right() {
        let to = "127.0.0.1:80".parse().unwrap();
        let files = "identity:\n  chain: 'a b.pem'\n  key: 'k.pem'\n  trust: 't.pem'\n";
        for (listener, identity, files) in
            [(EDGE, None, ""), (INBOUND, None, files), (OUTBOUND, Some(CALLEE), files)]
        {
            for (protocol, rules) in [(Protocol::H1, ""), (Protocol::H2, CONNECT)] {
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

//! Outrigger itself: the files that it is started from, with everything switched on that a mesh needs.

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use anyhow::Result;

use super::{
    Environment, Hops, Setup, Subject,
    certificates::{Certificates, Files, spiffe_id},
    start::{Start, free},
};
use crate::load::Traffic;

/// What is said of its version, or why it cannot be measured.
pub(super) fn available(setup: &Setup, environment: &Environment) -> Result<String, String> {
    let program = &environment.outrigger;
    if !program.is_file() {
        let build = if cfg!(debug_assertions) { "cargo build" } else { "cargo build --release" };
        return Err(format!(
            "there is no proxy at {}: build it with `{build} -p outrigger-proxy`, or name one with --outrigger PATH",
            program.display()
        ));
    }
    if setup.tracing {
        return Err("Outrigger has no tracing yet".into());
    }
    super::version(Command::new(program).arg("--version"))
}

pub(super) async fn start(start: &Start<'_>) -> Result<Subject> {
    let Setup { hops, tls, .. } = *start.setup;
    let certificates = Certificates::create(start.dir)?;
    let server = tls.then(|| certificates.server()).transpose()?;
    let application = Proxy { to: start.environment.application, expected: None, ..Proxy::new(start.setup) };
    let mut subject = match hops {
        Hops::One => {
            let (listen, server) = (free()?, server.as_ref());
            run(start, "proxy", &Proxy { direction: "Edge", listen, server, ..application }).await?
        }
        Hops::Two => {
            let identity = certificates.identity("callee")?;
            let identity = Some((&identity, &certificates));
            let inbound = Proxy { direction: "Inbound", listen: free()?, identity, ..application };
            let callee = run(start, "callee", &inbound).await?;
            let identity = certificates.identity("caller")?;
            let identity = Some((&identity, &certificates));
            let (to, expected) = (callee.address, Some(spiffe_id("callee")));
            let (direction, server) = ("Outbound", server.as_ref());
            let listen = free()?;
            let caller = Proxy { direction, listen, to, expected, identity, server, ..application };
            run(start, "caller", &caller).await?.before(callee)
        }
    };
    subject.trust = tls.then(|| certificates.trust_pem());
    Ok(subject)
}

async fn run(start: &Start<'_>, name: &str, proxy: &Proxy<'_>) -> Result<Subject> {
    let (file, text) = start.write(&format!("{name}.yaml"), proxy.file())?;
    let mut command = Command::new(&start.environment.outrigger);
    command.arg("run").arg("-c").arg(&file);
    command.args(["--workers", &start.setup.workers.to_string()]);
    command.args(["--access-log", if start.setup.access_log { "stdout" } else { "off" }]);
    command.args(&start.environment.outrigger_args);
    let (mut process, began_in) = start.run(name, command, proxy.listen).await?;
    let admin = process.line("`outrigger: admin on ADDRESS`", administered).await?;
    let configuration = vec![text];
    Ok(Subject { admin: vec![admin], configuration, began_in, ..Subject::one(proxy.listen, process) })
}

/// Where the administration listens, if this line says so.
fn administered(line: &str) -> Option<SocketAddr> {
    line.strip_prefix("outrigger: admin on http://")?.parse().ok()
}

/// One of its proxies.
#[derive(Debug, Clone)]
struct Proxy<'a> {
    setup: &'a Setup,
    direction: &'static str,
    listen: SocketAddr,
    to: SocketAddr,
    /// Who must answer there.
    expected: Option<String>,
    identity: Option<(&'a Files, &'a Certificates<'a>)>,
    /// The certificate of its listener.
    server: Option<&'a Files>,
}

impl<'a> Proxy<'a> {
    fn new(setup: &'a Setup) -> Self {
        let to = ([127, 0, 0, 1], 0).into();
        Self { setup, direction: "Edge", listen: to, to, expected: None, identity: None, server: None }
    }

    fn file(&self) -> String {
        let mut file = String::from("admin: { address: 127.0.0.1:0 }\n");
        if let Some((identity, certificates)) = self.identity {
            let paths = [&identity.chain, &identity.key, &certificates.trust];
            let [chain, key, trust] = paths.map(|path| path.display());
            let _ = writeln!(file, "identity: {{ chain: '{chain}', key: '{key}', trust: '{trust}' }}");
        }
        let _ = writeln!(file, "listeners:\n  - {}", self.listener());
        self.routes(&mut file);
        self.backend(&mut file);
        if let Some(server) = self.server {
            let (chain, key) = (server.chain.display(), server.key.display());
            let _ = writeln!(file, "certificates:\n  - {{ name: bench, chain: '{chain}', key: '{key}' }}");
        }
        file
    }

    fn listener(&self) -> String {
        let bytes = matches!(self.setup.traffic, Traffic::Tcp | Traffic::TcpBulk);
        let mut fields = format!("name: bench, address: '{}', direction: {}", self.listen, self.direction);
        let protocol = match (bytes, self.server.is_some(), self.direction) {
            (true, true, _) => "TLS",
            (true, false, _) => "TCP",
            (false, true, _) => "HTTPS",
            // As in a sidecar, where it finds out what arrives.
            (false, false, "Inbound") => "",
            (false, false, _) => "HTTP",
        };
        if !protocol.is_empty() {
            let _ = write!(fields, ", protocol: {protocol}");
        }
        if self.server.is_some() {
            fields += ", tls: { mode: Terminate, certificateRefs: [{ name: bench }] }";
        }
        if self.direction == "Inbound" {
            fields += ", mtls: { mode: Strict }";
        }
        format!("{{ {fields} }}")
    }

    /// The route that takes everything, after the others: of every two of those one has a host of its own, and one is for any
    /// host, with a path of its own.
    fn routes(&self, file: &mut String) {
        let grpc = matches!(self.setup.traffic, Traffic::Grpc | Traffic::GrpcStream);
        // Retries are armed, and each request has a deadline; what goes on for as long as the test does has none.
        let (kind, policy) = match self.setup.traffic {
            Traffic::Tcp | Traffic::TcpBulk => {
                let rule = "rules: [{ backendRefs: [{ name: app }] }]";
                let _ = writeln!(file, "tcpRoutes:\n  - {{ name: bench, listeners: [bench], {rule} }}");
                return;
            }
            Traffic::Http1 | Traffic::Http2 => (
                "httpRoutes",
                "timeouts: { request: 15s, backendRequest: 5s }, retry: { attempts: 2, codes: [502, 503, 504] }",
            ),
            Traffic::WebSocket => ("httpRoutes", "retry: { attempts: 2, codes: [502, 503, 504] }"),
            Traffic::Grpc => (
                "grpcRoutes",
                "timeouts: { request: 15s, backendRequest: 5s }, retry: { attempts: 2, grpcStatuses: [UNAVAILABLE] }",
            ),
            Traffic::GrpcStream => ("grpcRoutes", "retry: { attempts: 2, grpcStatuses: [UNAVAILABLE] }"),
        };
        let _ = writeln!(file, "{kind}:");
        for other in 1..self.setup.routes {
            let host = format!("hostnames: [route-{other}.bench.local], ");
            let host = if other % 2 == 1 { &host } else { "" };
            let matches = if grpc {
                format!("[{{ method: {{ service: route.R{other} }} }}]")
            } else {
                format!("[{{ path: {{ type: PathPrefix, value: /route-{other} }} }}]")
            };
            let _ = writeln!(
                file,
                "  - {{ name: route-{other}, listeners: [bench], {host}rules: [{{ matches: {matches}, backendRefs: [{{ name: app }}], {policy} }}] }}"
            );
        }
        let _ = writeln!(
            file,
            "  - {{ name: bench, listeners: [bench], rules: [{{ backendRefs: [{{ name: app }}], {policy} }}] }}"
        );
    }

    /// Where it sends, twice, so that there is something to balance: as the address that it is, and mapped to IPv6.
    fn backend(&self, file: &mut String) {
        let protocol = match self.setup.traffic {
            Traffic::Tcp | Traffic::TcpBulk => "",
            Traffic::Http1 | Traffic::WebSocket => "protocol: HTTP, ",
            Traffic::Http2 | Traffic::Grpc | Traffic::GrpcStream => "protocol: H2C, ",
        };
        let expected = self.expected.as_ref().map(|id| format!(", identity: '{id}'")).unwrap_or_default();
        let mapped = match self.to.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), self.to.port()),
            IpAddr::V6(_) => self.to,
        };
        let [first, second] =
            [self.to, mapped].map(|address| format!("{{ address: '{address}'{expected} }}"));
        let _ = writeln!(
            file,
            "backends:\n  - {{ name: app, {protocol}endpoints: [{first}, {second}], outlierDetection: {{ consecutiveFailures: 5 }} }}"
        );
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn reads_where_the_administration_listens() {
        let address = "127.0.0.1:4000".parse().unwrap();
        assert_eq!(administered("outrigger: listener bench on 127.0.0.1:4000"), None);
        assert_eq!(administered("outrigger: admin on http://127.0.0.1:4000"), Some(address));
    }

    #[test]
    fn writes_files_that_are_right() {
        let dir = tempfile::tempdir().unwrap();
        let certificates = Certificates::create(dir.path()).unwrap();
        let (server, callee) = (certificates.server().unwrap(), certificates.identity("callee").unwrap());
        for traffic in Traffic::value_variants() {
            for (direction, tls) in [("Edge", true), ("Edge", false), ("Inbound", false), ("Outbound", false)]
            {
                let setup = Setup {
                    hops: Hops::One,
                    traffic: *traffic,
                    tls,
                    workers: 1,
                    routes: 10,
                    access_log: false,
                    tracing: false,
                };
                let file = Proxy {
                    direction,
                    expected: (direction == "Outbound").then(|| spiffe_id("callee")),
                    identity: (direction != "Edge").then_some((&callee, &certificates)),
                    server: tls.then_some(&server),
                    ..Proxy::new(&setup)
                };
                let text = Proxy { to: "127.0.0.1:80".parse().unwrap(), ..file }.file();
                let file = outrigger_config::file::parse(&text).unwrap();
                assert!(file.rejected.is_empty() && file.warnings.is_empty(), "{file:?}\n{text}");
                assert_eq!(file.identity.is_some(), direction != "Edge");
                let tcp = matches!(traffic, Traffic::Tcp | Traffic::TcpBulk);
                assert_eq!(file.resources.len(), 2 + usize::from(tls) + if tcp { 1 } else { 10 }, "{text}");
            }
        }
    }
}

//! The configuration that a command line stands for, as the text of a file: `outrigger dev` runs it, `--write` writes it.

use std::fmt::Write;
use std::path::Path;

use outrigger_config::HostPort;

use super::authority::Certificate;
use super::names::{DOMAIN, Site, Target};
use super::ports::Ports;

/// Writes the file.
pub(crate) fn text(sites: &[Site], ports: &Ports, certificates: &[Certificate]) -> String {
    let mut text = String::new();
    // Writing to memory does not fail.
    let _ = write_all(&mut text, sites, ports, certificates);
    text
}

fn write_all(
    out: &mut String,
    sites: &[Site],
    ports: &Ports,
    certificates: &[Certificate],
) -> std::fmt::Result {
    listeners(out, ports, certificates)?;
    writeln!(out, "certificates:")?;
    for certificate in certificates {
        let file = quoted(&certificate.file);
        writeln!(out, "  - {{ name: {}, chain: {file}, key: {file} }}", certificate.name)?;
    }
    let names = backend_names(sites);
    writeln!(out, "httpRoutes:")?;
    redirect(out, ports)?;
    let mut written: Vec<&str> = Vec::new();
    for host in sites.iter().map(|site| site.host.as_str()) {
        if written.contains(&host) {
            continue;
        }
        written.push(host);
        writeln!(out, "  - name: {host}")?;
        writeln!(out, "    listeners: [{}]", listener_names(ports, "https"))?;
        writeln!(out, "    hostnames: [{host}]")?;
        writeln!(out, "    rules:")?;
        for (site, name) in sites.iter().zip(&names).filter(|(site, _)| site.host.as_str() == host) {
            rule(out, site, name)?;
        }
    }
    writeln!(out, "backends:")?;
    for (site, name) in sites.iter().zip(&names) {
        backend(out, name, &site.target)?;
    }
    Ok(())
}

fn listeners(out: &mut String, ports: &Ports, certificates: &[Certificate]) -> std::fmt::Result {
    let names: Vec<_> = certificates.iter().map(|c| format!("{{ name: {} }}", c.name)).collect();
    writeln!(out, "listeners:")?;
    for (at, ip) in ports.addresses.iter().enumerate() {
        let suffix = suffix(at);
        let https = super::ports::at(*ip, ports.https);
        writeln!(out, "  - name: https{suffix}")?;
        writeln!(out, "    address: \"{https}\"")?;
        writeln!(out, "    protocol: HTTPS")?;
        writeln!(out, "    tls: {{ certificateRefs: [{}] }}", names.join(", "))?;
        let http = super::ports::at(*ip, ports.http);
        writeln!(out, "  - {{ name: http{suffix}, address: \"{http}\", protocol: HTTP }}")?;
    }
    Ok(())
}

/// The first address is the one that goes without saying.
const fn suffix(at: usize) -> &'static str {
    if at == 0 { "" } else { "-ipv6" }
}

fn listener_names(ports: &Ports, kind: &str) -> String {
    let of = |at: usize| format!("{kind}{}", suffix(at));
    (0..ports.addresses.len()).map(of).collect::<Vec<_>>().join(", ")
}

/// All that comes over HTTP is sent to HTTPS. Not for good: browsers would remember it of `localhost`.
fn redirect(out: &mut String, ports: &Ports) -> std::fmt::Result {
    let to = format!("{{ scheme: https, port: {}, statusCode: 307 }}", ports.https);
    writeln!(out, "  - name: to-https")?;
    writeln!(out, "    listeners: [{}]", listener_names(ports, "http"))?;
    writeln!(out, "    rules: [{{ filters: [{{ type: RequestRedirect, requestRedirect: {to} }}] }}]")
}

fn rule(out: &mut String, site: &Site, backend: &str) -> std::fmt::Result {
    let mut fields = Vec::new();
    if !site.path.is_empty() {
        let path = quoted(Path::new(&site.path));
        fields.push(format!("matches: [{{ path: {{ type: PathPrefix, value: {path} }} }}]"));
    }
    if let Some(rewrite) = rewrite(site) {
        fields.push(format!("filters: [{{ type: URLRewrite, urlRewrite: {rewrite} }}]"));
    }
    fields.push(format!("backendRefs: [{{ name: {backend} }}]"));
    writeln!(out, "      - {}", fields.join("\n        "))
}

/// What of a request's address changes on the way: below its path a folder begins at its own root, and a server elsewhere
/// is asked for its own name.
fn rewrite(site: &Site) -> Option<String> {
    match &site.target {
        Target::Folder(_) if !site.path.is_empty() => {
            Some("{ path: { type: ReplacePrefixMatch, replacePrefixMatch: / } }".to_owned())
        }
        Target::Secure(HostPort::Name(host, _)) => Some(format!("{{ hostname: {host} }}")),
        _ => None,
    }
}

fn backend(out: &mut String, name: &str, target: &Target) -> std::fmt::Result {
    match target {
        Target::Folder(path) => writeln!(out, "  - {{ name: {name}, folder: {} }}", quoted(path)),
        Target::Port(port) => {
            writeln!(out, "  - name: {name}")?;
            writeln!(out, "    waitingPage: true")?;
            writeln!(
                out,
                "    endpoints: [{{ address: \"127.0.0.1:{port}\" }}, {{ address: \"[::1]:{port}\" }}]"
            )
        }
        Target::Address(address) | Target::Secure(address) => {
            writeln!(out, "  - name: {name}")?;
            writeln!(out, "    waitingPage: true")?;
            writeln!(out, "    endpoints: [{{ address: \"{address}\" }}]")?;
            match (target, address) {
                (Target::Secure(_), HostPort::Name(host, _)) => {
                    writeln!(out, "    tls: {{ hostname: {host} }}")
                }
                (Target::Secure(_), HostPort::Socket(address)) => {
                    writeln!(out, "    tls: {{ hostname: \"{}\" }}", address.ip())
                }
                _ => Ok(()),
            }
        }
    }
}

/// A name for the backend of each site: of `shop` and `shop/api`, `shop` and `shop-api`.
fn backend_names(sites: &[Site]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for site in sites {
        let host = site.host.as_str();
        let host = host.strip_suffix(DOMAIN).and_then(|host| host.strip_suffix('.')).unwrap_or(host);
        let mut name = host.to_owned();
        for part in site.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()) {
            let _ = write!(name, "-{}", part.to_ascii_lowercase());
        }
        let mut unique = name.clone();
        let mut count = 1;
        while names.contains(&unique) {
            count += 1;
            unique = format!("{name}-{count}");
        }
        names.push(unique);
    }
    names
}

/// A path as YAML, which takes JSON's strings.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::dev::names::sites;

    #[test]
    fn every_command_line_is_a_valid_configuration() {
        let arguments = [
            "shop=3000",
            "shop/api=localhost:4000",
            "shop/Api=4001",
            "web=/usr",
            "web/local=/usr/local",
            "localhost=db.test:80",
            "out=https://example.org",
            "ip=https://192.0.2.1:8443",
        ];
        let sites = sites(&arguments.map(str::to_owned), Path::new("/"), None).unwrap();
        let ports = Ports {
            https: 8443,
            http: 8080,
            addresses: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        };
        let certificate = |name: &str| Certificate {
            name: name.parse().unwrap(),
            file: format!("/data/\"odd\"/{name}.pem").into(),
        };
        let text = text(&sites, &ports, &[certificate("shop.localhost"), certificate("localhost")]);
        let file = outrigger_config::file::parse(&text).unwrap();
        assert!(file.rejected.is_empty() && file.warnings.is_empty(), "{:?}\n{text}", file.rejected);
        assert!(text.contains("name: shop-api,") || text.contains("name: shop-api\n"), "{text}");
        assert!(text.contains("shop-api-2"), "{text}");
        assert_eq!(file.resources.len(), 4 + 2 + 6 + 8, "{text}");
    }
}

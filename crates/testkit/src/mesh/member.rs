//! The members of a mesh: sidecars, and the applications behind them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outrigger_config::{Kind, Name, Resource, SpiffeId};
use outrigger_proxy::{Options, Proxy, Source};
use outrigger_telemetry::AccessLog;
use serde_json::{Value, json};

use super::{Caller, Error, Mesh, Running, within};
use crate::app::App;

/// An application and the sidecar before it.
#[derive(Debug)]
pub struct Member {
    /// The application.
    pub app: App,
    /// Its sidecar.
    pub sidecar: Sidecar,
}

impl Member {
    /// Starts the application again, after it was stopped or killed, where it was.
    ///
    /// # Errors
    /// If its address cannot be bound.
    pub async fn restart_app(&mut self) -> Result<(), Error> {
        let (name, address) = (self.app.name().to_owned(), self.app.address());
        self.app.kill().await;
        self.app = App::builder().name(&name).address(address).try_start().await?;
        Ok(())
    }
}

/// How an application and its sidecar are to be started.
#[derive(Debug)]
pub struct AppBuilder<'a> {
    version: String,
    sidecar: Builder<'a>,
}

impl<'a> AppBuilder<'a> {
    pub(super) fn new(mesh: &'a Mesh, name: &'a str) -> Self {
        Self { version: name.to_owned(), sidecar: Builder::new(mesh, name) }
    }

    /// What the application answers in `x-app`; else the name of its node.
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// The sidecar takes plain connections beside mutual TLS.
    pub fn permissive(mut self) -> Self {
        self.sidecar = self.sidecar.permissive();
        self
    }

    /// The sidecar logs requests there.
    pub fn log(mut self, log: AccessLog) -> Self {
        self.sidecar = self.sidecar.log(log);
        self
    }

    /// How the sidecar leaves.
    pub fn leaving(mut self, leaving: Leaving) -> Self {
        self.sidecar = self.sidecar.leaving(leaving);
        self
    }

    /// Starts both.
    ///
    /// # Errors
    /// If the system refuses, or the control API is away.
    pub async fn start(mut self) -> Result<Member, Error> {
        let place = SocketAddr::new(self.sidecar.address, 0);
        let app = App::builder().name(&self.version).address(place).try_start().await?;
        self.sidecar.application = Some(app.address());
        Ok(Member { app, sidecar: self.sidecar.start().await? })
    }
}

/// How a sidecar is to be started.
#[derive(Debug)]
pub struct Builder<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) name: &'a str,
    pub(super) address: IpAddr,
    application: Option<SocketAddr>,
    mode: &'static str,
    leaving: Leaving,
    log: Log,
}

/// How a sidecar leaves.
#[derive(Debug, Clone, Copy)]
pub struct Leaving {
    /// How long it still accepts callers of its application.
    pub delay: Duration,
    /// How long its application has to be quiet before it is taken to be gone; `None`: it is not waited for.
    pub quiet: Option<Duration>,
}

/// A log has nothing to show.
#[derive(Clone)]
struct Log(AccessLog);

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Log")
    }
}

impl<'a> Builder<'a> {
    pub(super) fn new(mesh: &'a Mesh, name: &'a str) -> Self {
        let log = Log(AccessLog::off());
        let leaving = Leaving { delay: Duration::ZERO, quiet: None };
        Self { mesh, name, address: mesh.address(), application: None, mode: "Strict", leaving, log }
    }

    /// The application behind it, of any protocol: it gets a listener for it, which takes mutual TLS alone.
    pub fn before(mut self, application: SocketAddr) -> Self {
        self.application = Some(application);
        self
    }

    /// It takes plain connections to its application beside mutual TLS.
    pub fn permissive(mut self) -> Self {
        self.mode = "Permissive";
        self
    }

    /// It logs requests there.
    pub fn log(mut self, log: AccessLog) -> Self {
        self.log = Log(log);
        self
    }

    /// How it leaves; else at once, whatever its application does.
    pub fn leaving(mut self, leaving: Leaving) -> Self {
        self.leaving = leaving;
        self
    }

    /// Puts its resources, and starts it: it is ready, and connected to the control API, when this returns.
    ///
    /// # Errors
    /// If the system refuses, or the control API is away.
    pub async fn start(self) -> Result<Sidecar, Error> {
        let name: Name = self.name.parse()?;
        let folder = self.mesh.folder.path().join(self.name);
        let (token, identity) = self.mesh.token(&name, &folder)?;
        let any = SocketAddr::new(self.address, 0);
        let has_application = self.application.is_some();
        self.mesh.put_all(self.resources(&name, any, any)?).await?;
        let mut sidecar = Sidecar {
            url: self.mesh.url.clone(),
            running: self.mesh.running.clone(),
            complaints: Arc::default(),
            outbound: any,
            inbound: None,
            log: self.log.clone(),
            leaving: self.leaving,
            proxy: None,
            name,
            identity,
            folder,
            token,
        };
        sidecar.start().await?;
        // Where it is found from now on, whenever it is started again.
        let Sidecar { inbound, outbound, .. } = sidecar;
        let revision =
            self.mesh.put_all(self.resources(&sidecar.name, outbound, inbound.unwrap_or(any))?).await?;
        self.mesh.settled(revision).await?;
        debug_assert_eq!(has_application, inbound.is_some(), "an application has a listener before it");
        Ok(sidecar)
    }

    /// Its listeners, and the way from the inbound one to the application, whatever it speaks.
    pub(super) fn resources(
        &self,
        node: &Name,
        outbound: SocketAddr,
        inbound: SocketAddr,
    ) -> Result<Vec<Resource>, Error> {
        let (out, into, app) = (outbound_name(node), inbound_name(node), format!("app-{node}"));
        let spec = json!({ "address": outbound, "direction": "Outbound", "nodes": [node] });
        let mut resources = vec![Resource::parse(Kind::Listener, &out, spec)?];
        let Some(application) = self.application else { return Ok(resources) };
        let mtls = json!({ "mode": self.mode });
        let listener = json!({ "address": inbound, "direction": "Inbound", "mtls": mtls, "nodes": [node] });
        let route = json!({ "listeners": [into], "rules": [{ "backendRefs": [{ "name": app }] }] });
        let backend = json!({ "endpoints": [{ "address": application }] });
        resources.push(Resource::parse(Kind::Listener, &into, listener)?);
        resources.push(Resource::parse(Kind::HttpRoute, &into, route.clone())?);
        resources.push(Resource::parse(Kind::TcpRoute, &into, route)?);
        resources.push(Resource::parse(Kind::Backend, &app, backend)?);
        Ok(resources)
    }
}

fn inbound_name(node: &Name) -> String {
    format!("inbound-{node}")
}

pub(super) fn outbound_name(node: &Name) -> String {
    format!("outbound-{node}")
}

/// A sidecar, driven by the mesh's control API.
#[derive(Debug)]
pub struct Sidecar {
    url: String,
    running: Running,
    name: Name,
    identity: SpiffeId,
    folder: PathBuf,
    token: PathBuf,
    log: Log,
    leaving: Leaving,
    outbound: SocketAddr,
    inbound: Option<SocketAddr>,
    complaints: Arc<std::sync::Mutex<Vec<String>>>,
    proxy: Option<Proxy>,
}

impl Sidecar {
    /// The name of its node.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// Who it is to others.
    pub const fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    /// The name of its listener for what its application sends, to attach routes to.
    pub fn outbound_name(&self) -> String {
        outbound_name(&self.name)
    }

    /// The name of its listener for what its application receives.
    pub fn inbound_name(&self) -> String {
        inbound_name(&self.name)
    }

    /// Where its application sends to.
    pub const fn outbound(&self) -> SocketAddr {
        self.outbound
    }

    /// Where others reach its application, if it has one.
    pub const fn inbound(&self) -> Option<SocketAddr> {
        self.inbound
    }

    /// Its application as an endpoint of a backend.
    pub fn endpoint(&self) -> Value {
        json!({ "address": self.inbound, "identity": self.identity, "instance": self.name })
    }

    /// A caller beside it.
    pub const fn caller(&self) -> Caller {
        Caller::new(self.outbound)
    }

    /// The proxy that runs; `None` while it is stopped.
    pub const fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// What it complained of so far, line by line.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Starts it, after it was stopped, with the state that it keeps. It is ready when this returns; whether it is
    /// connected to the control API, [`Mesh::settled`] tells.
    ///
    /// # Errors
    /// If the system refuses, or it is not ready after half a minute.
    pub async fn start(&mut self) -> Result<(), Error> {
        self.stop().await;
        let source = Source::Control(outrigger_control::Options {
            url: self.url.clone(),
            token_file: Some(self.token.clone()),
            node: self.name.clone(),
            state_dir: self.folder.join("state"),
            version: env!("CARGO_PKG_VERSION").into(),
        });
        let complaints = self.complaints.clone();
        let complain = move |line: &str| {
            complaints.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line.to_owned());
        };
        let access_log = self.log.0.clone();
        let options = Options {
            access_log,
            complain: Arc::new(complain),
            drain_delay: self.leaving.delay,
            drain_quiet: self.leaving.quiet,
            ..Options::quiet(source)
        };
        let proxy = outrigger_proxy::start(options).await?;
        self.running.names().insert(self.name.clone());
        within(proxy.ready(), || format!("{} is ready; {:?}", self.name, self.complaints())).await?;
        let closed = || Error::Late(format!("a listener of {}; {:?}", self.name, self.complaints()));
        self.outbound = proxy.listener(&self.outbound_name()).ok_or_else(closed)?;
        self.inbound = proxy.listener(&self.inbound_name());
        self.proxy = Some(proxy);
        Ok(())
    }

    /// Stops it in order: what is under way is finished.
    pub async fn stop(&mut self) {
        self.running.names().remove(&self.name);
        if let Some(proxy) = self.proxy.take() {
            proxy.stop().await;
        }
    }

    /// Begins to stop it, as SIGTERM does; ready once it has ended. Until it is dropped, stopped or killed, it counts as
    /// running for [`Mesh::settled`].
    pub fn leave(&mut self) -> tokio::task::JoinHandle<()> {
        let proxy = self.proxy.take();
        tokio::spawn(async {
            if let Some(proxy) = proxy {
                proxy.stop().await;
            }
        })
    }

    /// Ends it at once: every connection breaks.
    pub fn kill(&mut self) {
        self.running.names().remove(&self.name);
        self.proxy = None;
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.running.names().remove(&self.name);
    }
}

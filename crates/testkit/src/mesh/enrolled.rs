//! Nodes of a mesh that run elsewhere: in a process of their own.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use outrigger_config::{Name, SpiffeId};
use serde_json::{Value, json};

use super::member::{Builder, outbound_name};
use super::{Error, Mesh};

/// A node that the control API knows, and that `outrigger run` can be: [`Builder::enrol`].
#[derive(Debug)]
pub struct Enrolled {
    name: Name,
    identity: SpiffeId,
    url: String,
    token: PathBuf,
    state: PathBuf,
    outbound: SocketAddr,
    inbound: SocketAddr,
}

impl Builder<'_> {
    /// Puts its resources, and has the mesh wait for it as for those that run here, without starting it.
    ///
    /// # Errors
    /// If the system refuses, or the control API is away.
    pub async fn enrol(self) -> Result<Enrolled, Error> {
        let name: Name = self.name.parse()?;
        let folder = self.mesh.folder.path().join(self.name);
        let (token, identity) = self.mesh.token(&name, &folder)?;
        // No other program listens in the mesh's network, so what is free now is free later.
        let (outbound, inbound) = {
            let any = || TcpListener::bind((self.address, 0));
            let (outbound, inbound) = (any()?, any()?);
            (outbound.local_addr()?, inbound.local_addr()?)
        };
        self.mesh.put_all(self.resources(&name, outbound, inbound)?).await?;
        self.mesh.running.names().insert(name.clone());
        let (url, state) = (self.mesh.url.clone(), folder.join("state"));
        Ok(Enrolled { name, identity, url, token, state, outbound, inbound })
    }
}

impl Enrolled {
    /// The arguments of `outrigger run`.
    pub fn arguments(&self) -> Vec<String> {
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let mut arguments =
            vec!["--control".into(), self.url.clone(), "--node".into(), self.name.to_string()];
        arguments.extend(["--token-file".into(), path(&self.token), "--state-dir".into(), path(&self.state)]);
        let surfaces = ["--admin", "127.0.0.1:0", "--metrics", "off", "--ready", "off"];
        let captured = ["--outbound", "off", "--inbound", "off"];
        arguments.extend(surfaces.into_iter().chain(captured).map(str::to_owned));
        arguments
    }

    /// The name of its listener for what its application sends, to attach routes to.
    pub fn outbound_name(&self) -> String {
        outbound_name(&self.name)
    }

    /// Where its application sends to.
    pub const fn outbound(&self) -> SocketAddr {
        self.outbound
    }

    /// Its application as an endpoint of a backend.
    pub fn endpoint(&self) -> Value {
        json!({ "address": self.inbound, "identity": self.identity, "instance": self.name })
    }

    /// No longer has the mesh wait for it.
    pub fn leave(&self, mesh: &Mesh) {
        mesh.running.names().remove(&self.name);
    }
}

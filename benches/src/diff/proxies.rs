//! What stands between caller and application: nothing, proxies that run in this process, or what the user names.

use std::{fs, net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use outrigger_certs::authority::Authority;
use outrigger_proxy::{Options, Proxy, Source};
use tempfile::TempDir;

use super::{
    Path,
    application::Application,
    exchange::Speaks,
    files::{self, Route},
};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A path that has been started, with the application at its end.
#[derive(Debug)]
pub(crate) struct Started {
    /// Where callers connect.
    pub(crate) address: SocketAddr,
    pub(crate) application: Application,
    proxies: Vec<Proxy>,
    _folder: TempDir,
}

impl Started {
    /// Starts the application and what stands before it.
    ///
    /// # Errors
    ///
    /// If the system refuses, or a proxy does not start.
    pub(crate) async fn start(path: Path, application: Speaks) -> Result<Self> {
        let listen = if let Path::Through { application, .. } = path { application } else { ANY };
        let protocol = application;
        let application = Application::start(protocol, listen)
            .await
            .with_context(|| format!("the application cannot listen on {listen}"))?;
        let folder = TempDir::new().context("no folder for the proxies' files")?;
        let rules = files::CONNECT;
        let mut proxies = Vec::new();
        let address = match path {
            Path::Direct => application.address,
            Path::Through { proxy, .. } => proxy,
            Path::Proxy => {
                let route = Route { to: application.address, identity: None, protocol, rules };
                let file = route.file(files::EDGE, "");
                start(&folder, "proxy", &file, &mut proxies).await?
            }
            Path::Sidecars => {
                let authority =
                    Authority::create(files::TRUST_DOMAIN).context("cannot make the authority")?;
                let identity = files::identity(&authority, folder.path(), "callee", files::CALLEE)?;
                let route = Route { to: application.address, identity: None, protocol, rules };
                let file = route.file(files::INBOUND, &identity);
                let to = start(&folder, "callee", &file, &mut proxies).await?;
                let identity = files::identity(&authority, folder.path(), "caller", files::CALLER)?;
                let route = Route { to, identity: Some(files::CALLEE), protocol, rules };
                let file = route.file(files::OUTBOUND, &identity);
                start(&folder, "caller", &file, &mut proxies).await?
            }
        };
        Ok(Self { address, application, proxies, _folder: folder })
    }

    /// Ends the proxies.
    pub(crate) async fn stop(self) {
        // The caller's sidecar first, so that nothing comes to the other any more.
        for proxy in self.proxies.into_iter().rev() {
            proxy.stop().await;
        }
    }
}

async fn start(folder: &TempDir, name: &str, file: &str, proxies: &mut Vec<Proxy>) -> Result<SocketAddr> {
    let path = folder.path().join(format!("{name}.yaml"));
    fs::write(&path, file).with_context(|| format!("cannot write {}", path.display()))?;
    let mut options = Options::quiet(Source::File(path));
    options.drain_grace = std::time::Duration::ZERO;
    options.complain = Arc::new(|line| {
        // What exchanges leave open is cut at the end of a run.
        if !line.starts_with("connections were still open") {
            eprintln!("outrigger-bench: the proxy says: {line}");
        }
    });
    let proxy = outrigger_proxy::start(options).await.with_context(|| format!("{name} does not start"))?;
    let address = proxy.listener("bench").with_context(|| format!("{name} does not listen"))?;
    proxies.push(proxy);
    Ok(address)
}

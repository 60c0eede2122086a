//! The mesh of the demo: the caller `shop` and three applications `reviews`, each with a sidecar, and the control API
//! that drives them, all in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use outrigger_config::Kind;
use outrigger_testkit::app::App;
use outrigger_testkit::mesh::{Mesh, Sidecar};
use serde_json::json;

/// What the caller calls.
pub(crate) const HOST: &str = "reviews";

/// An application of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Application {
    /// Its name, and that of its node.
    pub(crate) name: &'static str,
    /// Which version of reviews it is.
    pub(crate) version: &'static str,
}

/// Version 1 runs twice, so that one of them may die.
pub(crate) const APPLICATIONS: [Application; 3] = [
    Application { name: "reviews-1", version: "v1" },
    Application { name: "reviews-2", version: "v1" },
    Application { name: "reviews-3", version: "v2" },
];

/// A running mesh. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Town {
    shop: Sidecar,
    reviews: Vec<Reviews>,
    mesh: Mesh,
}

/// An application with its sidecar.
#[derive(Debug)]
struct Reviews {
    application: Application,
    address: SocketAddr,
    /// `None` while it is dead.
    app: Mutex<Option<App>>,
    sidecar: Sidecar,
}

impl Reviews {
    fn app(&self) -> MutexGuard<'_, Option<App>> {
        self.app.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Town {
    /// Starts everything: when this returns, `shop` can call `reviews`. Certificates live for `lifetime`.
    pub(crate) async fn start(lifetime: Duration) -> Result<Self> {
        let mesh = Mesh::with_certificates_for(lifetime).await?;
        let mut reviews = Vec::new();
        for application in APPLICATIONS {
            let app = start_app(application, (Ipv4Addr::LOCALHOST, 0).into()).await?;
            let address = app.address();
            let sidecar = mesh.sidecar(application.name).before(address).start().await?;
            reviews.push(Reviews { application, address, app: Mutex::new(Some(app)), sidecar });
        }
        let shop = mesh.sidecar("shop").start().await?;
        for version in ["v1", "v2"] {
            let of_version = reviews.iter().filter(|reviews| reviews.application.version == version);
            let endpoints: Vec<_> = of_version.map(|reviews| reviews.sidecar.endpoint()).collect();
            // In turn, which is easier to read than the default: that follows latency, of which there is hardly any.
            let spec = json!({ "endpoints": endpoints, "balance": { "type": "RoundRobin" } });
            mesh.put(Kind::Backend, &format!("reviews-{version}"), spec).await?;
        }
        let town = Self { shop, reviews, mesh };
        town.share(90, 10).await?;
        Ok(town)
    }

    /// Shares the requests between the versions. When this returns, every sidecar has heard of it.
    pub(crate) async fn share(&self, v1: u32, v2: u32) -> Result<()> {
        let route = json!({
            "listeners": [self.shop.outbound_name()],
            "hostnames": [HOST],
            "rules": [{
                "backendRefs": [{ "name": "reviews-v1", "weight": v1 }, { "name": "reviews-v2", "weight": v2 }],
                "timeouts": { "request": "5s" },
                "retry": { "attempts": 2, "codes": [502, 503], "backoff": "5ms" },
            }],
        });
        let revision = self.mesh.put(Kind::HttpRoute, "reviews", route).await?;
        Ok(self.mesh.settled(revision).await?)
    }

    /// Ends an application as if its process had died.
    pub(crate) async fn kill(&self, name: &str) -> Result<()> {
        let app = self.find(name)?.app().take();
        if let Some(app) = app {
            app.kill().await;
        }
        Ok(())
    }

    /// Starts an application again, where it was before.
    pub(crate) async fn revive(&self, name: &str) -> Result<()> {
        let reviews = self.find(name)?;
        let app = start_app(reviews.application, reviews.address).await?;
        *reviews.app() = Some(app);
        Ok(())
    }

    /// The applications, and whether each lives.
    pub(crate) fn applications(&self) -> Vec<(Application, bool)> {
        self.reviews.iter().map(|reviews| (reviews.application, reviews.app().is_some())).collect()
    }

    fn find(&self, name: &str) -> Result<&Reviews> {
        let found = self.reviews.iter().find(|reviews| reviews.application.name == name);
        found.with_context(|| format!("there is no application {name}"))
    }

    /// Where the caller calls.
    pub(crate) const fn outbound(&self) -> SocketAddr {
        self.shop.outbound()
    }

    /// Where the caller's sidecar is watched.
    pub(crate) fn admin(&self) -> Result<SocketAddr> {
        self.shop
            .proxy()
            .and_then(|proxy| proxy.addresses().admin)
            .context("the caller's sidecar is not watched")
    }

    /// Where the control API is told what to do.
    pub(crate) fn rest(&self) -> Result<SocketAddr> {
        Ok(self.mesh.control()?.rest())
    }

    /// How often the caller's sidecar has sent a request again.
    pub(crate) fn retries(&self) -> u64 {
        sum(&self.shop, "outrigger_retries_total")
    }

    /// When the certificate of each sidecar ends, in Unix time.
    pub(crate) fn expiries(&self) -> Vec<u64> {
        let sidecars = std::iter::once(&self.shop).chain(self.reviews.iter().map(|reviews| &reviews.sidecar));
        sidecars.map(|sidecar| sum(sidecar, "outrigger_certificate_expiry_timestamp_seconds")).collect()
    }
}

async fn start_app(application: Application, address: SocketAddr) -> Result<App> {
    let app = App::builder().name(application.name).address(address).own_thread().try_start().await;
    app.with_context(|| format!("{} cannot listen on {address}", application.name))
}

/// The sum of a sidecar's metric over all its labels.
fn sum(sidecar: &Sidecar, name: &str) -> u64 {
    let metrics = sidecar.proxy().map(outrigger_proxy::Proxy::metrics).unwrap_or_default();
    let samples = metrics.lines().filter(|line| line.starts_with(name));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

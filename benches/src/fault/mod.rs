//! What happens to a mesh while it carries traffic: configurations, endpoints, certificates and the proxy itself change, and
//! no request may fail because of it.
//!
//! Whatever changes does so on a thread of its own, so that it is not late because of the load, nor the load because of it.

mod act;
mod application;
mod proxy;

use std::{net::SocketAddr, path::Path, thread, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::sync::oneshot;

use crate::{
    load::{Arrivals, Callers, Connect, Load, Measured, Target, Tls, Traffic},
    subject::Environment,
};

/// How long the load goes on before its latency counts.
const WARM_UP: Duration = Duration::from_millis(300);

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The proxy's file is written anew every 50 ms, with a hundred other routes.
    Routes,
    /// An endpoint comes, and an older one goes: first from the file, then its application with all its connections.
    Endpoints,
    /// Both sidecars' certificates and keys are renewed every second, and so are the connections between them.
    Certificates,
    /// A new proxy takes over the sockets, and the old one finishes what is under way and ends.
    Drain,
}

impl Fault {
    /// All of them, by what changes.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Routes, "route"),
        (Self::Endpoints, "endpoints"),
        (Self::Certificates, "certificate"),
        (Self::Drain, "drain"),
    ];

    /// What is counted as a change, in words.
    pub const fn changes(self) -> &'static str {
        match self {
            Self::Routes => "configurations went live",
            Self::Endpoints => "endpoints were replaced",
            Self::Certificates => "times both certificates went live",
            Self::Drain => "proxies were replaced",
        }
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What the callers saw.
    pub measured: Measured,
    /// How often it happened: see [`Fault::changes`].
    pub changes: u64,
}

/// The load: an open loop over kept connections.
pub fn load() -> Load {
    Load {
        traffic: Traffic::Http1,
        arrivals: Arrivals::Poisson { rate: 1000.0 },
        connections: 16,
        streams: 1,
        request_bytes: 0,
        response_bytes: 64,
        connect: Connect::Keep,
        tls: Tls::Off,
        seed: 5,
    }
}

/// Has it happen to Outrigger, again and again for as long, under [`load`]. The environment's application is not used: each
/// fault has its own.
///
/// # Errors
///
/// If a proxy or the load cannot be started, a change does not come into effect, or nothing has changed at the end.
pub async fn run(fault: Fault, environment: &Environment, time: Duration) -> Result<Outcome> {
    let dir = tempfile::tempdir().context("cannot make a folder")?;
    let stage = Stage { environment: environment.clone(), dir: dir.path().into() };
    let (ready, address) = oneshot::channel();
    let (stop, stopped) = oneshot::channel();
    let (done, changes) = oneshot::channel();
    thread::Builder::new().name("fault".into()).spawn(move || {
        let _ = done.send(stage.play(fault, ready, stopped));
    })?;
    let lost = || anyhow!("the thread that changes things panicked");
    let Ok(address) = address.await else {
        return Err(changes.await.map_err(|_| lost())?.err().unwrap_or_else(lost));
    };
    let mut callers = Callers::connect(&load(), &Target::application(address, None)).await?;
    // The first connection between two sidecars is another matter than the later ones.
    let (begun, measured) = (callers.run(WARM_UP).await, callers.run(time).await);
    let _ = stop.send(());
    let changes = changes.await.map_err(|_| lost())?;
    let (begun, mut measured, changes) =
        (begun?, measured?, changes.with_context(|| format!("{fault:?} under load"))?);
    // What failed counts whenever it did.
    measured.errors += begun.errors;
    measured.first_error = begun.first_error.or(measured.first_error);
    ensure!(changes > 0, "{fault:?}: nothing has changed within {time:?}");
    Ok(Outcome { measured, changes })
}

/// What a fault is given.
#[derive(Debug)]
struct Stage {
    environment: Environment,
    dir: Box<Path>,
}

impl Stage {
    /// Starts the proxies, says where callers connect, and changes things until told to stop. How often.
    fn play(
        &self,
        fault: Fault,
        ready: oneshot::Sender<SocketAddr>,
        stopped: oneshot::Receiver<()>,
    ) -> Result<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let cues = act::Cues { ready: Some(ready), stopped };
            match fault {
                Fault::Routes => act::routes(self, cues).await,
                Fault::Endpoints => act::endpoints(self, cues).await,
                Fault::Certificates => act::certificates(self, cues).await,
                Fault::Drain => act::drain(self, cues).await,
            }
        })
    }
}

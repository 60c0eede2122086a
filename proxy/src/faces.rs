//! What shows a proxy to those who watch over it: the sockets of its own, and what is answered there.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use outrigger_config::explain::{Unexplained, explain};
use outrigger_net::listen;
use outrigger_telemetry::{LogControl, Metrics};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::admin::{Admin, LAST_WORD, Readiness, Surface};
use crate::director::{Published, Tell, current};
use crate::health::{self, Findings};
use crate::listeners::Given;
use crate::proxy::{Addresses, StartError};

/// Where the admin interface is where nobody says.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// A socket of the proxy's own.
#[derive(Debug)]
pub(crate) struct Face {
    surface: Surface,
    /// What it is called.
    pub(crate) what: &'static str,
    /// The address asked for, perhaps with port 0.
    pub(crate) asked: SocketAddr,
    /// Where it listens.
    pub(crate) local: SocketAddr,
    pub(crate) socket: std::net::TcpListener,
}

/// Where the proxy's own sockets are to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) ready: Option<SocketAddr>,
}

/// What answers there, until another process does.
#[derive(Debug, Default)]
pub(crate) struct Answering(Vec<JoinHandle<()>>);

impl Answering {
    /// Waits until those have their answers who asked before another process took over: they are short, but for one that
    /// is not read.
    pub(crate) async fn ended(self) {
        let all = async {
            for face in self.0 {
                let _ = face.await;
            }
        };
        let _ = tokio::time::timeout(2 * LAST_WORD, all).await;
    }
}

/// What is shown.
pub(crate) struct Shown {
    pub(crate) metrics: Metrics,
    pub(crate) published: Published,
    pub(crate) findings: Findings,
}

/// What is answered.
pub(crate) fn interface(
    Shown { metrics, published, findings }: Shown,
    ready: watch::Receiver<Readiness>,
    log: LogControl,
    quit: watch::Sender<bool>,
    replaced: watch::Receiver<bool>,
) -> Admin {
    let set = log.clone();
    let (explained, seen) = (published.clone(), published.clone());
    Admin {
        ready,
        metrics: Box::new(move || metrics.encode()),
        config: Box::new(move || {
            let live = current(&published);
            live.map_or(serde_json::Value::Null, |live| {
                let mut config = live.snapshot.resources_json();
                config["revision"] = live.snapshot.revision.into();
                if let Some(identity) = &live.node.identity {
                    config["identity"] = identity.id().as_str().into();
                }
                config
            })
        }),
        endpoints: Box::new(move || health::endpoints(&seen, &findings)),
        explain: Box::new(move |asked| {
            let live = current(&explained);
            live.map_or(Err(Unexplained::NoListener), |live| explain(&live.snapshot, asked))
        }),
        level: Box::new(move || log.level()),
        set_level: Box::new(move |level| set.set(level).map_err(|error| error.to_string())),
        quit,
        replaced,
    }
}

/// Opens the sockets of the interfaces for those who watch over the proxy, or takes those that are there.
pub(crate) fn open(
    places: Places,
    mut own: Option<&mut Vec<Given>>,
    given: &mut Vec<Given>,
) -> Result<Vec<Face>, StartError> {
    let mut faces = Vec::new();
    let surfaces = [
        (Surface::All, Some(places.admin.unwrap_or(ADMIN))),
        (Surface::Metrics, places.metrics),
        (Surface::Ready, places.ready),
    ];
    for (surface, asked) in surfaces {
        let Some(asked) = asked else { continue };
        if surface == Surface::All && !asked.ip().is_loopback() {
            return Err(StartError::ExposedAdmin(asked));
        }
        let (what, hint) = match surface {
            Surface::All => (
                "admin",
                "; --admin ADDRESS, or `admin: { address: … }` in the file, moves the admin interface",
            ),
            Surface::Metrics => ("metrics", "; --metrics ADDRESS moves the metrics"),
            Surface::Ready => ("readiness", "; --ready ADDRESS moves the readiness"),
        };
        let refuse = |source| StartError::Listen { what, source, hint };
        let before = own.as_mut().and_then(|own| Given::take(own, what, asked));
        let there = before.or_else(|| Given::take(given, what, asked));
        let (local, sockets) = match there {
            Some(there) => (there.local, there.sockets),
            None => {
                let bound = listen::bind(asked, 1).map_err(refuse)?;
                (bound.local, bound.sockets)
            }
        };
        if surface == Surface::All && !local.ip().is_loopback() {
            return Err(StartError::ExposedAdmin(local));
        }
        let Some(socket) = sockets.into_iter().next() else { continue };
        faces.push(Face { surface, what, asked, local, socket });
    }
    Ok(faces)
}

/// Answers those who watch over the proxy.
pub(crate) fn answer(
    interface: &Arc<Admin>,
    faces: &[Face],
    announce: &Tell,
) -> Result<(Addresses, Answering), StartError> {
    let (mut addresses, mut answering) = (Addresses::default(), Vec::new());
    for Face { surface, what, local, socket, .. } in faces {
        let socket = TcpListener::from_std(listen::copy(socket)?)?;
        answering.push(tokio::spawn(interface.clone().serve(socket, *surface)));
        let open = if local.ip().is_loopback() { "" } else { " (not authenticated)" };
        announce(&format!("{what} on http://{local}{open}"));
        let place = match surface {
            Surface::All => &mut addresses.admin,
            Surface::Metrics => &mut addresses.metrics,
            Surface::Ready => &mut addresses.ready,
        };
        *place = Some(*local);
    }
    Ok((addresses, Answering(answering)))
}

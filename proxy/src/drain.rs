//! The end of a proxy, in order. Who calls the application is sent elsewhere, and what they have under way is finished;
//! the application itself is served as before until it is gone, for what it still has to do it does with others' help.

use std::cell::Cell;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use outrigger_config::Name;
use outrigger_config::listener::Direction;
use outrigger_http::Security;
use outrigger_telemetry::Metrics;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::admin::Readiness;
use crate::director::{Published, Tell, current};
use crate::state::Live;
use crate::worker::{Order, Side, ask};

/// How often it is looked whether the application is still there.
const LOOK: Duration = Duration::from_millis(100);
/// How long the application may take to accept a connection, before it is taken to be busy, and there.
const KNOCK: Duration = Duration::from_secs(1);
/// How long callers that keep idle connections of HTTP/1 have to ask once more, when another process has taken over:
/// told with that answer, none of them finds its connection closed under its request.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// The least that the workers are given to say that nothing is open.
const WORD: Duration = Duration::from_millis(50);

/// How a proxy ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// How long callers are still accepted.
    pub(crate) delay: Duration,
    /// How long what is under way, and the application, may take after that.
    pub(crate) grace: Duration,
    /// How long the application has to have been quiet before it is taken to be gone; `None`: it is not waited for.
    pub(crate) quiet: Option<Duration>,
}

/// Why it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to.
    Told,
    /// Another process accepts in its place.
    Replaced,
    /// It was dropped: at once.
    Dropped,
}

/// For whom a proxy still opens sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Opens {
    #[default]
    Everybody,
    /// It is leaving, and accepts no more callers of the application soon.
    Application,
    Nobody,
}

/// What it takes to end a proxy.
pub(crate) struct Leaving {
    pub(crate) terms: Terms,
    pub(crate) orders: Vec<mpsc::Sender<Order>>,
    pub(crate) published: Published,
    pub(crate) ready: watch::Sender<Readiness>,
    pub(crate) metrics: Metrics,
    /// Whether somebody said that the application is gone.
    pub(crate) gone: watch::Receiver<bool>,
    /// Tells the director what is still to be opened: nobody would accept on the rest.
    pub(crate) opens: Rc<Cell<Opens>>,
    pub(crate) complain: Tell,
}

impl Leaving {
    /// Ends it. When this returns, the workers have been told to stop.
    pub(crate) async fn run(&self, end: End) {
        if end != End::Dropped {
            self.ready.send_replace(Readiness::NotReady("draining".into()));
            self.metrics.ready.set(0);
            self.opens.set(if end == End::Told { Opens::Application } else { Opens::Nobody });
        }
        match end {
            End::Told => self.leave().await,
            End::Replaced => self.give_way().await,
            End::Dropped => {}
        }
        self.tell(|| Order::Stop).await;
    }

    async fn leave(&self) {
        let Terms { delay, grace, quiet } = self.terms;
        self.tell(|| Order::Announce).await;
        let Some(quiet) = quiet.filter(|_| self.live().is_some_and(|live| has_outbound(&live))) else {
            let _ = timeout(delay, self.told()).await;
            self.close(Side::Inbound).await;
            self.close(Side::Outbound).await;
            if timeout(grace.max(WORD), self.quiet()).await.is_err() {
                self.complain_of_connections();
            }
            return;
        };
        let is_gone = Cell::new(false);
        let mut gone = std::pin::pin!(async {
            self.application_gone(quiet).await;
            is_gone.set(true);
        });
        // Who would still be accepted had nobody to be answered by.
        let _ = timeout(delay, &mut gone).await;
        let until = Instant::now() + grace.max(WORD);
        self.close(Side::Inbound).await;
        let ended = timeout_at(until, async {
            if !is_gone.get() {
                gone.await;
            }
            self.close(Side::Outbound).await;
            self.quiet().await;
        });
        match ended.await {
            Ok(()) => {}
            Err(_) if is_gone.get() => self.complain_of_connections(),
            Err(_) => (self.complain)(&format!(
                "the application was still there after the grace period of {grace:?}; what is open is cut"
            )),
        }
    }

    /// Another process accepts: connections end as it suits their callers, and new ones go there.
    async fn give_way(&self) {
        let until = Instant::now() + self.terms.grace.max(WORD);
        self.tell(|| Order::HandOver).await;
        if timeout_at(until.min(Instant::now() + LAST_ANSWER), self.quiet()).await.is_ok() {
            return;
        }
        self.close(Side::Inbound).await;
        self.close(Side::Outbound).await;
        if timeout_at(until, self.quiet()).await.is_err() {
            self.complain_of_connections();
        }
    }

    fn complain_of_connections(&self) {
        (self.complain)(&format!(
            "connections were still open after the grace period of {:?}; they are cut",
            self.terms.grace
        ));
    }

    async fn tell(&self, order: impl Fn() -> Order) {
        for orders in &self.orders {
            let _ = orders.send(order()).await;
        }
    }

    async fn close(&self, side: Side) {
        if side == Side::Outbound {
            self.opens.set(Opens::Nobody);
        }
        self.tell(|| Order::Drain(side)).await;
    }

    /// Returns when no connection is open.
    async fn quiet(&self) {
        for side in [Side::Inbound, Side::Outbound] {
            ask(&self.orders, |done| Order::Quiet(side, done)).await;
        }
    }

    fn live(&self) -> Option<Arc<Live>> {
        current(&self.published)
    }

    /// Returns once somebody says that the application is gone, or nothing tells otherwise: it has had no connection open
    /// for so long, and where its own addresses are known, none of them accepts.
    async fn application_gone(&self, quiet: Duration) {
        tokio::select! {
            () = self.told() => {}
            () = self.silence(quiet) => {}
        }
    }

    /// Returns once somebody says that the application is gone.
    pub(crate) async fn told(&self) {
        if self.gone.clone().wait_for(|gone| *gone).await.is_err() {
            // Nobody is left who could.
            std::future::pending::<()>().await;
        }
    }

    async fn silence(&self, quiet: Duration) {
        let began = std::time::Instant::now();
        let look = LOOK.min(quiet);
        let mut said = false;
        loop {
            // Since when none of the workers has had a connection of the application.
            let idle = ask(&self.orders, Order::Idle).await.into_iter().collect::<Option<Vec<_>>>();
            let since = idle.map(|since| since.into_iter().fold(began, std::time::Instant::max));
            let left = since.map(|since| quiet.saturating_sub(since.elapsed()));
            match left {
                Some(Duration::ZERO) => {
                    let Some(address) = self.is_there().await else { return };
                    if !std::mem::replace(&mut said, true) {
                        (self.complain)(&format!(
                            "the application is still there, at {address}; its connections work until it is gone"
                        ));
                    }
                }
                Some(left) => {
                    sleep(left.min(look)).await;
                    continue;
                }
                None => {}
            }
            sleep(look.max(Duration::from_millis(1))).await;
        }
    }

    /// Where the application accepts a connection, of the addresses where it is known to be.
    async fn is_there(&self) -> Option<SocketAddr> {
        let live = self.live()?;
        for address in applications(&live) {
            match timeout(KNOCK, TcpStream::connect(address)).await {
                Ok(Err(_)) => {}
                Ok(Ok(_)) | Err(_) => return Some(address),
            }
        }
        None
    }
}

fn has_outbound(live: &Live) -> bool {
    live.listeners
        .iter()
        .any(|listener| listener.direction == Direction::Outbound && listener.sockets.is_some())
}

/// Where the application beside this proxy is: the endpoints of this very node, and what inbound listeners lead to on
/// this host, whether a route says so or captured traffic did.
fn applications(live: &Live) -> Vec<SocketAddr> {
    let inbound =
        |name: &Name| live.listeners.iter().any(|it| it.direction == Direction::Inbound && it.name == *name);
    let http = live.snapshot.http_rules.iter().filter(|entry| inbound(&entry.listener)).flat_map(|entry| {
        let rule = entry.spec.rules.get(entry.index);
        rule.into_iter().flat_map(|rule| rule.backend_refs.iter().map(|reference| &reference.name))
    });
    let tcp = live.snapshot.tcp_rules.iter().filter(|entry| inbound(&entry.listener));
    let tcp = tcp.flat_map(|entry| entry.shares.refs().iter().map(|share| &share.name));
    let named: Vec<_> = http.chain(tcp).map(Name::as_str).collect();
    let endpoints = live.backends.iter().flat_map(|it| {
        let led_to = named.contains(&&*it.backend.name);
        it.backend.endpoints.iter().filter(move |endpoint| match endpoint.security {
            Security::Own => true,
            Security::Plain => led_to,
            Security::Mesh { .. } | Security::Tls(_) | Security::Inside(_) => false,
        })
    });
    let mut addresses: Vec<_> = endpoints.map(|endpoint| endpoint.address).collect();
    addresses.extend(live.node.applications.addresses());
    addresses.sort_unstable();
    addresses.dedup();
    let ours = |address: &SocketAddr| {
        live.listeners.iter().any(|it| it.sockets.as_ref().is_some_and(|s| s.local == *address))
    };
    // Only an address of this very host can be bound to.
    addresses.retain(|address| !ours(address) && UdpSocket::bind((address.ip(), 0)).is_ok());
    addresses
}

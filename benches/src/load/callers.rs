//! The callers of a load: their connections, made before anything is measured and kept from one sample to the next.

use std::{fmt, future::Future, io, pin::Pin, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{
    Arrivals, Connect, Load, Measured, Target, Traffic,
    dial::Dialer,
    dispatch::{self, Lane, Pace},
    http1::Http1,
    http2::{Bidirectional, Plain, Streams, Unary, Unshared},
    lane::{Alone, Talk},
    schedule::Schedule,
    shared::{Connection, Shared},
    tcp::{Bulk, Tcp},
    websocket::WebSocket,
};
use crate::timer::Timer;

/// HTTP/2 by ALPN.
const H2: &[&[u8]] = &[b"h2"];
const HTTP1: &[&[u8]] = &[b"http/1.1"];

/// Those who call, with their connections.
pub struct Callers {
    load: Load,
    group: Box<dyn Group>,
    awake: bool,
    runs: u64,
}

impl Callers {
    /// Connects (and makes the sessions that are to be resumed).
    ///
    /// # Errors
    ///
    /// If the load makes no sense, or a connection cannot be made.
    pub async fn connect(load: &Load, target: &Target) -> Result<Self> {
        check(load)?;
        let target = Arc::new(target.clone());
        let mut group = group(load, &target)?;
        let failed = || format!("callers cannot speak {:?} to {}", load.traffic, target.address);
        group.connect().await.with_context(failed)?;
        Ok(Self { load: load.clone(), group, awake: false, runs: 0 })
    }

    /// Whether this thread stays awake while a request is under way or about to be due, as it should where it has a core to
    /// itself and the load is not saturated: otherwise the time that the core takes to wake is counted as the proxy's.
    pub fn stay_awake(&mut self, awake: bool) {
        self.awake = awake;
    }

    /// Sends requests for as long, and waits for their answers. Each run has a schedule of its own, by the load's seed.
    ///
    /// # Errors
    ///
    /// If the system has no timer. Requests that fail are counted.
    pub async fn run(&mut self, time: Duration) -> Result<Measured> {
        let seed = self.load.seed.wrapping_add(self.runs);
        self.runs += 1;
        let schedule = Schedule::new(self.load.arrivals, time, seed);
        let pace = Pace { schedule, time, awake: self.awake };
        self.group.run(pace).await.context("the generator has no timer")
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callers").field("load", &self.load).finish_non_exhaustive()
    }
}

fn check(load: &Load) -> Result<()> {
    ensure!(load.connections > 0 && load.streams > 0, "a load needs a connection, and a stream on it");
    let multiplexed = matches!(load.traffic, Traffic::Http2 | Traffic::Grpc | Traffic::GrpcStream);
    ensure!(multiplexed || load.streams == 1, "{:?} has one request at a time on a connection", load.traffic);
    if let Some(rate) = load.arrivals.rate() {
        ensure!(rate.is_finite() && rate > 0.0, "{rate} requests a second are no rate");
    }
    match load.traffic {
        Traffic::Tcp => {
            ensure!(load.request_bytes > 0 && load.response_bytes > 0, "TCP has no messages of 0 bytes");
        }
        Traffic::TcpBulk => {
            ensure!(load.arrivals == Arrivals::Saturated, "bytes in bulk have no rate: they are saturated");
            ensure!(load.connect == Connect::Keep, "bytes in bulk go over connections that are kept");
        }
        _ => {}
    }
    Ok(())
}

fn group(load: &Load, target: &Arc<Target>) -> Result<Box<dyn Group>> {
    match load.traffic {
        Traffic::Http1 => alone(load, target, HTTP1, &Http1::new(load, target)),
        Traffic::Http2 => streams(load, target, &Plain::new(load, target)?),
        Traffic::Grpc => streams(load, target, &Unary::new(load, target)?),
        Traffic::GrpcStream => streams(load, target, &Bidirectional::new(load, target)?),
        Traffic::WebSocket => alone(load, target, HTTP1, &WebSocket::new(load, target)),
        Traffic::Tcp => alone(load, target, &[], &Tcp::new(load)),
        Traffic::TcpBulk => alone(load, target, &[], &Bulk),
    }
}

fn alone<T: Talk>(load: &Load, target: &Arc<Target>, alpn: &[&[u8]], talk: &T) -> Result<Box<dyn Group>> {
    let dialer = Dialer::new(load, target, alpn)?;
    let lanes: Vec<_> = (0..load.connections).map(|_| Alone::new(&dialer, talk, load.connect)).collect();
    Ok(Box::new(lanes))
}

fn streams<S: Streams>(load: &Load, target: &Arc<Target>, streams: &S) -> Result<Box<dyn Group>> {
    if load.connect == Connect::Each {
        return alone(load, target, H2, &Unshared(streams.clone()));
    }
    let dialer = Dialer::new(load, target, H2)?;
    // The first streams of all connections come first, so that few requests are spread over all of them.
    let connections: Vec<_> = (0..load.connections).map(|_| Connection::new(&dialer)).collect();
    let lanes = (0..load.streams).flat_map(|_| &connections);
    let lanes: Vec<_> = lanes.map(|connection| Shared::new(connection, streams)).collect();
    Ok(Box::new(lanes))
}

type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Lanes of one kind.
trait Group: Send {
    fn connect(&mut self) -> Later<'_, Result<()>>;

    fn run(&mut self, pace: Pace) -> Later<'_, io::Result<Measured>>;
}

impl<L: Lane> Group for Vec<L> {
    fn connect(&mut self) -> Later<'_, Result<()>> {
        Box::pin(async move {
            for lane in self {
                lane.prepare().await?;
            }
            Ok(())
        })
    }

    fn run(&mut self, pace: Pace) -> Later<'_, io::Result<Measured>> {
        Box::pin(async move { dispatch::run(self, pace, Timer::new()?).await })
    }
}

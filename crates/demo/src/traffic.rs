//! The traffic: requests at a constant rate that waits for nobody, and what became of each.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use outrigger_benches::timer::{Timer, Wait as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a request may take before it counts as failed.
const GIVE_UP: Duration = Duration::from_secs(10);

/// What became of the requests so far.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// How many were answered by each application.
    pub(crate) answered: BTreeMap<String, u64>,
    pub(crate) failed: u64,
    /// Why the first one failed.
    pub(crate) first_failure: Option<String>,
    /// Microseconds from when a request was due until its answer was complete.
    pub(crate) latency: Histogram<u64>,
}

impl Seen {
    fn nothing() -> Self {
        // Up to a minute, three digits: hdrhistogram accepts these.
        let latency = Histogram::new_with_bounds(1, 60_000_000, 3).unwrap_or_else(|_| unreachable!());
        Self { answered: BTreeMap::new(), failed: 0, first_failure: None, latency }
    }

    /// How many requests were answered.
    pub(crate) fn requests(&self) -> u64 {
        self.latency.len()
    }

    /// How many requests an application answered.
    pub(crate) fn by(&self, application: &str) -> u64 {
        self.answered.get(application).copied().unwrap_or_default()
    }

    /// What happened since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (application, count) in &mut since.answered {
            *count -= earlier.by(application);
        }
        since.failed -= earlier.failed;
        // The earlier one is a part of this one, so nothing is below zero.
        let _ = since.latency.subtract(&earlier.latency);
        since
    }

    /// The latency below which a share of the requests stayed, in milliseconds.
    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// A caller that sends requests until it is stopped, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Traffic {
    seen: Arc<Mutex<Seen>>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Traffic {
    /// Sends `rate` requests in a second to `host`, by way of `address`.
    pub(crate) fn start(address: SocketAddr, host: &'static str, rate: u32) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::nothing()));
        let (stop, stopped) = oneshot::channel();
        let caller = Arc::new(Caller { address, host, idle: Mutex::default(), seen: seen.clone() });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new()
            .name("caller".into())
            .spawn(move || runtime.block_on(caller.send_all(rate, stopped)))?;
        Ok(Self { seen, stop, thread })
    }

    /// What became of the requests so far.
    pub(crate) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    /// Sends no more, waits for what is under way, and returns what became of all.
    pub(crate) fn stop(self) -> Result<Seen> {
        let Self { seen, stop, thread } = self;
        // It may have ended by itself, which the join tells.
        let _ = stop.send(());
        let ended = thread.join().map_err(|_| anyhow::anyhow!("the caller's thread panicked"))?;
        ended.context("the caller has no timer")?;
        Ok(lock(&seen).clone())
    }
}

struct Caller {
    address: SocketAddr,
    host: &'static str,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    seen: Arc<Mutex<Seen>>,
}

impl Caller {
    async fn send_all(self: Arc<Self>, rate: u32, mut stopped: oneshot::Receiver<()>) -> io::Result<()> {
        let mut timer = Timer::new()?;
        let mut under_way = JoinSet::new();
        let start = Instant::now();
        for number in 0_u64.. {
            let due = start + Duration::from_secs_f64(number as f64 / f64::from(rate));
            tokio::select! {
                waited = timer.until(due) => waited?,
                _ = &mut stopped => break,
            }
            while under_way.try_join_next().is_some() {}
            let caller = self.clone();
            under_way.spawn(async move {
                let answer = tokio::time::timeout(GIVE_UP, caller.send()).await;
                let answer = answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {GIVE_UP:?}")));
                caller.record(due.elapsed(), answer);
            });
        }
        under_way.join_all().await;
        Ok(())
    }

    /// Sends one request, on a connection that is free or new, and returns the name of the application that answered.
    async fn send(&self) -> Result<String> {
        let mut connection = match self.kept().await {
            Some(connection) => connection,
            None => connect(self.address).await?,
        };
        let request = Request::get("/").header(header::HOST, self.host).body(Full::default())?;
        let response = exchange(&mut connection, request).await?;
        ensure!(
            response.status() == StatusCode::OK,
            "the answer was {}: {}",
            response.status(),
            text(&response)
        );
        let application = response.headers().get("x-app").and_then(|name| name.to_str().ok());
        let application = application.context("the answer names no application")?.to_owned();
        lock(&self.idle).push(connection);
        Ok(application)
    }

    /// A connection that is free and still open.
    async fn kept(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut connection = lock(&self.idle).pop()?;
        connection.ready().await.is_ok().then_some(connection)
    }

    fn record(&self, took: Duration, answer: Result<String>) {
        let mut seen = lock(&self.seen);
        match answer {
            Ok(application) => {
                *seen.answered.entry(application).or_default() += 1;
                seen.latency.saturating_record(took.as_micros() as u64);
            }
            Err(error) => {
                seen.failed += 1;
                seen.first_failure.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn exchange(
    connection: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>> {
    let (head, body) = connection.send_request(request).await?.into_parts();
    Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
}

/// What a refusal says, in one line.
fn text(response: &Response<Bytes>) -> String {
    String::from_utf8_lossy(response.body()).trim().to_owned()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

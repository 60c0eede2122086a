//! The way of one connection that is not HTTP: decide, pick, connect, and copy both ways, each half closing on its own.

use std::any::Any;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use outrigger_balance::{InFlight, Wish};
use outrigger_config::{Name, SpiffeId};
use outrigger_http::connect::{Opened, Wire, connect};
use outrigger_http::memory::Charged;
use outrigger_http::{Error, Reason, verdict};
use outrigger_net::copy::{Side, both};
use outrigger_net::detect::{self, Detected};
use outrigger_net::hello::UNRECOGNIZED_NAME;
use outrigger_telemetry::{CallerTimeout, TcpEntry};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::debug;

use crate::connection::{Connection, DETECT_TIMEOUT};
use crate::hashing;
use crate::local::LocalBackend;
use crate::plan::TcpPlan;

/// How many endpoints are tried when connections to them cannot be made.
const MAX_CONNECT_TRIES: usize = 5;
/// As much of a callee's first word is read at once.
const FIRST_WORD: usize = 512;

/// What became of a connection.
#[derive(Debug, Default)]
struct Outcome {
    endpoint: Option<usize>,
    sent: u64,
    received: u64,
    error: Option<String>,
    reason: Option<Reason>,
}

/// Relays a connection to its end.
pub(crate) async fn relay<IO: AsyncRead + AsyncWrite + Unpin + 'static>(connection: Connection, caller: IO) {
    let Some(relay) = Relay::plan(connection) else { return };
    relay.carry(caller).await;
}

/// Relays a connection whose caller says nothing, as where the application speaks first. A caller that was only slow, or
/// opened its connection in advance, and speaks HTTP or TLS before the application has said a word, is given back.
pub(crate) async fn relay_silent(
    connection: Connection,
    mut caller: TcpStream,
) -> Option<(Connection, TcpStream, Detected)> {
    let relay = Relay::plan(connection)?;
    let first = match &relay.plan.to {
        Ok(to) => relay.first_word(to, &caller).await,
        Err(error) => First::Nobody(refused(error, None)),
    };
    match first {
        First::Caller(detected, reached) => {
            if let Some(mut reached) = reached {
                // It was reached for nothing; should it not hear even that, nothing is lost.
                let _ = reached.callee.shutdown().await;
            }
            return Some((relay.connection, caller, detected));
        }
        First::Opaque(reached, word) => {
            relay.opened();
            // An error here shows again when the rest is carried.
            let _ = caller.write_all(&word).await;
            let mut outcome = carry(reached, caller, &relay.connection).await;
            outcome.received += word.len() as u64;
            relay.ended(&outcome);
        }
        First::Nobody(outcome) => {
            relay.opened();
            relay.ended(&outcome);
        }
        First::Gone => {}
    }
    None
}

/// Who speaks first on a connection.
enum First {
    /// The caller, HTTP or TLS; with the callee, if that was reached by then.
    Caller(Detected, Option<Reached>),
    /// Either side, something else; with what the callee has said.
    Opaque(Reached, Vec<u8>),
    /// Neither: the callee cannot be reached.
    Nobody(Outcome),
    /// Neither: the caller was cut off, or the listener ended.
    Gone,
}

/// An endpoint that a connection was made to.
struct Reached {
    at: usize,
    callee: Opened,
    /// Counts it, while it lives.
    _under_way: InFlight,
}

/// A connection with what was decided for it.
struct Relay {
    connection: Connection,
    plan: TcpPlan,
    route: Option<Name>,
    time: SystemTime,
    started: Instant,
}

impl Relay {
    fn plan(connection: Connection) -> Option<Self> {
        // The connection may outlive many tables: none is kept.
        let local = connection.worker.local()?;
        let plan = TcpPlan::make(&local, &connection)?;
        let rule = plan.rule.and_then(|rule| local.live.snapshot.tcp_rules.get(rule));
        let route = rule.map(|rule| rule.route.clone());
        Some(Self { connection, plan, route, time: SystemTime::now(), started: Instant::now() })
    }

    async fn carry<IO: AsyncRead + AsyncWrite + Unpin + 'static>(self, mut caller: IO) {
        self.opened();
        let refusal = self.connection.worker.memory.refusal();
        let outcome = match &self.plan.to {
            Ok(_) if let Some(error) = refusal => refused(&error, None),
            Ok(to) => match reach(to, &self.connection).await {
                Ok(reached) => carry(reached, caller, &self.connection).await,
                Err((at, error)) => refused(&error, at),
            },
            Err(error) => {
                self.alert(&mut caller).await;
                refused(error, None)
            }
        };
        self.ended(&outcome);
    }

    /// Tells a caller whose TLS would go on as it is that nobody has the name that it asks for.
    async fn alert<IO: AsyncWrite + Unpin>(&self, caller: &mut IO) {
        if self.connection.hello.is_some() && !self.connection.secure && self.plan.rule.is_none() {
            // It is told as far as it still listens.
            let _ = caller.write_all(&UNRECOGNIZED_NAME).await;
            let _ = caller.shutdown().await;
        }
    }

    /// Reaches the callee, and waits until either side says something.
    async fn first_word(&self, to: &LocalBackend, caller: &TcpStream) -> First {
        let mut said = pin!(self.connection.opening(async {
            caller.peek(&mut [0]).await?;
            detect::tcp(caller, DETECT_TIMEOUT).await
        }));
        let is_ours = |detected| matches!(detected, Detected::Tls | Detected::Http1 | Detected::Http2);
        let mut reaching = pin!(reach(to, &self.connection));
        let (reached, spoken) = tokio::select! {
            biased;
            said = &mut said => match said {
                Ok(detected) if is_ours(detected) => return First::Caller(detected, None),
                Ok(_) => (reaching.await, true),
                Err(_) => return First::Gone,
            },
            reached = &mut reaching => (reached, false),
        };
        let mut reached = match reached {
            Ok(reached) if spoken => return First::Opaque(reached, Vec::new()),
            Ok(reached) => reached,
            Err((at, error)) => return First::Nobody(refused(&error, at)),
        };
        let mut word = [0; FIRST_WORD];
        tokio::select! {
            biased;
            said = said => match said {
                Ok(detected) if is_ours(detected) => First::Caller(detected, Some(reached)),
                Ok(_) => First::Opaque(reached, Vec::new()),
                Err(_) => First::Gone,
            },
            read = reached.callee.read(&mut word) => {
                // Its end and its errors are seen again when the rest is carried.
                let length = read.unwrap_or_default();
                First::Opaque(reached, word.get(..length).unwrap_or_default().to_vec())
            }
        }
    }

    /// Counts it as open.
    fn opened(&self) {
        self.connection.worker.metrics.tcp_opened(self.plan.series);
    }

    fn ended(&self, outcome: &Outcome) {
        if outcome.reason == Some(Reason::ConnectionReadTimeout) {
            self.connection.timed_out(CallerTimeout::TcpIdle);
        }
        let duration = self.started.elapsed();
        let failed = outcome.reason.is_some() || outcome.error.is_some();
        let metrics = &self.connection.worker.metrics;
        metrics.tcp_finished(self.plan.series, outcome.sent, outcome.received, duration, failed);
        self.write(outcome, duration);
    }

    fn write(&self, outcome: &Outcome, duration: Duration) {
        let Self { connection, plan, route, time, .. } = self;
        let backend = plan.to.as_ref().ok().map(|to| &to.backend);
        let endpoint = backend.zip(outcome.endpoint).and_then(|(backend, at)| backend.endpoints.get(at));
        let entry = TcpEntry {
            time: *time,
            direction: connection.direction.as_str(),
            listener: connection.listener.as_str(),
            protocol: if connection.secure || connection.hello.is_some() { "TLS" } else { "TCP" },
            sni: connection.hello.as_ref().and_then(|hello| hello.server_name.as_deref()),
            reason: outcome.reason.map(Reason::as_str),
            error: outcome.error.as_deref(),
            sent_bytes: outcome.sent,
            received_bytes: outcome.received,
            duration,
            route: route.as_ref().map(Name::as_str),
            backend: backend.map(|backend| &*backend.name).filter(|name| !name.is_empty()),
            endpoint: endpoint.map(|endpoint| endpoint.address),
            caller: connection.caller.as_ref().map(SpiffeId::as_str),
            caller_address: connection.peer,
            callee: endpoint.and_then(|endpoint| endpoint.identity()).map(SpiffeId::as_str),
        };
        connection.worker.log(|log| log.write_tcp(&entry));
    }
}

fn refused(error: &Error, endpoint: Option<usize>) -> Outcome {
    debug!(%error, "connection refused");
    Outcome {
        endpoint,
        error: Some(error.details.to_string()),
        reason: Some(error.reason),
        ..Outcome::default()
    }
}

/// Copies both ways between a caller and the callee that was reached for it.
async fn carry<IO>(reached: Reached, mut caller: IO, connection: &Connection) -> Outcome
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Reached { at, mut callee, _under_way } = reached;
    let idle = connection.tcp_idle;
    let copied = both(Charged::new(&mut caller, &connection.worker.memory), &mut callee, idle).await;
    if copied.broken {
        break_off(&caller);
        if let Some(stream) = callee.plain() {
            break_off(stream);
        }
    }
    let error = match copied.error {
        Some((Side::A, error)) => Some(format!("caller: {error}")),
        Some((Side::B, error)) => Some(format!("callee: {error}")),
        None => {
            copied.idle.then(|| format!("nothing was sent either way for {:?}", idle.unwrap_or_default()))
        }
    };
    let reason = copied.idle.then_some(Reason::ConnectionReadTimeout);
    Outcome { endpoint: Some(at), sent: copied.a_to_b, received: copied.b_to_a, error, reason }
}

/// Has TCP end with a reset, so that half of an answer is not taken for the whole. TLS needs none: it ends without its
/// own farewell (`close_notify`).
fn break_off<IO: 'static>(io: &IO) {
    if let Some(stream) = (io as &dyn Any).downcast_ref::<TcpStream>() {
        // Fails only on a socket that is gone.
        let _ = stream.set_zero_linger();
    }
}

/// Connects to an endpoint of the backend, to another if that fails.
async fn reach(to: &LocalBackend, connection: &Connection) -> Result<Reached, (Option<usize>, Error)> {
    let backend = &to.backend;
    let mut tried: SmallVec<[usize; 4]> = SmallVec::new();
    let details = format!("backend {} has no endpoint", backend.name);
    let mut failed = (None, Error::unsent(Reason::DestinationUnavailable, details));
    let hash = hashing::of_connection(backend.balancer.hash_keys(), connection.peer.ip());
    while tried.len() < MAX_CONNECT_TRIES {
        let now = Instant::now();
        let wish = Wish { tried: &tried, hash };
        let picked =
            backend.balancer.pick(&backend.loads, wish, now, &mut connection.worker.random.borrow_mut());
        let Some((at, endpoint)) = picked.and_then(|pick| Some((pick.at, backend.endpoints.get(pick.at)?)))
        else {
            break;
        };
        if tried.is_empty() && picked.is_some_and(|pick| pick.panic) {
            connection.worker.metrics.backend_panicked(to.series);
        }
        let mut in_flight = endpoint.load.start(now).watched(backend.outliers.as_ref());
        match connect(endpoint, Wire::Tcp, &to.dialer).await {
            Ok(callee) => {
                in_flight.response(Instant::now());
                endpoint.load.succeeded();
                return Ok(Reached { at, callee, _under_way: in_flight });
            }
            Err(error) => {
                verdict::unconnected(&mut in_flight, endpoint, &to.dialer, &error);
                tried.push(at);
                failed = (Some(at), error);
            }
        }
    }
    Err(failed)
}

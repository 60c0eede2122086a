//! The way of one connection that is not HTTP: decide, pick, connect, and copy both ways, each half closing on its own.

use std::any::Any;
use std::time::{Duration, Instant, SystemTime};

use outrigger_balance::InFlight;
use outrigger_config::{Name, SpiffeId};
use outrigger_http::connect::{Connection as Callee, Open, Wire, connect};
use outrigger_http::{Error, Reason};
use outrigger_net::copy::{Side, both};
use outrigger_telemetry::TcpEntry;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tracing::debug;

use crate::connection::Connection;
use crate::plan::TcpPlan;
use crate::worker::LocalBackend;

/// How many endpoints are tried when connections to them cannot be made.
const MAX_CONNECT_TRIES: usize = 5;
/// How long a connection may be silent both ways.
const IDLE_TIMEOUT: Duration = Duration::from_hours(24);

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
    let worker = connection.worker.clone();
    let Some(local) = worker.local() else { return };
    let Some(plan) = TcpPlan::make(&local, &connection) else { return };
    let rule = plan.rule.and_then(|rule| local.live.snapshot.tcp_rules.get(rule));
    let route = rule.map(|rule| rule.route.clone());
    // The connection may outlive many tables.
    drop(local);
    let (time, started) = (SystemTime::now(), Instant::now());
    worker.metrics.tcp_opened(plan.series);
    let outcome = match &plan.to {
        Ok(to) => carry(to, &connection, caller).await,
        Err(error) => refused(error, None),
    };
    let duration = started.elapsed();
    let failed = outcome.reason.is_some() || outcome.error.is_some();
    worker.metrics.tcp_finished(plan.series, outcome.sent, outcome.received, duration, failed);
    write(route.as_ref(), &connection, &plan, &outcome, time, duration);
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

async fn carry<IO>(to: &LocalBackend, connection: &Connection, mut caller: IO) -> Outcome
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (at, mut callee, _under_way) = match reach(to, connection).await {
        Ok(reached) => reached,
        Err((at, error)) => return refused(&error, at),
    };
    let copied = both(&mut caller, &mut callee, Some(IDLE_TIMEOUT)).await;
    if copied.broken {
        break_off(&caller);
        if let Callee::Plain(stream) = &callee {
            break_off(stream);
        }
    }
    let error = match copied.error {
        Some((Side::A, error)) => Some(format!("caller: {error}")),
        Some((Side::B, error)) => Some(format!("callee: {error}")),
        None => copied.idle.then(|| format!("nothing was sent either way for {IDLE_TIMEOUT:?}")),
    };
    Outcome { endpoint: Some(at), sent: copied.a_to_b, received: copied.b_to_a, error, reason: None }
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
async fn reach(
    to: &LocalBackend,
    connection: &Connection,
) -> Result<(usize, Callee, (InFlight, Open)), (Option<usize>, Error)> {
    let backend = &to.backend;
    let mut tried: SmallVec<[usize; 4]> = SmallVec::new();
    let details = format!("backend {} has no endpoint", backend.name);
    let mut failed = (None, Error::unsent(Reason::DestinationUnavailable, details));
    while tried.len() < MAX_CONNECT_TRIES {
        let now = Instant::now();
        let picked =
            backend.balancer.pick(&backend.loads, now, &tried, &mut connection.worker.random.borrow_mut());
        let Some((at, endpoint)) = picked.and_then(|at| Some((at, backend.endpoints.get(at)?))) else {
            break;
        };
        let mut in_flight = endpoint.load.start(now);
        match connect(endpoint, Wire::Tcp, &to.dialer).await {
            Ok((stream, open)) => {
                in_flight.response(Instant::now());
                endpoint.load.succeeded();
                return Ok((at, stream, (in_flight, open)));
            }
            Err(error) => {
                endpoint.load.failed(Instant::now());
                tried.push(at);
                failed = (Some(at), error);
            }
        }
    }
    Err(failed)
}

fn write(
    route: Option<&Name>,
    connection: &Connection,
    plan: &TcpPlan,
    outcome: &Outcome,
    time: SystemTime,
    duration: Duration,
) {
    let backend = plan.to.as_ref().ok().map(|to| &to.backend);
    let endpoint = backend.zip(outcome.endpoint).and_then(|(backend, at)| backend.endpoints.get(at));
    connection.worker.log.write_tcp(&TcpEntry {
        time,
        direction: connection.direction.as_str(),
        listener: connection.listener.as_str(),
        protocol: if connection.secure { "TLS" } else { "TCP" },
        sni: None,
        reason: outcome.reason.map(Reason::as_str),
        error: outcome.error.as_deref(),
        sent_bytes: outcome.sent,
        received_bytes: outcome.received,
        duration,
        route: route.map(Name::as_str),
        backend: backend.map(|backend| &*backend.name).filter(|name| !name.is_empty()),
        endpoint: endpoint.map(|endpoint| endpoint.address),
        caller: connection.caller.as_ref().map(SpiffeId::as_str),
        caller_address: connection.peer,
        callee: endpoint.and_then(|endpoint| endpoint.identity()).map(SpiffeId::as_str),
    });
}

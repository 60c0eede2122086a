//! What a worker says while it carries requests.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::cells::{Block, CONNECTION_BOUNDS, REQUEST_BOUNDS};
use crate::series::{BackendSeries, ConnectionSeries, Series, TcpSeries};

/// Where one worker counts. Its clones stay on the worker's thread, as they all write the same cells without locking.
#[derive(Clone)]
pub struct Worker {
    block: Arc<Block>,
    one_thread: PhantomData<Rc<()>>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct RequestEnd {
    /// The status that the caller got; 0 where it left before there was one.
    pub status: u16,
    /// The Proxy-Status reason (RFC 9209, section 2.3), where the proxy itself made the answer.
    pub reason: Option<&'static str>,
    /// From the request's head to the end of the response's body.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// How often it was tried again.
    pub retries: u32,
}

/// How an attempt to connect to an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectResult {
    /// The connection stands, TLS included.
    Ok,
    /// The endpoint refused it.
    Refused,
    /// It took too long.
    Timeout,
    /// TLS failed.
    Tls,
    /// Another identity answered than the one expected.
    Identity,
    /// Anything else, such as no way to the host.
    Failed,
}

impl ConnectResult {
    pub(crate) const ALL: [Self; 6] =
        [Self::Ok, Self::Refused, Self::Timeout, Self::Tls, Self::Identity, Self::Failed];

    /// The result as the label `result` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Identity => "identity",
            Self::Failed => "failed",
        }
    }
}

/// Which of its times a caller's connection was ended by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallerTimeout {
    /// To show what it speaks.
    FirstBytes,
    /// For its TLS handshake.
    TlsHandshake,
    /// For the head of a request, and for the first one to begin.
    Header,
    /// Between two requests.
    Idle,
    /// For the connection as a whole.
    MaxConnectionAge,
    /// To answer a PING.
    Ping,
    /// Without a byte either way where it is not HTTP.
    TcpIdle,
}

impl CallerTimeout {
    pub(crate) const ALL: [Self; 7] = [
        Self::FirstBytes,
        Self::TlsHandshake,
        Self::Header,
        Self::Idle,
        Self::MaxConnectionAge,
        Self::Ping,
        Self::TcpIdle,
    ];

    /// The timeout as the label `timeout` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstBytes => "first_bytes",
            Self::TlsHandshake => "tls_handshake",
            Self::Header => "header",
            Self::Idle => "idle",
            Self::MaxConnectionAge => "max_connection_age",
            Self::Ping => "ping",
            Self::TcpIdle => "tcp_idle",
        }
    }
}

/// How the copy of a request that a route mirrors ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MirrorResult {
    /// It was answered.
    Ok,
    /// It could not be sent, or was not answered.
    Failed,
    /// It was not sent: too many are under way.
    Dropped,
}

impl MirrorResult {
    pub(crate) const ALL: [Self; 3] = [Self::Ok, Self::Failed, Self::Dropped];

    /// The result as the label `result` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

impl Worker {
    pub(crate) fn new(block: Arc<Block>) -> Self {
        Self { block, one_thread: PhantomData }
    }

    /// A request begins. [`request_finished`](Self::request_finished) with the same series must follow.
    pub fn request_started(&self, series: Series) {
        self.block.requests.cell(series.0).in_flight.add(1);
    }

    /// A request that began is over.
    pub fn request_finished(&self, series: Series, end: &RequestEnd) {
        let cell = self.block.requests.cell(series.0);
        cell.in_flight.subtract(1);
        cell.finished(end.status, end.reason);
        cell.durations.observe(&REQUEST_BOUNDS, end.duration);
        cell.request_bytes.add(end.request_bytes);
        cell.response_bytes.add(end.response_bytes);
        cell.retries.add(u64::from(end.retries));
    }

    /// A request would have been tried again, but the backend's budget was spent.
    pub fn retry_refused(&self, series: Series) {
        self.block.requests.cell(series.0).retries_refused.add(1);
    }

    /// A listener accepted a connection.
    pub fn connection_opened(&self, series: ConnectionSeries) {
        self.block.connections.cell(series.0).opened.add(1);
    }

    /// A connection that a listener accepted is closed.
    pub fn connection_closed(&self, series: ConnectionSeries) {
        self.block.connections.cell(series.0).closed.add(1);
    }

    /// A connection that a listener accepted is ended by a timeout.
    pub fn connection_timed_out(&self, series: ConnectionSeries, timeout: CallerTimeout) {
        self.block.connections.cell(series.0).timed_out[timeout as usize].add(1);
    }

    /// An attempt to connect to an endpoint of a backend is over. Where it is `Ok`,
    /// [`backend_closed`](Self::backend_closed) must follow some time.
    pub fn backend_connected(&self, series: BackendSeries, result: ConnectResult) {
        self.block.backends.cell(series.0).attempts[result as usize].add(1);
    }

    /// A connection to an endpoint of a backend is closed.
    pub fn backend_closed(&self, series: BackendSeries) {
        self.block.backends.cell(series.0).closed.add(1);
    }

    /// The copy of a request that goes to a backend beside the request itself is over.
    pub fn mirrored(&self, series: BackendSeries, result: MirrorResult) {
        self.block.backends.cell(series.0).mirrored[result as usize].add(1);
    }

    /// An endpoint of a backend was chosen for a request although so few are well that all are used.
    pub fn backend_panicked(&self, series: BackendSeries) {
        self.block.backends.cell(series.0).panicked.add(1);
    }

    /// A connection that is not HTTP begins. [`tcp_finished`](Self::tcp_finished) must follow.
    pub fn tcp_opened(&self, series: TcpSeries) {
        self.block.tcp.cell(series.0).opened.add(1);
    }

    /// Bytes were copied to (`sent`) and from (`received`) the backend since the last call, by a connection that goes on.
    pub fn tcp_bytes(&self, series: TcpSeries, sent: u64, received: u64) {
        let cell = self.block.tcp.cell(series.0);
        cell.sent.add(sent);
        cell.received.add(received);
    }

    /// A connection that is not HTTP is over; the bytes are those that [`tcp_bytes`](Self::tcp_bytes) was not told of.
    pub fn tcp_finished(&self, series: TcpSeries, sent: u64, received: u64, duration: Duration, error: bool) {
        let cell = self.block.tcp.cell(series.0);
        cell.sent.add(sent);
        cell.received.add(received);
        cell.closed.add(1);
        cell.failed.add(u64::from(error));
        cell.durations.observe(&CONNECTION_BOUNDS, duration);
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

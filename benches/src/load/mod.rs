//! The load: what callers send, when, and what was seen of it.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// What callers do, to whatever stands between them and the application.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// What is spoken.
    pub traffic: Traffic,
    /// When requests are sent.
    pub arrivals: Arrivals,
    /// Connections.
    pub connections: u32,
    /// Requests that may be under way on one connection at a time; 1 but for HTTP/2 and gRPC.
    pub streams: u32,
    /// Bytes of each request's content; for streams, of each message.
    pub request_bytes: usize,
    /// Bytes of each response's content; for streams, of each message.
    pub response_bytes: usize,
    /// Which connection a request is sent on.
    pub connect: Connect,
    /// TLS between callers and what they speak to.
    pub tls: Tls,
    /// Of the arrivals: the same seed gives the same.
    pub seed: u64,
}

/// What is spoken by callers and by the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Traffic {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 by prior knowledge, or by ALPN over TLS.
    Http2,
    /// gRPC, unary calls.
    Grpc,
    /// gRPC, one stream in both directions for each of [`Load::streams`]; what is measured is one message and its echo.
    GrpcStream,
    /// WebSocket; what is measured is one binary message and its echo.
    WebSocket,
    /// TCP; what is measured is one message and its echo.
    Tcp,
    /// TCP in bulk: as many bytes as go through, in the direction of the response. Its "requests" are MiB.
    TcpBulk,
}

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Arrivals {
    /// Independent of each other: the times between them are exponentially distributed.
    Poisson {
        /// Requests in a second.
        rate: f64,
    },
    /// The n-th is due n / rate seconds after the start.
    Fixed {
        /// Requests in a second.
        rate: f64,
    },
    /// Each connection (stream) sends its next request when it has the answer to the last. Latency then says nothing of
    /// what callers would see at a given rate; CPU per request does not depend on it.
    Saturated,
}

/// Which connection a request is sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Connect {
    /// One that is kept.
    Keep,
    /// A new one, which is closed after the response.
    Each,
}

/// TLS between callers and what they speak to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// None.
    Off,
    /// Every handshake in full.
    Full,
    /// Handshakes resume an earlier session.
    Resumed,
}

/// What was seen in one sample: one load on one subject for some seconds.
#[derive(Debug, Clone)]
pub struct Measured {
    /// From when a request was due until its whole answer was there, in nanoseconds; of those that were answered.
    pub latency: Histogram<u64>,
    /// From when a request was due until it was sent, in nanoseconds, where a connection was free for it all the while: what
    /// the generator itself was late by.
    pub lag: Histogram<u64>,
    /// Requests that fell due.
    pub due: u64,
    /// Requests that were answered as they should be.
    pub answered: u64,
    /// Requests that were not.
    pub errors: u64,
    /// What went wrong first.
    pub first_error: Option<String>,
    /// From the start to the last answer.
    pub elapsed: Duration,
}

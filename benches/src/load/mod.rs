//! The load: what callers send, when, and what was seen of it.

mod callers;
mod dial;
mod dispatch;
mod error;
mod http1;
mod http2;
mod lane;
mod measured;
mod schedule;
mod shared;
mod tcp;
mod websocket;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use callers::Callers;
pub use measured::Measured;

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

impl Arrivals {
    /// Requests in a second that are asked for; none where it is saturated.
    pub fn rate(self) -> Option<f64> {
        match self {
            Self::Poisson { rate } | Self::Fixed { rate } => Some(rate),
            Self::Saturated => None,
        }
    }
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
    /// gRPC, one stream in both directions for each of [`Load::streams`]; what is measured is one message
    /// and the one that answers it.
    GrpcStream,
    /// WebSocket; what is measured is one binary message and the one that answers it.
    WebSocket,
    /// TCP; what is measured is [`Load::request_bytes`] there and [`Load::response_bytes`] back.
    Tcp,
    /// TCP in bulk: as many bytes as go through, in the direction of the response. Its "requests" are MiB, and they are
    /// [`Arrivals::Saturated`].
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

/// Whom callers speak to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Where they connect.
    pub address: SocketAddr,
    /// Whose certificate they trust, in PEM; the system's trust store if there is none. Only for [`Load::tls`].
    pub trust: Option<String>,
    /// The host of requests, and the name of the server's certificate.
    pub host: String,
    /// The path of requests; if it is empty `/bench`, and of gRPC the method `/bench.Bench/Call`.
    pub path: String,
    /// Whether answers have to be [`Load::response_bytes`] long, as those of [`Callee`](crate::callee::Callee) are.
    pub exact: bool,
}

impl Target {
    /// Our own application at `address`, or a proxy before it: `bench.local`, whose answers are as long as they were asked for.
    pub fn application(address: SocketAddr, trust: Option<String>) -> Self {
        Self { address, trust, host: "bench.local".into(), path: String::new(), exact: true }
    }

    fn path(&self, traffic: Traffic) -> &str {
        match traffic {
            _ if !self.path.is_empty() => &self.path,
            Traffic::Grpc | Traffic::GrpcStream => "/bench.Bench/Call",
            _ => "/bench",
        }
    }
}

#[cfg(test)]
mod tests;

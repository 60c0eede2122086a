//! Why a request failed.

use std::{io, net::SocketAddr};

use outrigger_certs::rustls::HandshakeKind;

use crate::message::{Malformed, ReadError};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, #[source] io::Error),
    #[error("TLS to {0} failed: {1}")]
    Tls(SocketAddr, #[source] io::Error),
    #[error("the handshake was {0:?}, which is not what is to be measured")]
    Handshake(Option<HandshakeKind>),
    #[error("the server did not agree to HTTP/2 (ALPN)")]
    Alpn,
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the connection had gone before the request: {0}")]
    Gone(#[source] h2::Error),
    #[error("HTTP/2 failed: {0}")]
    Http2(#[from] h2::Error),
    #[error("the answer was {0}")]
    Status(u16),
    #[error("gRPC's status was {0:?}")]
    Grpc(Option<String>),
    #[error("the answer was {0} bytes long, not {1}")]
    Length(u64, u64),
    #[error("the answer cannot be read: {0}")]
    Malformed(&'static str),
    #[error("no answer within 10 s of the end")]
    TimedOut,
    #[error("more than 10 s behind the rate: requests were not sent")]
    Behind,
    #[error("the generator panicked")]
    Panicked,
}

impl From<ReadError> for CallError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Broken(error) => Self::Broken(error),
            ReadError::Malformed(Malformed(why)) => Self::Malformed(why),
        }
    }
}

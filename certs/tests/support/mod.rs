//! What the tests of this crate share: identities, and a handshake in memory.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_certs::rustls::{ClientConfig, ServerConfig};
use outrigger_certs::{Authority, Identity, ServerName, signing_request};
use outrigger_config::SpiffeId;
use tokio::io::DuplexStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

pub const DAY: Duration = Duration::from_hours(24);
pub const DOMAIN: &str = "outrigger.test";

pub fn id(path: &str) -> SpiffeId {
    format!("spiffe://{DOMAIN}/{path}").parse().unwrap()
}

pub fn authority() -> Authority {
    Authority::create(DOMAIN).unwrap()
}

pub fn identity(authority: &Authority, path: &str) -> Identity {
    identity_from(authority, path, DAY, SystemTime::now())
}

/// An identity issued at another time, and checked as of then.
pub fn identity_from(authority: &Authority, path: &str, lifetime: Duration, at: SystemTime) -> Identity {
    let (key, request) = signing_request().unwrap();
    let issued = authority.sign(request.as_bytes(), &id(path), &[], lifetime, at).unwrap();
    let bundle = authority.cert_pem();
    Identity::from_pem_at(issued.chain_pem.as_bytes(), key.expose().as_bytes(), bundle.as_bytes(), at)
        .unwrap()
}

pub type Client = client::TlsStream<DuplexStream>;
pub type Server = server::TlsStream<DuplexStream>;

/// Both ends of a handshake. With TLS 1.3 the caller is done before the callee has looked at its certificate.
pub async fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &str,
) -> (io::Result<Client>, io::Result<Server>) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connect = TlsConnector::from(client.clone()).connect(name, near);
    let accept = TlsAcceptor::from(server.clone()).accept(far);
    tokio::join!(connect, accept)
}

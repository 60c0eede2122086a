//! TLS between sidecars: version 1.3 alone, both certificates, SPIFFE IDs.
//!
//! No session is ever resumed, on either side: rustls resumes without looking at the certificate again, so that an
//! expired or withdrawn one would go on being believed. Connections between sidecars are few and live long.

use std::error::Error as StdError;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use outrigger_config::SpiffeId;
use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, OtherError, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};

use crate::error::Part;
use crate::identity::Identity;
use crate::leaf::Leaf;
use crate::verify::{CalleeVerifier, CallerVerifier, Expected};

/// HTTP/1.1 between sidecars, for an application that speaks HTTP/1.1.
pub const HTTP1: &[u8] = b"outrigger/h1";
/// HTTP/2 between sidecars, for an application that speaks HTTP/1.1.
pub const HTTP1_OVER_HTTP2: &[u8] = b"outrigger/h1-h2";
/// HTTP/2 all the way.
pub const HTTP2: &[u8] = b"outrigger/h2";
/// Bytes that nobody between looks into.
pub const TCP: &[u8] = b"outrigger/tcp";

/// The callee answered with an identity that is not the one expected there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, but {} answered", if .presented.is_empty() { "a certificate without a SPIFFE ID".into() } else { .presented.join(", ") })]
pub struct WrongIdentity {
    /// The identity that was expected.
    pub expected: SpiffeId,
    /// Every URI name of the certificate that was presented.
    pub presented: Vec<String>,
}

/// For a sidecar that is called. The caller must present a certificate that leads to the trust bundle and carries one
/// SPIFFE ID; [`peer_identity`] tells it afterwards. By ALPN: the four of the mesh, `h2`, `http/1.1`.
pub fn server_config(identity: &Identity) -> Arc<ServerConfig> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(identity.roots.clone(), identity.provider.clone());
    #[allow(clippy::expect_used, reason = "fails only for an empty bundle, which no identity has")]
    let verifier = verifier.build().expect("the trust bundle has a certificate");
    let mut config = tls13_server(identity.provider.clone())
        .with_client_cert_verifier(Arc::new(CallerVerifier(verifier)))
        .with_cert_resolver(identity.resolver.clone());
    config.alpn_protocols =
        [HTTP1, HTTP1_OVER_HTTP2, HTTP2, TCP, b"h2", b"http/1.1"].map(<[u8]>::to_vec).into();
    never_resume(&mut config);
    Arc::new(config)
}

/// For a sidecar that calls an endpoint where `expected` must answer. The name given to the connector is not looked
/// at: use [`server_name`]. A new identity needs a new configuration.
pub fn client_config(identity: &Identity, expected: &SpiffeId, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let verifier = CalleeVerifier {
        expected: Expected::Identity(identity.roots.clone(), expected.clone()),
        provider: identity.provider.clone(),
    };
    let mut config = tls13_client(identity.provider.clone())
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(identity.resolver.clone());
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Arc::new(config)
}

/// A name for connectors, which must be given one: identities stand in its place, and it is not sent.
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into())
}

/// The identity of the other end, from the certificates that it presented and that the handshake has verified:
/// exactly one URI name, which is a SPIFFE ID.
pub fn peer_identity(certificates: Option<&[CertificateDer<'_>]>) -> Option<SpiffeId> {
    Leaf::read(Part::Chain, certificates?.first()?).ok()?.spiffe_id().ok()
}

/// Whether a handshake failed because somebody else answered: looks through `std::io::Error`s and sources.
pub fn wrong_identity<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a WrongIdentity> {
    if let Some(wrong) = error.downcast_ref() {
        return Some(wrong);
    }
    if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) =
        error.downcast_ref()
    {
        return other.downcast_ref();
    }
    // An io::Error's `source` is its inner error's source, which leaves out the inner error itself.
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let inner: Option<&'a (dyn StdError + 'static)> = inner.map(|inner| inner as _);
    wrong_identity(inner.or_else(|| error.source())?)
}

pub(crate) fn tls13_server(
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    let builder = ServerConfig::builder_with_provider(provider);
    #[allow(clippy::expect_used, reason = "fails only without a suite for TLS 1.3, and all of ours are")]
    builder.with_protocol_versions(&[&rustls::version::TLS13]).expect("the provider has TLS 1.3")
}

pub(crate) fn tls13_client(
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let builder = ClientConfig::builder_with_provider(provider);
    #[allow(clippy::expect_used, reason = "fails only without a suite for TLS 1.3, and all of ours are")]
    builder.with_protocol_versions(&[&rustls::version::TLS13]).expect("the provider has TLS 1.3")
}

/// Turns off both ways of resuming: tickets, and sessions kept in memory, which are on by default.
pub(crate) fn never_resume(config: &mut ServerConfig) {
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
}

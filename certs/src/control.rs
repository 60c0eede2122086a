//! TLS to and from the control API.
//!
//! Its server has an ordinary certificate, for names, from the authority; nodes present their identity once they have
//! one. Before that, a node knows nothing but the SHA-256 of the root, which its token names ([`pinned`]).

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ServerConfig};

use crate::error::{Error, Part};
use crate::identity::{Identity, certified_key, root_store};
use crate::mesh::{never_resume, tls13_client, tls13_server};
use crate::secret::Secret;
use crate::verify::{CalleeVerifier, CallerVerifier, Expected};
use crate::{leaf, provider};

const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// For the control API: TLS 1.3, no session resumed. A caller may come without a certificate; one that it presents
/// must lead to `bundle` and carry one SPIFFE ID, which [`crate::mesh::peer_identity`] tells. `chain` must end with the
/// root, so that nodes can recognise it.
pub fn server_config(chain: &[u8], key: &Secret, bundle: &[u8]) -> Result<Arc<ServerConfig>, Error> {
    let provider = provider::mesh();
    let chain = leaf::certificates(Part::Chain, chain)?;
    let certified = certified_key(chain, key.expose().as_bytes(), &provider)?;
    let roots = root_store(&leaf::certificates(Part::Bundle, bundle)?)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| Error::unreadable(Part::Bundle, error))?;
    let mut config = tls13_server(provider)
        .with_client_cert_verifier(Arc::new(CallerVerifier(verifier)))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
    never_resume(&mut config);
    Ok(Arc::new(config))
}

/// For a node that has an identity: presents it, and believes whoever the trust bundle vouches for under the name that
/// was called.
pub fn client_config(identity: &Identity) -> Arc<ClientConfig> {
    let config = tls13_client(identity.provider.clone())
        .with_root_certificates(identity.roots.clone())
        .with_client_cert_resolver(identity.resolver.clone());
    finish(config)
}

/// For a node that has a token and nothing else: believes a server whose chain leads to a certificate with this SHA-256
/// of its DER, which the server must send along, under the name that was called.
pub fn pinned(root_fingerprint: [u8; 32]) -> Arc<ClientConfig> {
    let provider = provider::mesh();
    let verifier =
        CalleeVerifier { expected: Expected::PinnedRoot(root_fingerprint), provider: provider.clone() };
    let config = tls13_client(provider)
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    finish(config)
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

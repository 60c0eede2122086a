//! An identity: who a node is, how it proves it, and whom it believes.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_config::SpiffeId;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::error::{Error, Part};
use crate::leaf::{self, Leaf, unix_seconds};
use crate::secret::Secret;
use crate::{provider, verify};

/// A SPIFFE ID with its certificate chain and key (an X509-SVID), and the trust bundle that others are checked
/// against. All of it was checked when it was made.
#[derive(Clone)]
pub struct Identity {
    id: SpiffeId,
    not_before: SystemTime,
    not_after: SystemTime,
    chain: Vec<CertificateDer<'static>>,
    key_pem: Secret,
    bundle: Vec<CertificateDer<'static>>,
    pub(crate) resolver: Arc<SingleCertAndKey>,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl Identity {
    /// Checks a chain (leaf first), its key and a trust bundle, all PEM, against the clock of this machine.
    ///
    /// Refused are: a key that is not the leaf's; a leaf that is an authority's, is not valid now, or has not exactly
    /// one SPIFFE ID; a chain that does not lead to the bundle.
    pub fn from_pem(chain: &[u8], key: &[u8], bundle: &[u8]) -> Result<Self, Error> {
        Self::from_pem_at(chain, key, bundle, SystemTime::now())
    }

    /// The same, as of another time.
    pub fn from_pem_at(chain: &[u8], key: &[u8], bundle: &[u8], now: SystemTime) -> Result<Self, Error> {
        let provider = provider::mesh();
        let chain = leaf::certificates(Part::Chain, chain)?;
        let bundle = leaf::certificates(Part::Bundle, bundle)?;
        let [end_entity, intermediates @ ..] = chain.as_slice() else {
            return Err(Error::Empty(Part::Chain));
        };
        let leaf = Leaf::read(Part::Chain, end_entity)?;
        if leaf.is_ca {
            return Err(Error::WrongRole { part: Part::Chain, is_ca: true });
        }
        let id = leaf.spiffe_id()?;
        leaf.check_time(Part::Chain, now)?;
        let roots = Arc::new(root_store(&bundle)?);
        let trusted = ParsedCertificate::try_from(end_entity).and_then(|parsed| {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &roots,
                intermediates,
                UnixTime::since_unix_epoch(std::time::Duration::from_secs(unix_seconds(now))),
                provider.signature_verification_algorithms.all,
            )
        });
        trusted.map_err(|error| Error::Untrusted(error.to_string()))?;
        let key_pem = Secret::new(String::from_utf8_lossy(key).into_owned());
        let certified = certified_key(chain.clone(), key, &provider)?;
        Ok(Self {
            id,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            chain,
            key_pem,
            bundle,
            resolver: Arc::new(SingleCertAndKey::from(certified)),
            roots,
            provider,
        })
    }

    /// Who it is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// When it began to be valid.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// When it ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The chain, PEM, leaf first.
    pub fn chain_pem(&self) -> String {
        leaf::to_pem(&self.chain)
    }

    /// The trust bundle, PEM.
    pub fn bundle_pem(&self) -> String {
        leaf::to_pem(&self.bundle)
    }

    /// Whether the trust bundle has the certificate with this SHA-256 of its DER.
    pub fn believes(&self, fingerprint: &[u8; 32]) -> bool {
        self.bundle.iter().any(|root| verify::fingerprint(root) == *fingerprint)
    }

    /// The private key, PEM: for a store that is itself sealed, and for nothing else.
    pub fn key_pem(&self) -> &Secret {
        &self.key_pem
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.id)
            .field("not_before", &leaf::utc(self.not_before))
            .field("not_after", &leaf::utc(self.not_after))
            .finish_non_exhaustive()
    }
}

/// A trust bundle as rustls has it.
pub(crate) fn root_store(bundle: &[CertificateDer<'static>]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in bundle {
        roots.add(certificate.clone()).map_err(|error| Error::unreadable(Part::Bundle, error))?;
    }
    Ok(roots)
}

/// A chain with its key, which must be the leaf's.
pub(crate) fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key_pem: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Error> {
    let key = leaf::private_key(key_pem)?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => Error::KeyMismatch,
        error => Error::unreadable(Part::Key, error),
    })
}

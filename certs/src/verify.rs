//! Whom a TLS configuration believes: rustls's checks of chain and signature, and the identity on top of them.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use outrigger_config::SpiffeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::error::Part;
use crate::leaf::Leaf;
use crate::mesh::WrongIdentity;

/// The SHA-256 of a certificate's DER.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, certificate).as_ref());
    hash
}

/// Where the trust in a callee comes from, and what its certificate must say.
#[derive(Debug)]
pub(crate) enum Expected {
    /// A chain to the bundle, and exactly this identity.
    Identity(Arc<RootCertStore>, SpiffeId),
    /// A chain to the certificate with this SHA-256, which the callee sends along, and the name that was called.
    PinnedRoot([u8; 32]),
}

/// Checks the callee.
#[derive(Debug)]
pub(crate) struct CalleeVerifier {
    pub(crate) expected: Expected,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for CalleeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let chain = |roots: &RootCertStore| {
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)
        };
        match &self.expected {
            Expected::Identity(roots, expected) => {
                chain(roots)?;
                check_identity(end_entity, expected)?;
            }
            Expected::PinnedRoot(pin) => {
                let root = intermediates.iter().find(|certificate| fingerprint(certificate) == *pin);
                let mut roots = RootCertStore::empty();
                roots.add(root.ok_or(CertificateError::UnknownIssuer)?.clone().into_owned())?;
                chain(&roots)?;
                verify_server_name(&parsed, server_name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Refuses a certificate that does not carry exactly the expected identity.
fn check_identity(end_entity: &CertificateDer<'_>, expected: &SpiffeId) -> Result<(), rustls::Error> {
    let presented = match Leaf::read(Part::Chain, end_entity) {
        Ok(leaf) if leaf.uris.len() == 1 && leaf.uris.iter().all(|uri| uri == expected.as_str()) => {
            return Ok(());
        }
        Ok(leaf) => leaf.uris,
        Err(_) => return Err(CertificateError::BadEncoding.into()),
    };
    let wrong = WrongIdentity { expected: expected.clone(), presented };
    Err(CertificateError::Other(OtherError(Arc::new(wrong))).into())
}

/// Checks the caller: a chain to the bundle, by rustls, and exactly one SPIFFE ID, whichever.
#[derive(Debug)]
pub(crate) struct CallerVerifier(pub(crate) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for CallerVerifier {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        match Leaf::read(Part::Chain, end_entity).and_then(|leaf| leaf.spiffe_id()) {
            Ok(_) => Ok(verified),
            Err(error) => Err(CertificateError::Other(OtherError(Arc::new(error))).into()),
        }
    }

    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

//! The cryptography of every TLS configuration: aws-lc-rs, given explicitly.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};

/// For the mesh and the control API. AES-128-GCM is first, for it is the cheapest by about 8 %; the first key exchange
/// group is X25519MLKEM768, which stays secret from a quantum computer that records today.
pub(crate) fn mesh() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    })
}

/// For everyone else: TLS 1.2 as well.
pub(crate) fn edge() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

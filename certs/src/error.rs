//! What can be wrong with a certificate, a key or a trust bundle.

use std::fmt;
use std::time::SystemTime;

use outrigger_config::SpiffeId;

use crate::leaf::utc;

/// The part of an identity that an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The certificate chain, leaf first.
    Chain,
    /// The private key.
    Key,
    /// The trust bundle: the certificates that others are checked against.
    Bundle,
    /// The authority's own certificate.
    Root,
    /// A certificate signing request.
    Request,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chain => "certificate chain",
            Self::Key => "private key",
            Self::Bundle => "trust bundle",
            Self::Root => "root certificate",
            Self::Request => "certificate signing request",
        })
    }
}

/// Why a certificate, a key or a trust bundle was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing of the kind in the PEM text.
    #[error("the {0} is empty: no PEM section of its kind is in it")]
    Empty(Part),
    /// It cannot be read.
    #[error("the {part} cannot be read: {reason}")]
    Unreadable {
        /// What cannot be read.
        part: Part,
        /// Why not.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error("the private key does not match the first certificate of the chain")]
    KeyMismatch,
    /// The leaf does not carry exactly one SPIFFE ID (X509-SVID, section 2).
    #[error("the certificate must have exactly one URI name, a SPIFFE ID: {0}")]
    NoSpiffeId(String),
    /// The leaf is a certificate authority (X509-SVID, section 4.1), or the root is not.
    #[error("the {part} begins with a certificate that {}", if *.is_ca { "is an authority's own" } else { "is not an authority's" })]
    WrongRole {
        /// The certificate.
        part: Part,
        /// What it is.
        is_ca: bool,
    },
    /// Its time is over.
    #[error("the {part} has been expired since {}", utc(*.since))]
    Expired {
        /// What is expired.
        part: Part,
        /// Since when.
        since: SystemTime,
    },
    /// Its time has not come.
    #[error("the {part} is not valid before {}: check this machine's clock", utc(*.until))]
    NotYetValid {
        /// What is not yet valid.
        part: Part,
        /// Until when.
        until: SystemTime,
    },
    /// The chain does not lead to the trust bundle.
    #[error("the certificate chain does not lead to the trust bundle: {0}")]
    Untrusted(String),
    /// The identity is not one of the authority's.
    #[error("{id} is not in this authority's trust domain, {trust_domain}")]
    ForeignTrustDomain {
        /// The identity.
        id: SpiffeId,
        /// The authority's trust domain.
        trust_domain: String,
    },
    /// A name cannot stand in a certificate.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    BadName(String),
    /// The system's trust store has no certificate.
    #[error("the system's trust store has no certificate: {0}")]
    NoSystemStore(String),
    /// The cryptography failed.
    #[error("cannot {doing}: {reason}")]
    Crypto {
        /// What was being done.
        doing: &'static str,
        /// What failed.
        reason: String,
    },
}

impl Error {
    pub(crate) fn unreadable(part: Part, reason: impl fmt::Display) -> Self {
        Self::Unreadable { part, reason: reason.to_string() }
    }

    pub(crate) fn crypto(doing: &'static str) -> impl Fn(rcgen::Error) -> Self {
        move |error| Self::Crypto { doing, reason: error.to_string() }
    }
}

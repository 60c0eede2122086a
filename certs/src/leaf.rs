//! Reading PEM, and what a certificate says about itself.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_config::SpiffeId;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::error::{Error, Part};

/// The certificates of a PEM text, in its order. At least one.
pub(crate) fn certificates(part: Part, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::unreadable(part, error))?;
    if certificates.is_empty() { Err(Error::Empty(part)) } else { Ok(certificates) }
}

/// The first private key of a PEM text: PKCS #8, SEC 1 or PKCS #1.
pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls_pki_types::pem::Error::NoItemsFound => Error::Empty(Part::Key),
        error => Error::unreadable(Part::Key, error),
    })
}

/// Certificates as PEM (RFC 7468).
pub(crate) fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    certificates
        .iter()
        .map(|der| pem::encode_config(&pem::Pem::new("CERTIFICATE", der.to_vec()), config))
        .collect()
}

/// What a certificate says about itself.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) is_ca: bool,
    pub(crate) dns_names: Vec<String>,
    pub(crate) uris: Vec<String>,
}

impl Leaf {
    /// Reads a certificate. Its signature is not looked at.
    pub(crate) fn read(part: Part, der: &CertificateDer<'_>) -> Result<Self, Error> {
        let wrong = |error: &dyn std::fmt::Display| Error::unreadable(part, error);
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| wrong(&error))?;
        let names = certificate.subject_alternative_name().map_err(|error| wrong(&error))?;
        let (mut dns_names, mut uris) = (Vec::new(), Vec::new());
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => dns_names.push(name.to_ascii_lowercase()),
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                _ => {}
            }
        }
        Ok(Self {
            not_before: system_time(certificate.validity().not_before),
            not_after: system_time(certificate.validity().not_after),
            is_ca: certificate.is_ca(),
            dns_names,
            uris,
        })
    }

    /// The one SPIFFE ID (X509-SVID, section 2: exactly one URI name).
    pub(crate) fn spiffe_id(&self) -> Result<SpiffeId, Error> {
        match self.uris.as_slice() {
            [one] => one.parse().map_err(|why| Error::NoSpiffeId(format!("{why}"))),
            [] => Err(Error::NoSpiffeId("it has no URI name".into())),
            several => Err(Error::NoSpiffeId(format!("it has {}: {}", several.len(), several.join(", ")))),
        }
    }

    /// Whether its time is now.
    pub(crate) fn check_time(&self, part: Part, now: SystemTime) -> Result<(), Error> {
        if now < self.not_before {
            Err(Error::NotYetValid { part, until: self.not_before })
        } else if now > self.not_after {
            Err(Error::Expired { part, since: self.not_after })
        } else {
            Ok(())
        }
    }
}

/// A certificate's time. Times before 1970 count as 1970.
fn system_time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

/// Seconds since 1970.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A time for people.
pub(crate) fn utc(time: SystemTime) -> String {
    let seconds = i64::try_from(unix_seconds(time)).unwrap_or(i64::MAX);
    ASN1Time::from_timestamp(seconds)
        .map_or_else(|_| format!("{seconds} seconds after 1970"), |time| time.to_string())
}

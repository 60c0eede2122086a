//! The authority: a root that signs identities; and the requests that it signs.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_config::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CidrSubnet, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};

use crate::error::{Error, Part};
use crate::identity::certified_key;
use crate::leaf::{self, Leaf, unix_seconds};
use crate::secret::Secret;
use crate::{provider, verify};

/// How long a root that is made here lives: ten years.
const ROOT_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// How far back a certificate begins, for clocks that are behind.
const BACKDATED: Duration = Duration::from_mins(1);

/// A key that was made here, and the request for a certificate on it (PKCS #10, PEM): ECDSA P-256.
pub fn signing_request() -> Result<(Secret, String), Error> {
    let doing = Error::crypto("make a signing request");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(&doing)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = organisation();
    let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(&doing)?;
    Ok((Secret::new(key.serialize_pem()), request))
}

/// A certificate that was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The chain, PEM, leaf first, without the root.
    pub chain_pem: String,
    /// When it begins to be valid.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
    /// Its serial number: 16 random bytes, the first bit 0.
    pub serial: [u8; 16],
}

/// A root certificate with its key, for one trust domain.
pub struct Authority {
    trust_domain: String,
    certificate: CertificateDer<'static>,
    not_after: SystemTime,
    key_pem: Secret,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a root, ECDSA P-256, that lives for ten years from now and signs leaves alone.
    pub fn create(trust_domain: &str) -> Result<Self, Error> {
        Self::root(trust_domain, |number| format!("{trust_domain} root {number}"), None)
    }

    /// Makes a root as [`Authority::create`] does, that may vouch for `domain` and the names below it alone: its name
    /// constraints (RFC 5280, section 4.2.1.10) shut out other names, and every IP address. `owner` is named in it.
    pub fn create_constrained(domain: &str, owner: &str) -> Result<Self, Error> {
        let name = domain.parse().map_err(|_| Error::BadName(domain.to_owned()))?;
        let constraints = NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(name)],
            excluded_subtrees: vec![
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ],
        };
        Self::root(domain, |number| format!("Outrigger {domain} {number} of {owner}"), Some(constraints))
    }

    fn root(
        trust_domain: &str,
        common_name: impl FnOnce(&str) -> String,
        constraints: Option<NameConstraints>,
    ) -> Result<Self, Error> {
        let doing = Error::crypto("make a root certificate");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(&doing)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = organisation();
        // Two roots of one trust domain need two names: a chain is matched to its root by name first.
        let serial = serial()?;
        let number = serial.iter().take(4).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
        params.distinguished_name.push(DnType::CommonName, common_name(&number));
        params.name_constraints = constraints;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let now = SystemTime::now();
        set_validity(&mut params, now - BACKDATED, now + ROOT_LIFETIME);
        let certificate = params.self_signed(&key).map_err(&doing)?;
        Self::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes(), trust_domain)
    }

    /// Takes a root from PEM: one certificate, of an authority, and its key (PKCS #8).
    pub fn from_pem(certificate: &[u8], key: &[u8], trust_domain: &str) -> Result<Self, Error> {
        let certificates = leaf::certificates(Part::Root, certificate)?;
        let certificate = certificates.first().ok_or(Error::Empty(Part::Root))?.clone();
        let root = Leaf::read(Part::Root, &certificate)?;
        if !root.is_ca {
            return Err(Error::WrongRole { part: Part::Root, is_ca: false });
        }
        root.check_time(Part::Root, SystemTime::now())?;
        certified_key(vec![certificate.clone()], key, &provider::mesh())?;
        let key_pem = Secret::new(String::from_utf8_lossy(key).into_owned());
        let pair =
            KeyPair::from_pem(key_pem.expose()).map_err(|error| Error::unreadable(Part::Key, error))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, pair)
            .map_err(|error| Error::unreadable(Part::Root, error))?;
        let trust_domain = trust_domain.to_owned();
        Ok(Self { trust_domain, certificate, not_after: root.not_after, key_pem, issuer })
    }

    /// The trust domain whose identities it signs.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The root certificate, PEM: the trust bundle of its nodes.
    pub fn cert_pem(&self) -> String {
        leaf::to_pem(std::slice::from_ref(&self.certificate))
    }

    /// The root's private key, PEM.
    pub fn key_pem(&self) -> &Secret {
        &self.key_pem
    }

    /// The SHA-256 of the root certificate's DER.
    pub fn fingerprint(&self) -> [u8; 32] {
        verify::fingerprint(&self.certificate)
    }

    /// Signs an identity for the key of a signing request (PEM or DER), whose own signature must be right. Nothing
    /// else of the request counts. Valid from a minute before `now`, for `lifetime` but never longer than the root.
    pub fn sign(
        &self,
        request: &[u8],
        id: &SpiffeId,
        dns_names: &[String],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, Error> {
        if id.trust_domain() != self.trust_domain {
            let trust_domain = self.trust_domain.clone();
            return Err(Error::ForeignTrustDomain { id: id.clone(), trust_domain });
        }
        let bad_request = |error: &dyn fmt::Display| Error::unreadable(Part::Request, error);
        let der = if request.trim_ascii_start().starts_with(b"-----") {
            CertificateSigningRequestDer::from_pem_slice(request).map_err(|error| bad_request(&error))?
        } else {
            CertificateSigningRequestDer::from(request)
        };
        let public_key =
            CertificateSigningRequestParams::from_der(&der).map_err(|error| bad_request(&error))?.public_key;
        let mut names =
            vec![SanType::URI(id.as_str().try_into().map_err(|_| Error::BadName(id.to_string()))?)];
        for name in dns_names {
            names.push(san(name)?);
        }
        let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&public_key, names, both, lifetime, now)
    }

    /// A key and a certificate for the control API's own server, for DNS names and IP addresses. Its chain ends with
    /// the root, so that a node can recognise it by its fingerprint.
    pub fn server_identity(
        &self,
        names: &[String],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<(Issued, Secret), Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::crypto("make a key"))?;
        let names = names.iter().map(|name| san(name)).collect::<Result<Vec<_>, _>>()?;
        let server = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let mut issued = self.issue(&key, names, server, lifetime, now)?;
        issued.chain_pem.push_str(&self.cert_pem());
        Ok((issued, Secret::new(key.serialize_pem())))
    }

    fn issue(
        &self,
        public_key: &impl rcgen::PublicKeyData,
        names: Vec<SanType>,
        usages: Vec<ExtendedKeyUsagePurpose>,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, Error> {
        if now > self.not_after {
            return Err(Error::Expired { part: Part::Root, since: self.not_after });
        }
        let not_before = whole_seconds(now.checked_sub(BACKDATED).unwrap_or(UNIX_EPOCH));
        let wanted = now.checked_add(lifetime).unwrap_or(self.not_after);
        let not_after = whole_seconds(wanted.min(self.not_after));
        let serial = serial()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = organisation();
        params.subject_alt_names = names;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        set_validity(&mut params, not_before, not_after);
        let certificate =
            params.signed_by(public_key, &self.issuer).map_err(Error::crypto("sign a certificate"))?;
        let chain_pem = leaf::to_pem(std::slice::from_ref(certificate.der()));
        Ok(Issued { chain_pem, not_before, not_after, serial })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", &self.trust_domain)
            .field("not_after", &leaf::utc(self.not_after))
            .finish_non_exhaustive()
    }
}

fn organisation() -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Outrigger");
    name
}

/// A name of a certificate: an IP address, or else a DNS name.
fn san(name: &str) -> Result<SanType, Error> {
    match name.parse() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(name.try_into().map_err(|_| Error::BadName(name.to_owned()))?)),
    }
}

fn set_validity(params: &mut CertificateParams, not_before: SystemTime, not_after: SystemTime) {
    params.not_before = whole_seconds(not_before).into();
    params.not_after = whole_seconds(not_after).into();
}

/// Certificates count in seconds.
fn whole_seconds(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix_seconds(time))
}

/// A random serial number. Its first bit is 0, for it must not be negative (RFC 5280, section 4.1.2.2).
fn serial() -> Result<[u8; 16], Error> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| Error::Crypto {
        doing: "make a serial number",
        reason: "the system gives no random bytes".into(),
    })?;
    serial[0] = (serial[0] & 0x7f) | 0x40;
    Ok(serial)
}

//! Ordinary TLS: for callers from outside the mesh, and to services outside it. TLS 1.2 and 1.3.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::error::{Error, Part};
use crate::identity::{certified_key, root_store};
use crate::leaf::{self, Leaf};
use crate::provider;

/// A certificate chain with its key.
#[derive(Clone)]
pub struct Certified {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    not_after: SystemTime,
}

impl Certified {
    /// Reads a chain, leaf first, and its key, both PEM. The key must be the leaf's. An expired certificate is
    /// accepted: whether to believe it is the caller's choice, and [`Certified::not_after`] tells.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        let chain = leaf::certificates(Part::Chain, chain)?;
        let leaf = Leaf::read(Part::Chain, chain.first().ok_or(Error::Empty(Part::Chain))?)?;
        let key = Arc::new(certified_key(chain, key, &provider::edge())?);
        Ok(Self { key, names: leaf.dns_names, not_after: leaf.not_after })
    }

    /// Its DNS names, lower case, `*.` first where they are wildcards.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When it ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

impl fmt::Debug for Certified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certified")
            .field("names", &self.names)
            .field("not_after", &leaf::utc(self.not_after))
            .finish_non_exhaustive()
    }
}

/// For a listener that terminates TLS. The certificate is chosen by the name that the caller asks for (SNI): exact,
/// then wildcard; the first of the list answers everyone else. Where two have the same name, the earlier has it.
/// By ALPN: `h2`, `http/1.1`.
pub fn server_config(certificates: &[Arc<Certified>]) -> Result<Arc<ServerConfig>, Error> {
    let resolver = BySni::new(certificates)?;
    let mut config = ServerConfig::builder_with_provider(provider::edge())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| Error::Crypto { doing: "set up TLS", reason: error.to_string() })?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Chooses a certificate by the name that is asked for.
#[derive(Debug)]
struct BySni {
    first: Arc<CertifiedKey>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows `*.`: a wildcard stands for exactly one label (RFC 9525, section 6.3).
    wildcard: HashMap<String, Arc<CertifiedKey>>,
}

impl BySni {
    fn new(certificates: &[Arc<Certified>]) -> Result<Self, Error> {
        let first = certificates.first().ok_or(Error::Empty(Part::Chain))?.key.clone();
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for certificate in certificates {
            for name in &certificate.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut wildcard, rest),
                    None => (&mut exact, name.as_str()),
                };
                names.entry(name.to_owned()).or_insert_with(|| certificate.key.clone());
            }
        }
        Ok(Self { first, exact, wildcard })
    }

    /// rustls gives the name in lower case, and without a trailing dot.
    fn choose(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let named = name.and_then(|name| {
            let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
            self.exact.get(name).or_else(parent)
        });
        named.unwrap_or(&self.first).clone()
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.choose(hello.server_name()))
    }
}

/// Who may vouch for a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ca {
    /// The system's trust store.
    System,
    /// These certificates, PEM.
    Pem(Vec<u8>),
}

/// For calls to a service outside the mesh.
pub fn client_config(ca: Ca, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, Error> {
    let roots = match ca {
        Ca::System => system_roots()?,
        Ca::Pem(pem) => root_store(&leaf::certificates(Part::Bundle, &pem)?)?,
    };
    let mut config = ClientConfig::builder_with_provider(provider::edge())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| Error::Crypto { doing: "set up TLS", reason: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

fn system_roots() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Single certificates that cannot be read are passed over, as every system's own tools do.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let reason = if reasons.is_empty() { "install ca-certificates".into() } else { reasons.join("; ") };
        return Err(Error::NoSystemStore(reason));
    }
    Ok(roots)
}

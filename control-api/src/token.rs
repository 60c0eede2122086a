//! Tokens: what a node shows before it has a certificate. A JWT (RFC 7519) signed with a key of the data directory
//! that says which node may ask, which identity it gets, and by which root it recognises the control API.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use outrigger_config::{Name, SpiffeId};
use outrigger_control::message::Claims;
use serde::{Deserialize, Serialize};

use crate::data::{self, FileError, MESH, TOKEN_KEY, hex, random_id};

/// The longest that a token may be good for: ten years.
const LONGEST: Duration = Duration::from_hours(10 * 366 * 24);

/// What is the same in every token of a mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mesh {
    /// The trust domain of its identities.
    pub trust_domain: String,
    /// The SHA-256 of the root certificate's DER, in hexadecimal.
    pub ca: String,
}

/// Why no token could be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The identity belongs to another mesh.
    #[error(
        "{id} is not in the trust domain {trust_domain}: name an ID that begins with spiffe://{trust_domain}/"
    )]
    OtherTrustDomain {
        /// The identity asked for.
        id: SpiffeId,
        /// The mesh's.
        trust_domain: String,
    },
    /// The node's name cannot stand in a SPIFFE ID, and no ID was given.
    #[error("{0}")]
    NoIdentity(String),
    /// The time is zero or beyond ten years.
    #[error("a token must be good for at least a second and at most ten years")]
    Lifetime,
    /// The signing key or the random generator failed.
    #[error("the token could not be signed: {0}")]
    Signing(String),
}

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is over.
    #[error("the token has expired: make a new one with `outrigger-control token`")]
    Expired,
    /// Another key signed it.
    #[error("the token was not made by this control API")]
    Foreign,
    /// It is no token.
    #[error("the token is malformed: {0}")]
    Malformed(String),
    /// It was made for another node.
    #[error("the token is for the node {token}, not for {asked}")]
    OtherNode {
        /// The node it was made for.
        token: Name,
        /// The node that showed it.
        asked: Name,
    },
}

/// Makes tokens and checks them.
pub struct Tokens {
    mesh: Mesh,
    encode: EncodingKey,
    decode: DecodingKey,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("mesh", &self.mesh).finish_non_exhaustive()
    }
}

impl Tokens {
    /// The tokens of a mesh, with the signing key of the data directory, which is made if it is not there.
    ///
    /// # Errors
    /// If a file cannot be read or written, or holds no key.
    pub fn open(folder: &Path, mesh: Mesh) -> Result<Self, FileError> {
        let path = folder.join(TOKEN_KEY);
        if !path.exists() {
            let pair =
                Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8()).map_err(|_| FileError {
                    path: path.clone(),
                    what: "made",
                    reason: std::io::Error::other("the system gave no random bytes"),
                })?;
            data::write_private(&path, pair.as_ref())?;
        }
        let described = serde_json::to_vec_pretty(&mesh).unwrap_or_default();
        data::write_private(&folder.join(MESH), &described)?;
        Self::with_key(&path, mesh)
    }

    /// The tokens of the mesh whose control API keeps its data in `folder`, whether it runs or not.
    ///
    /// # Errors
    /// If that is no data directory, or cannot be read.
    pub fn of(folder: &Path) -> Result<Self, FileError> {
        Self::with_key(&folder.join(TOKEN_KEY), Mesh::of(folder)?)
    }

    fn with_key(path: &Path, mesh: Mesh) -> Result<Self, FileError> {
        let key = data::read(path)?;
        let pair = Ed25519KeyPair::from_pkcs8(&key).map_err(|reason| FileError {
            path: path.into(),
            what: "used as the tokens' key",
            reason: std::io::Error::other(reason.to_string()),
        })?;
        let decode = DecodingKey::from_ed_der(pair.public_key().as_ref());
        Ok(Self { mesh, encode: EncodingKey::from_ed_der(&key), decode })
    }

    /// The identity that a node has where nothing else is said: `spiffe://TRUST-DOMAIN/node/NAME`.
    ///
    /// # Errors
    /// If the node's name cannot stand in a SPIFFE ID.
    pub fn default_id(&self, node: &Name) -> Result<SpiffeId, TokenError> {
        format!("spiffe://{}/node/{node}", self.mesh.trust_domain)
            .parse()
            .map_err(|why: outrigger_config::scalar::Refused| TokenError::NoIdentity(why.to_string()))
    }

    /// A token for `node`, good from `now` for `ttl`, and when it ends in seconds since 1970.
    ///
    /// # Errors
    /// If the identity is of another trust domain, or the time makes no sense.
    pub fn issue(
        &self,
        node: &Name,
        id: Option<&SpiffeId>,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<(String, u64), TokenError> {
        let id = id.cloned().map_or_else(|| self.default_id(node), Ok)?;
        if id.trust_domain() != self.mesh.trust_domain {
            return Err(TokenError::OtherTrustDomain { id, trust_domain: self.mesh.trust_domain.clone() });
        }
        if ttl.as_secs() == 0 || ttl > LONGEST {
            return Err(TokenError::Lifetime);
        }
        let iat = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let exp = iat + ttl.as_secs();
        let jti = random_id().map_err(|reason| TokenError::Signing(reason.to_string()))?;
        let claims = Claims { sub: node.clone(), id, ca: self.mesh.ca.clone(), iat, exp, jti };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &self.encode)
            .map_err(|reason| TokenError::Signing(reason.to_string()))?;
        Ok((token, exp))
    }

    /// The identity that `token` gives to `node`.
    ///
    /// # Errors
    /// If it has expired, was signed by somebody else, is for another node, or is no token.
    pub fn check(&self, token: &str, node: &Name) -> Result<SpiffeId, Refused> {
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = 0;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decode, &validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => Refused::Expired,
                ErrorKind::InvalidSignature => Refused::Foreign,
                _ => Refused::Malformed(error.to_string()),
            })?
            .claims;
        if claims.sub != *node {
            return Err(Refused::OtherNode { token: claims.sub, asked: node.clone() });
        }
        // The key outlives a change of --trust-domain; an identity of the old one must not be signed any more.
        if claims.id.trust_domain() != self.mesh.trust_domain {
            return Err(Refused::Foreign);
        }
        Ok(claims.id)
    }
}

impl Mesh {
    /// The mesh of a trust domain whose root certificate has this SHA-256.
    pub fn new(trust_domain: &str, fingerprint: [u8; 32]) -> Self {
        Self { trust_domain: trust_domain.into(), ca: hex(&fingerprint) }
    }

    /// The mesh of the control API that keeps its data in `folder`.
    ///
    /// # Errors
    /// If that is no data directory, or cannot be read.
    pub fn of(folder: &Path) -> Result<Self, FileError> {
        let path = folder.join(MESH);
        serde_json::from_slice(&data::read(&path)?).map_err(|reason| FileError {
            path,
            what: "read",
            reason: reason.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(folder: &Path) -> Tokens {
        Tokens::open(folder, Mesh::new("outrigger.local", [7; 32])).unwrap()
    }

    fn node(name: &str) -> Name {
        name.parse().unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_node_and_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = tokens(folder.path());
        let (now, hour) = (SystemTime::now(), Duration::from_hours(1));
        let (token, expires) = tokens.issue(&node("a"), None, hour, now).unwrap();
        assert_eq!(expires, now.duration_since(UNIX_EPOCH).unwrap().as_secs() + 3600);
        assert_eq!(tokens.check(&token, &node("a")).unwrap().as_str(), "spiffe://outrigger.local/node/a");
        let (token_of, asked) = (node("a"), node("b"));
        assert_eq!(tokens.check(&token, &asked), Err(Refused::OtherNode { token: token_of, asked }));
        let (old, _) = tokens.issue(&node("a"), None, hour, now - 2 * hour).unwrap();
        assert_eq!(tokens.check(&old, &node("a")), Err(Refused::Expired));
        // The key is kept, so that what was handed out stays good; a moved mesh does not take it.
        let again = Tokens::of(folder.path()).unwrap();
        assert!(again.check(&token, &node("a")).is_ok());
        let moved = Tokens::open(folder.path(), Mesh::new("elsewhere", [7; 32])).unwrap();
        assert_eq!(moved.check(&token, &node("a")), Err(Refused::Foreign));
    }

    #[test]
    fn a_token_that_signs_itself_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = tokens(folder.path());
        // The public key as the secret of another algorithm, and no algorithm at all (RFC 8725, section 2.1).
        let key = Ed25519KeyPair::from_pkcs8(&std::fs::read(folder.path().join(TOKEN_KEY)).unwrap()).unwrap();
        let secret = EncodingKey::from_secret(key.public_key().as_ref());
        let (good, _) = tokens.issue(&node("a"), None, Duration::from_hours(1), SystemTime::now()).unwrap();
        let claims: Claims = jsonwebtoken::dangerous::insecure_decode(&good).unwrap().claims;
        let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret).unwrap();
        assert!(matches!(tokens.check(&forged, &node("a")), Err(Refused::Malformed(_))));
        let payload = good.split('.').nth(1).unwrap();
        for none in [format!("eyJhbGciOiJub25lIn0.{payload}."), format!("eyJhbGciOiJub25lIn0.{payload}")] {
            assert!(matches!(tokens.check(&none, &node("a")), Err(Refused::Malformed(_))), "{none}");
        }
    }

    #[test]
    fn no_text_breaks_it() {
        let folder = tempfile::tempdir().unwrap();
        let (tokens, node) = (tokens(folder.path()), node("a"));
        let part = "[A-Za-z0-9_-]{0,90}";
        proptest!(|(text in ".{0,120}", head in part, payload in part, signature in part)| {
            prop_assert!(tokens.check(&text, &node).is_err());
            let parts = format!("{head}.{payload}.{signature}");
            prop_assert!(tokens.check(&parts, &node).is_err());
        });
    }
}

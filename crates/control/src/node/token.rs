//! The token that a node's first certificate is signed for.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use outrigger_certs::{Identity, Secret};

use crate::message::Claims;

/// A token, with what it says about itself. Its signature is the control API's to check.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) text: Secret,
    pub(super) claims: Claims,
    /// The SHA-256 of the root certificate's DER.
    pub(super) root: [u8; 32],
}

impl Token {
    /// Reads a token's file.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
        Self::parse(text.trim())
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split('.');
        let (Some(_), Some(payload), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("is not a token: it must have three parts with dots between".into());
        };
        let payload = BASE64_URL_SAFE_NO_PAD
            .decode(payload)
            .map_err(|error| format!("is not a token: its second part is not base64url: {error}"))?;
        let claims: Claims = serde_json::from_slice(&payload)
            .map_err(|error| format!("is not a token of this control API: {error}"))?;
        let root = sha256(&claims.ca)
            .ok_or("is not a token of this control API: `ca` must be 64 hexadecimal digits")?;
        Ok(Self { text: Secret::new(text.to_owned()), claims, root })
    }

    /// Whether it leads to the identity that the node has, from a root that it believes.
    pub(super) fn agrees_with(&self, identity: &Identity) -> bool {
        self.claims.id == *identity.id() && identity.believes(&self.root)
    }
}

fn sha256(hex: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    let digits = hex.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{BASE64_URL_SAFE_NO_PAD, Engine, Token, sha256};

    fn token(ca: &str) -> Result<Token, String> {
        let id = "spiffe://outrigger.test/node/a";
        let payload = format!(r#"{{"sub":"a","id":"{id}","ca":"{ca}","iat":1,"exp":2,"jti":"x"}}"#);
        Token::parse(&format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(payload)))
    }

    #[test]
    fn a_token_says_whom_to_believe() {
        let token = token(&"0aF9".repeat(16)).unwrap();
        assert_eq!(token.root, [0x0a, 0xf9].repeat(16).as_slice());
        assert_eq!(token.claims.sub.as_str(), "a");
        assert!(!format!("{token:?}").contains("c2ln"), "its text is not shown");
    }

    #[test]
    fn another_ca_is_refused() {
        for ca in ["", "0", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"+1".repeat(32)] {
            assert!(token(ca).unwrap_err().contains("64 hexadecimal digits"), "{ca}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in ".{0,200}", parts in "[A-Za-z0-9_.=-]{0,200}", hex in ".{64}") {
            let _ = (Token::parse(&text), Token::parse(&parts), sha256(&hex));
        }
    }
}

//! The little of WebSocket's opening handshake that a proxy has to know (RFC 6455, section 4): a caller or a backend of
//! HTTP/2 does without the key and its answer, and one of HTTP/1.1 wants them.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

/// What every key is answered with (RFC 6455, section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether this `Upgrade` asks for it, and for nothing else.
pub fn is_asked(upgrade: &HeaderValue) -> bool {
    upgrade.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket")
}

/// A `Sec-WebSocket-Key`: 16 random bytes.
pub fn key(random: &mut fastrand::Rng) -> HeaderValue {
    let bytes: [u8; 16] = std::array::from_fn(|_| random.u8(..));
    value(&bytes)
}

/// The `Sec-WebSocket-Accept` that answers a key.
pub fn accept(key: &HeaderValue) -> HeaderValue {
    // Not for secrecy: it shows that the server has read the key.
    let mut digest = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    digest.update(key.as_bytes());
    digest.update(GUID);
    value(digest.finish().as_ref())
}

fn value(bytes: &[u8]) -> HeaderValue {
    // Base64 is always a valid value.
    HeaderValue::try_from(STANDARD.encode(bytes)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_the_key_of_the_standard() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_is_16_bytes_and_never_the_same() {
        let mut random = fastrand::Rng::with_seed(7);
        let (one, two) = (key(&mut random), key(&mut random));
        assert_eq!(STANDARD.decode(one.as_bytes()).unwrap().len(), 16);
        assert_ne!(one, two);
    }
}

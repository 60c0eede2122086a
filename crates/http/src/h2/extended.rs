//! Extended CONNECT (RFC 8441) in the form of an upgrade of HTTP/1.1, which is the form in which requests are matched,
//! allowed and sent on, and back.

use h2::ext::Protocol;
use http::header::{CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Extensions, Method, StatusCode};

use crate::websocket;

/// Makes a request that is an extended CONNECT one for an upgrade, and says whether it was one.
pub(super) fn to_upgrade(method: &mut Method, headers: &mut HeaderMap, extensions: &mut Extensions) -> bool {
    let Some(protocol) = extensions.remove::<Protocol>() else { return false };
    *method = Method::GET;
    // A protocol that is no token becomes one that no backend knows; so does HTTP/2 itself, which would go past every
    // route.
    let protocol = HeaderValue::from_str(protocol.as_str()).ok().filter(is_other_protocol);
    headers.insert(UPGRADE, protocol.unwrap_or(HeaderValue::from_static("unknown")));
    true
}

fn is_other_protocol(protocol: &HeaderValue) -> bool {
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(byte);
    protocol.as_bytes().iter().all(token) && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c")
}

/// Makes a response to such a request one to extended CONNECT.
pub(super) fn from_switching(status: &mut StatusCode, headers: &mut HeaderMap) {
    *status = StatusCode::OK;
    for name in [UPGRADE, CONNECTION, SEC_WEBSOCKET_ACCEPT] {
        headers.remove(name);
    }
}

/// What an upgrade wants to hear, where it is accepted.
pub(super) struct Wanted {
    protocol: HeaderValue,
    key: Option<HeaderValue>,
}

/// Makes a request for an upgrade an extended CONNECT.
pub(super) fn to_connect(
    method: &mut Method,
    headers: &mut HeaderMap,
    extensions: &mut Extensions,
) -> Option<Wanted> {
    let protocol = headers.remove(UPGRADE)?;
    let token = protocol.to_str().ok()?.split(',').next()?.trim().to_ascii_lowercase();
    extensions.insert(Protocol::from(token.as_str()));
    *method = Method::CONNECT;
    Some(Wanted { protocol, key: headers.remove(SEC_WEBSOCKET_KEY) })
}

/// Makes a successful response to extended CONNECT the acceptance of an upgrade.
pub(super) fn to_switching(status: &mut StatusCode, headers: &mut HeaderMap, wanted: Wanted) {
    *status = StatusCode::SWITCHING_PROTOCOLS;
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, wanted.protocol);
    if let Some(key) = wanted.key {
        headers.insert(SEC_WEBSOCKET_ACCEPT, websocket::accept(&key));
    }
}

//! What of a request decides which endpoint takes it, where its backend goes by a hash.

use std::net::IpAddr;

use http::Request;
use outrigger_balance::hash;
use outrigger_config::backend::{HashKey, HashKind};

use crate::session::cookies;

/// The hash of the first of these that a request has, from a caller at this address.
pub(crate) fn of_request<B>(keys: &[HashKey], request: &Request<B>, caller: IpAddr) -> Option<u64> {
    keys.iter().find_map(|key| {
        let name = key.name.as_ref().map(outrigger_config::Token::as_str);
        match key.kind {
            HashKind::Header => request.headers().get(name?).map(|value| hash(value.as_bytes())),
            HashKind::Cookie => cookies(request.headers(), name?).next().map(|value| hash(value.as_bytes())),
            HashKind::QueryParam => {
                let (_, value) = form_urlencoded::parse(request.uri().query()?.as_bytes())
                    .find(|(its_name, _)| its_name == name.unwrap_or_default())?;
                Some(hash(value.as_bytes()))
            }
            HashKind::SourceAddress => Some(of_address(caller)),
        }
    })
}

/// The hash of what decides for a connection that is not HTTP, of which only the caller's address is known.
pub(crate) fn of_connection(keys: &[HashKey], caller: IpAddr) -> Option<u64> {
    keys.iter().any(|key| key.kind == HashKind::SourceAddress).then(|| of_address(caller))
}

/// IPv4 is the same whichever way it came in.
fn of_address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => hash(&address.octets()),
        IpAddr::V6(address) => hash(&address.octets()),
    }
}

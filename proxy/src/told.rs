//! What a listener tells of itself and its callers to those behind it, and of itself to its callers.

use http::{HeaderMap, Version};
use outrigger_config::Cidr;
use outrigger_config::listener::Listener;
use outrigger_http::forwarded::{From, Via, Written, write};

use crate::connection::Connection;

/// What a listener tells.
#[derive(Debug)]
pub(crate) struct Told {
    written: Written,
    /// Whose word is believed.
    trust: Box<[Cidr]>,
    via: Option<Via>,
}

impl Told {
    /// What a listener is configured to tell; `None` if that is nothing.
    pub(crate) fn by(listener: &Listener) -> Option<Box<Self>> {
        let written =
            Written { x_forwarded: listener.x_forwarded(), forwarded: listener.http.forwarded.forwarded };
        let via = listener.via().and_then(|name| Via::new(name.as_str()));
        let trust = listener.http.forwarded.trust.as_slice().into();
        (written.any() || via.is_some()).then(|| Box::new(Self { written, trust, via }))
    }

    /// Writes it in the header of a request that was received in this version.
    pub(crate) fn request(&self, connection: &Connection, version: Version, headers: &mut HeaderMap) {
        if self.written.any() {
            let peer = connection.peer.ip();
            let from = From {
                address: connection.peer_text(),
                ipv6: peer.is_ipv6(),
                secure: connection.is_https(),
                trusted: self.trust.iter().any(|network| network.contains(peer)),
            };
            write(headers, self.written, &from);
        }
        self.response(version, headers);
    }

    /// Writes it in the header of a response that was received in this version.
    pub(crate) fn response(&self, version: Version, headers: &mut HeaderMap) {
        if let Some(via) = &self.via {
            via.write(headers, version);
        }
    }
}

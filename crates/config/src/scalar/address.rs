//! Addresses: where to listen, and where an endpoint is.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::name::dns_name;
use super::{Refused, refuse};

/// Where an endpoint is: an address, or a name that is resolved and followed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPort {
    /// An IP address and port.
    Socket(SocketAddr),
    /// A DNS name and port.
    Name(Arc<str>, u16),
}

text!(
    HostPort,
    "HostPort",
    "an address, such as 127.0.0.1:3000",
    "An IP address or a DNS name, with a port: 127.0.0.1:3000, [::1]:3000 or localhost:3000.",
    r"^(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_]([-.A-Za-z0-9_]*[A-Za-z0-9_])?):[0-9]{1,5}$"
);

impl HostPort {
    /// The port.
    pub const fn port(&self) -> u16 {
        match self {
            Self::Socket(address) => address.port(),
            Self::Name(_, port) => *port,
        }
    }
}

impl FromStr for HostPort {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 {
                refuse(format!("`{text}`: the port must not be 0"))
            } else {
                Ok(Self::Socket(address))
            };
        }
        let wrong = |why: &str| refuse(format!("`{text}` is not an address: {why}"));
        let Some((host, port)) = text.rsplit_once(':') else {
            return wrong("write HOST:PORT");
        };
        let Ok(port @ 1..) = port.parse::<u16>() else {
            return wrong("the port must be a number from 1 to 65535");
        };
        if host.contains(':') {
            return wrong("write an IPv6 address in brackets: [::1]:3000");
        }
        if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return wrong("that is not an IPv4 address");
        }
        match dns_name(host) {
            Ok(()) => Ok(Self::Name(host.to_ascii_lowercase().into(), port)),
            Err(why) => wrong(why),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// Reads the address of a listener, with a message that says what one looks like.
pub(crate) fn socket_address<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<SocketAddr, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "`{text}` is not an address to listen on: write an IP address and a port, such as 127.0.0.1:8080 or [::]:8080"
        ))
    })
}

/// The JSON Schema of what [`socket_address`] reads.
pub(crate) fn socket_address_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.%]+\]):[0-9]{1,5}$"
    })
}

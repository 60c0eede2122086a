//! Networks: ranges of addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{Refused, refuse};

/// A range of addresses (RFC 4632): `10.0.0.0/8`, `fd00::/8`; one address alone: `10.0.0.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    first: IpAddr,
    /// How many leading bits all its addresses have in common.
    bits: u8,
}

text!(
    Cidr,
    "Cidr",
    "a network, such as 10.0.0.0/8",
    "A range of addresses, such as 10.0.0.0/8 or fd00::/8, or one address.",
    r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)(/[0-9]{1,3})?$"
);

impl Cidr {
    /// Whether an address is in it. An IPv4 address is the same address mapped into IPv6.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                masked(first.to_bits().into(), self.bits, 32)
                    == masked(address.to_bits().into(), self.bits, 32)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                masked(first.to_bits(), self.bits, 128) == masked(address.to_bits(), self.bits, 128)
            }
            _ => false,
        }
    }
}

/// The leading `bits` of an address that has `width` of them; the others are zero.
const fn masked(address: u128, bits: u8, width: u8) -> u128 {
    match (width - bits) as u32 {
        128 => 0,
        host => address >> host << host,
    }
}

impl FromStr for Cidr {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let wrong = |why: &str| refuse(format!("`{text}` is not a network: {why}"));
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let Ok(address) = address.parse::<IpAddr>() else {
            return wrong("write an address, or one with `/` and a number of bits, such as 10.0.0.0/8");
        };
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits.map_or(Ok(width), str::parse::<u8>) {
            Ok(bits) if bits <= width => bits,
            _ => return wrong(&format!("after `/` comes a number from 0 to {width}")),
        };
        let first = match address {
            IpAddr::V4(v4) => IpAddr::V4((masked(v4.to_bits().into(), bits, width) as u32).into()),
            IpAddr::V6(v6) => IpAddr::V6(masked(v6.to_bits(), bits, width).into()),
        };
        if first != address {
            return wrong(&format!("its first address is {first}: write {first}/{bits}, or {address} alone"));
        }
        Ok(Self { first, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

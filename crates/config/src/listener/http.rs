//! How a listener serves HTTP: what a path means to routes, what is told of the caller, limits and timeouts.

use std::net::IpAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::{Direction, Listener, is_default};
use crate::scalar::{Cidr, Duration, Token};

/// How HTTP is served on a listener. The limits of headers hold for what backends answer to its requests as well.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerHttp {
    /// What a path means to routes and policies. What is sent on stays as it was received, byte for byte.
    #[serde(default, skip_serializing_if = "is_default")]
    pub path: HttpPath,
    /// What the application is told about where a request came from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub forwarded: Forwarded,
    /// The name in the field `via` of requests and responses (RFC 9110, section 7.6.3); `false`: the field is left as
    /// it is, `true`: `outrigger`. Absent: `outrigger` with direction `Edge`, and `false` with the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// How much a caller may send, and how slowly.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: HttpLimits,
    /// How long a caller may take.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: HttpTimeouts,
}

/// What a path means to routes and policies: it is brought into this form before they see it. What is sent on stays
/// as it was received, byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpPath {
    /// Whether different spellings of one path are the same.
    #[serde(default, skip_serializing_if = "is_default")]
    pub normalize: Normalize,
    /// Whether several slashes in a row are one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub merge_slashes: bool,
    /// What `%2F` means.
    #[serde(default, skip_serializing_if = "is_default")]
    pub encoded_slash: EncodedSlash,
}

/// Whether different spellings of one path are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum Normalize {
    /// No: a path is taken as it was received.
    None,
    /// Yes, as RFC 3986, section 6.2.2, has it: what need not be percent-encoded is decoded, what must be is encoded in
    /// upper case, and `.` and `..` are resolved. A `%` that begins no encoding counts as `%25`.
    #[default]
    Rfc3986,
}

/// What an encoded slash in a path, `%2F`, means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum EncodedSlash {
    /// A character like any other.
    #[default]
    Keep,
    /// The request is refused with 400.
    Refuse,
    /// A slash: what stands after it is a segment of its own.
    Slash,
}

/// What the application is told about where a request came from. Of a caller whose address is in `trust`, the values
/// received are kept and added to; of any other, they are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Forwarded {
    /// In `x-forwarded-for`, `x-forwarded-proto` and `x-forwarded-host`. Absent: with direction `Edge` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x_forwarded: Option<bool>,
    /// In `forwarded` (RFC 7239).
    #[serde(default, skip_serializing_if = "is_default")]
    pub forwarded: bool,
    /// The addresses of callers that tell the truth about whom they ask for: other proxies. Nobody, where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trust: Vec<Cidr>,
}

impl Forwarded {
    /// Whether a caller with this address is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.trust.iter().any(|network| network.contains(peer))
    }
}

/// The name in the field `via`, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// The field is left as it is.
    Off,
    /// Under this name.
    As(Token),
}

impl Serialize for Via {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::As(name) => name.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Via {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrBool;
        impl Visitor<'_> for NameOrBool {
            type Value = Via;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name, `true` or `false`")
            }
            fn visit_bool<E: Error>(self, on: bool) -> Result<Via, E> {
                Ok(if on { Via::As(Token::outrigger()) } else { Via::Off })
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Via, E> {
                text.parse().map(Via::As).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(NameOrBool)
    }
}

impl JsonSchema for Via {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Via".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let name = generator.subschema_for::<Token>();
        json_schema!({
            "description": "The name in the field `via`; `true`: `outrigger`; `false`: none.",
            "anyOf": [{ "type": "boolean" }, name]
        })
    }
}

/// How much a caller may send, and how slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpLimits {
    /// How many bytes the head of a message may have, and so its trailers, 1024 to 1048576. 65536 where it is absent.
    /// A request with more gets 431, a response 502.
    #[schemars(range(min = 1024, max = 1_048_576))]
    pub header_bytes: u32,
    /// How many fields the head of a message may have, and so its trailers, 16 to 8192. 128 where it is absent. A
    /// request with more gets 431, a response 502.
    #[schemars(range(min = 16, max = 8192))]
    pub header_fields: u32,
    /// How many requests a caller may have under way on one HTTP/2 connection, 1 to 65536. 256 where it is absent.
    #[schemars(range(min = 1, max = 65_536))]
    pub streams_per_connection: u32,
    /// How many connections may be open at a time, all callers together. Absent: as many as the system allows. A
    /// request on one more gets 503, and the connection is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub connections: Option<u32>,
    /// How many requests may be in flight at a time, all callers together. Absent: without limit. One more gets 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests: Option<u32>,
    /// How slowly the body of a request may come. Absent: as slowly as the caller likes, as streams do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_body_rate: Option<MinBodyRate>,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            header_bytes: 65_536,
            header_fields: 128,
            streams_per_connection: 256,
            connections: None,
            requests: None,
            min_body_rate: None,
        }
    }
}

/// How slowly the body of a request may come. A slower one gets 408, and its connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MinBodyRate {
    /// The least that must come on average while it is waited for, in bytes for each second.
    #[schemars(range(min = 1))]
    pub bytes_per_second: u32,
    /// How long it may be slower than that. 5 s where it is absent.
    #[serde(default = "grace")]
    pub grace: Duration,
}

const fn grace() -> Duration {
    Duration::from_secs(5)
}

/// How long a caller may take. `0s`: without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpTimeouts {
    /// For the head of a request, from its first byte on; over it, it gets 408. The first of a connection must have begun
    /// in that time, too. 60 s where it is absent.
    pub header: Duration,
    /// Between two requests of a connection. 5 minutes where it is absent.
    pub idle: Duration,
    /// For a request, a response or an upgraded connection on which nothing moves either way. An hour where it is absent: a
    /// stream that is silent for that long is more likely lost than waited for.
    pub stream: Duration,
    /// After how long a connection is to end in order, a tenth of it left to chance; not of another sidecar, which sees to
    /// that itself. Without limit where it is absent.
    pub max_connection_age: Duration,
}

impl HttpTimeouts {
    /// How long the head of a request may take, if there is a limit.
    pub fn header(&self) -> Option<std::time::Duration> {
        self.header.limit()
    }

    /// How long a connection may be without a request, if there is a limit.
    pub fn idle(&self) -> Option<std::time::Duration> {
        self.idle.limit()
    }

    /// How long nothing may move on a stream, if there is a limit.
    pub fn stream(&self) -> Option<std::time::Duration> {
        self.stream.limit()
    }

    /// How old a connection may grow, if there is a limit.
    pub fn max_connection_age(&self) -> Option<std::time::Duration> {
        self.max_connection_age.limit()
    }
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(60),
            idle: Duration::from_secs(300),
            stream: Duration::from_secs(3600),
            max_connection_age: Duration::from_secs(0),
        }
    }
}

/// What the listener says, or else what its direction calls for.
impl Listener {
    /// Whether the application is told in `x-forwarded-*` where a request came from.
    pub fn x_forwarded(&self) -> bool {
        self.http.forwarded.x_forwarded.unwrap_or(self.direction == Direction::Edge)
    }

    /// The proxy's name in `via`; `None`: the field is left as it is.
    pub fn via(&self) -> Option<Token> {
        match &self.http.via {
            Some(Via::As(name)) => Some(name.clone()),
            Some(Via::Off) => None,
            None => (self.direction == Direction::Edge).then(Token::outrigger),
        }
    }
}

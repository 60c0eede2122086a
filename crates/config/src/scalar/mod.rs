//! The scalars of the configuration language. Each is parsed once, from text, into a type that cannot be wrong;
//! each prints back as the text it was parsed from means.

/// Why a scalar was refused: a sentence fragment that names the value and says what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// Refuses a scalar with a formatted reason.
pub(crate) fn refuse<T>(why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused(why.into()))
}

/// Serde as text, and a JSON Schema of one string with a pattern, for a type with `FromStr` and `Display`.
/// Where something else stands instead, the error says that `$expected` was.
macro_rules! text {
    ($type:ty, $title:literal, $expected:literal, $description:literal, $pattern:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $title.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": $description, "pattern": $pattern })
            }
        }
    };
}

mod address;
mod duration;
mod http;
mod identity;
mod media;
mod name;
mod network;
mod origin;
mod pattern;
#[cfg(test)]
mod tests;
mod timestamp;

pub use address::HostPort;
pub(crate) use address::{socket_address, socket_address_schema};
pub use duration::Duration;
pub use http::{HeaderName, HeaderValue, Method, Token};
pub use identity::SpiffeId;
pub use media::MediaRange;
pub use name::{Hostname, Name};
pub use network::Cidr;
pub use origin::{CorsOrigin, Scheme};
pub use pattern::Pattern;
pub use timestamp::Timestamp;

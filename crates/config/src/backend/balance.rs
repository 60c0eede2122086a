//! Which endpoint of a backend takes a request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::listener::is_default;
use crate::scalar::{Duration, Token};

/// Which endpoint takes a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Balance {
    /// The way of choosing.
    #[serde(rename = "type")]
    pub kind: BalanceKind,
    /// What of a request decides where it goes, with `RingHash` and `Maglev`: the first of these that the request has. A
    /// request that has none goes to any endpoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub hash: Vec<HashKey>,
    /// Over how long an endpoint that is new, or well again, comes to its full share, from a tenth of it. Absent: it has it
    /// at once. Without effect where a hash decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Duration>,
    /// Whether endpoints in this node's own zone come first.
    #[serde(skip_serializing_if = "is_default")]
    pub locality: Locality,
    /// With fewer of the endpoints well than this, in per cent, all of them are used that can be connected to: then it is
    /// more likely that the judgement is wrong than that so many are ill, and those that are well would be overrun. Not
    /// while endpoints of other priorities can take the requests. 0: never. 50 where it is absent.
    #[schemars(range(max = 100))]
    pub panic_threshold: u32,
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            kind: BalanceKind::default(),
            hash: Vec::new(),
            slow_start: None,
            locality: Locality::default(),
            panic_threshold: 50,
        }
    }
}

/// A way of choosing an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum BalanceKind {
    /// The better of the one whose turn it is and one at random, by latency times what is in flight.
    #[default]
    PeakEwma,
    /// The better of the one whose turn it is and one at random, by what is in flight.
    LeastRequest,
    /// Each in turn.
    RoundRobin,
    /// Any.
    Random,
    /// By a hash of the request, on a ring (Karger et al., 1997): the same goes to the same endpoint, and few go elsewhere when
    /// the endpoints change.
    RingHash,
    /// By a hash of the request, by Maglev's table (Eisenbud et al., 2016): more even than a ring, and a little more goes
    /// elsewhere when the endpoints change.
    Maglev,
}

impl BalanceKind {
    /// Every way.
    pub const ALL: [Self; 6] =
        [Self::PeakEwma, Self::LeastRequest, Self::RoundRobin, Self::Random, Self::RingHash, Self::Maglev];

    /// Whether a hash of the request decides.
    pub const fn is_by_hash(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

/// Something of a request that decides where it goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HashKey {
    /// What.
    #[serde(rename = "type")]
    pub kind: HashKind,
    /// The header's, cookie's or query parameter's name; not with `SourceAddress`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Token>,
}

/// What of a request decides where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum HashKind {
    /// A header's value.
    Header,
    /// A cookie's value.
    Cookie,
    /// A query parameter's value.
    QueryParam,
    /// The caller's IP address.
    SourceAddress,
}

/// Whether endpoints in this node's own zone come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum Locality {
    /// Yes, as far as they are well and not busier than the others: no endpoint gets more than 1.5 times the mean. Without
    /// effect where this node's zone is not known, or no endpoint is in it, or a hash decides.
    #[default]
    PreferZone,
    /// No.
    Any,
}

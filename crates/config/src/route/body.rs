//! Filters of our own that change bodies.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::MediaRange;

/// Compresses responses for callers that accept it. Left alone is what is encoded already, what is partial or empty, what
/// says `Cache-Control: no-transform`, gRPC, and event streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Compression {
    /// The content codings, the first before others that a caller likes equally well. `Zstd`, `Brotli`, `Gzip` where it is
    /// absent.
    #[schemars(length(min = 1, max = 3), extend("not" = { "contains": { "const": "Deflate" } }))]
    pub algorithms: Vec<Coding>,
    /// The media types of responses that are compressed: `text/html`, `text/*`. Text and the like where it is absent.
    #[schemars(length(min = 1, max = 64))]
    pub content_types: Vec<MediaRange>,
    /// The least bytes of a response whose length is known. 1024 where it is absent.
    pub min_bytes: u32,
}

impl Default for Compression {
    fn default() -> Self {
        let kinds = [
            "text/*",
            "application/json",
            "application/*+json",
            "application/javascript",
            "application/xml",
            "application/*+xml",
            "application/wasm",
            "application/manifest+json",
            "image/svg+xml",
        ];
        Self {
            algorithms: vec![Coding::Zstd, Coding::Brotli, Coding::Gzip],
            content_types: kinds.iter().filter_map(|kind| kind.parse().ok()).collect(),
            min_bytes: 1024,
        }
    }
}

/// Decompresses requests. One whose `Content-Encoding` is not among these goes on as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Decompression {
    /// The content codings. All where it is absent.
    #[schemars(length(min = 1, max = 4))]
    pub algorithms: Vec<Coding>,
    /// How many bytes may come of a request; 413 beyond. 10 MiB where it is absent.
    #[schemars(range(min = 1))]
    pub max_bytes: u64,
    /// How many bytes may come of each byte, once it is more than 64 KiB; 413 beyond. 100 where it is absent.
    #[schemars(range(min = 1))]
    pub max_ratio: u32,
}

impl Default for Decompression {
    fn default() -> Self {
        Self {
            algorithms: vec![Coding::Gzip, Coding::Brotli, Coding::Zstd, Coding::Deflate],
            max_bytes: 10 * 1024 * 1024,
            max_ratio: 100,
        }
    }
}

/// A content coding (RFC 9110, section 8.4.1; RFC 7932; RFC 8878).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Coding {
    /// `gzip`.
    Gzip,
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
    /// `deflate`, which is zlib's. For requests alone.
    Deflate,
}

impl Coding {
    /// As messages name it.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Deflate => "deflate",
        }
    }

    /// The coding that a message names.
    pub fn of_token(token: &str) -> Option<Self> {
        let token = token.trim();
        let all = [Self::Gzip, Self::Brotli, Self::Zstd, Self::Deflate];
        let named = all.into_iter().find(|coding| coding.token().eq_ignore_ascii_case(token));
        named.or_else(|| token.eq_ignore_ascii_case("x-gzip").then_some(Self::Gzip))
    }
}

impl std::fmt::Display for Coding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

/// How large bodies may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct BodyLimit {
    /// The most bytes of a request's body, as it comes; 413 beyond.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
    /// The most bytes of a response's body, as it comes: 502 beyond, or the end of the response where it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
}

/// Sends a request once its whole body is there, with its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Buffer {
    /// The most bytes of a body; 413 beyond.
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub max_bytes: u64,
}

/// Makes calls of gRPC out of requests of gRPC-Web, `application/grpc-web` and `application/grpc-web-text`, and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcWeb {}

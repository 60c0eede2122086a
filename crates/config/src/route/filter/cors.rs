//! Which pages of other origins may read responses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::listener::is_default;
use crate::scalar::{CorsOrigin, HeaderName, Method};

/// Says which pages of other origins may send requests and read the responses, and answers preflight requests (Gateway
/// API, `HTTPCORSFilter`; <https://fetch.spec.whatwg.org/#http-cors-protocol>). In each list `*` stands for all, and
/// alone but in `exposeHeaders`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cors {
    /// The origins allowed: `https://shop.example`, `https://*.example`, `*`. None where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allow_origins: Vec<CorsOrigin>,
    /// Whether requests may carry cookies and other credentials.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_credentials: bool,
    /// The methods allowed beside GET, HEAD and POST.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub allow_methods: Vec<Method>,
    /// The headers that requests may have beside those that are always allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allow_headers: Vec<HeaderName>,
    /// The headers of responses that pages may read beside those that they always may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub expose_headers: Vec<HeaderName>,
    /// For how many seconds a browser may remember the answer to a preflight request. 5 where it is absent.
    #[serde(default = "five")]
    #[schemars(range(min = 1))]
    pub max_age: u32,
}

const fn five() -> u32 {
    5
}

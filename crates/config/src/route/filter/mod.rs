//! What a rule of a route changes, and what it answers itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BodyLimit, Buffer, Compression, Decompression, GrpcWeb};
use crate::scalar::{Refused, refuse};

mod answer;
mod auth;
mod cors;
mod headers;
mod mirror;
mod portion;
mod url;

pub use answer::{Abort, Delay, Fault, FixedResponse};
pub use auth::{AuthProtocol, ExternalAuth, HttpAuth};
pub use cors::Cors;
pub use headers::{HeaderField, HeaderModifier};
pub use mirror::RequestMirror;
pub use portion::{Fraction, Portion};
pub(crate) use url::check_path;
pub use url::{PathModifier, RequestRedirect, UrlRewrite};

/// What a rule changes on the way (Gateway API, `HTTPRouteFilter`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawFilter", into = "RawFilter")]
pub enum HttpFilter {
    /// Changes the request's headers.
    RequestHeaderModifier(HeaderModifier),
    /// Changes the response's headers.
    ResponseHeaderModifier(HeaderModifier),
    /// Sends the caller elsewhere.
    RequestRedirect(RequestRedirect),
    /// Changes the host and the path under which a backend gets the request.
    UrlRewrite(UrlRewrite),
    /// Sends a copy of requests to another backend.
    RequestMirror(RequestMirror),
    /// Says which pages of other origins may read responses.
    Cors(Cors),
    /// Asks another backend whether a request may pass.
    ExternalAuth(ExternalAuth),
    /// Answers with the same response, without a backend.
    FixedResponse(FixedResponse),
    /// Delays requests, or fails them, on purpose.
    Fault(Fault),
    /// Compresses responses. Ours.
    Compression(Compression),
    /// Decompresses requests. Ours.
    Decompression(Decompression),
    /// Says how large bodies may be. Ours.
    BodyLimit(BodyLimit),
    /// Sends a request once its whole body is there. Ours.
    Buffer(Buffer),
    /// Makes calls of gRPC out of requests of gRPC-Web. Ours.
    GrpcWeb(GrpcWeb),
}

/// What a filter does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
enum FilterType {
    /// Changes the request's headers.
    #[default]
    RequestHeaderModifier,
    /// Changes the response's headers.
    ResponseHeaderModifier,
    /// Sends the caller elsewhere.
    RequestRedirect,
    /// Changes the host and the path under which a backend gets the request.
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    /// Sends a copy of requests to another backend.
    RequestMirror,
    /// Says which pages of other origins may read responses.
    #[serde(rename = "CORS")]
    Cors,
    /// Asks another backend whether a request may pass.
    ExternalAuth,
    /// Answers with the same response, without a backend.
    FixedResponse,
    /// Delays requests, or fails them, on purpose.
    Fault,
    /// Compresses responses. Ours.
    Compression,
    /// Decompresses requests. Ours.
    Decompression,
    /// Says how large bodies may be. Ours.
    BodyLimit,
    /// Sends a request once its whole body is there. Ours.
    Buffer,
    /// Makes calls of gRPC out of requests of gRPC-Web. Ours.
    GrpcWeb,
}

/// What a rule changes on the way (Gateway API, `HTTPRouteFilter`): a type, and the field of its name.
#[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "HttpFilter", rename_all = "camelCase", deny_unknown_fields)]
struct RawFilter {
    /// Which of the fields below is given.
    #[serde(rename = "type")]
    kind: FilterType,
    /// Changes the request's headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_header_modifier: Option<HeaderModifier>,
    /// Changes the response's headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_header_modifier: Option<HeaderModifier>,
    /// Sends the caller elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_redirect: Option<RequestRedirect>,
    /// Changes the host and the path under which a backend gets the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url_rewrite: Option<UrlRewrite>,
    /// Sends a copy of requests to another backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_mirror: Option<RequestMirror>,
    /// Says which pages of other origins may read responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cors: Option<Cors>,
    /// Asks another backend whether a request may pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    external_auth: Option<ExternalAuth>,
    /// Answers with the same response, without a backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fixed_response: Option<FixedResponse>,
    /// Delays requests, or fails them, on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fault: Option<Fault>,
    /// Compresses responses. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    compression: Option<Compression>,
    /// Decompresses requests. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decompression: Option<Decompression>,
    /// Says how large bodies may be. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body_limit: Option<BodyLimit>,
    /// Sends a request once its whole body is there. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    buffer: Option<Buffer>,
    /// Makes calls of gRPC out of requests of gRPC-Web. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grpc_web: Option<GrpcWeb>,
}

impl HttpFilter {
    /// Its type as the configuration names it: `URLRewrite`.
    pub const fn name(&self) -> &'static str {
        self.kind().names().0
    }

    const fn kind(&self) -> FilterType {
        match self {
            Self::RequestHeaderModifier(_) => FilterType::RequestHeaderModifier,
            Self::ResponseHeaderModifier(_) => FilterType::ResponseHeaderModifier,
            Self::RequestRedirect(_) => FilterType::RequestRedirect,
            Self::UrlRewrite(_) => FilterType::UrlRewrite,
            Self::RequestMirror(_) => FilterType::RequestMirror,
            Self::Cors(_) => FilterType::Cors,
            Self::ExternalAuth(_) => FilterType::ExternalAuth,
            Self::FixedResponse(_) => FilterType::FixedResponse,
            Self::Fault(_) => FilterType::Fault,
            Self::Compression(_) => FilterType::Compression,
            Self::Decompression(_) => FilterType::Decompression,
            Self::BodyLimit(_) => FilterType::BodyLimit,
            Self::Buffer(_) => FilterType::Buffer,
            Self::GrpcWeb(_) => FilterType::GrpcWeb,
        }
    }
}

impl FilterType {
    /// As the configuration names the type, and the field that a filter of it has.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::RequestHeaderModifier => ("RequestHeaderModifier", "requestHeaderModifier"),
            Self::ResponseHeaderModifier => ("ResponseHeaderModifier", "responseHeaderModifier"),
            Self::RequestRedirect => ("RequestRedirect", "requestRedirect"),
            Self::UrlRewrite => ("URLRewrite", "urlRewrite"),
            Self::RequestMirror => ("RequestMirror", "requestMirror"),
            Self::Cors => ("CORS", "cors"),
            Self::ExternalAuth => ("ExternalAuth", "externalAuth"),
            Self::FixedResponse => ("FixedResponse", "fixedResponse"),
            Self::Fault => ("Fault", "fault"),
            Self::Compression => ("Compression", "compression"),
            Self::Decompression => ("Decompression", "decompression"),
            Self::BodyLimit => ("BodyLimit", "bodyLimit"),
            Self::Buffer => ("Buffer", "buffer"),
            Self::GrpcWeb => ("GrpcWeb", "grpcWeb"),
        }
    }
}

impl TryFrom<RawFilter> for HttpFilter {
    type Error = Refused;

    fn try_from(raw: RawFilter) -> Result<Self, Refused> {
        let kind = raw.kind;
        let mut given = [
            raw.request_header_modifier.map(Self::RequestHeaderModifier),
            raw.response_header_modifier.map(Self::ResponseHeaderModifier),
            raw.request_redirect.map(Self::RequestRedirect),
            raw.url_rewrite.map(Self::UrlRewrite),
            raw.request_mirror.map(Self::RequestMirror),
            raw.cors.map(Self::Cors),
            raw.external_auth.map(Self::ExternalAuth),
            raw.fixed_response.map(Self::FixedResponse),
            raw.fault.map(Self::Fault),
            raw.compression.map(Self::Compression),
            raw.decompression.map(Self::Decompression),
            raw.body_limit.map(Self::BodyLimit),
            raw.buffer.map(Self::Buffer),
            raw.grpc_web.map(Self::GrpcWeb),
        ]
        .into_iter()
        .flatten();
        match (given.next(), given.next()) {
            (Some(filter), None) if filter.kind() == kind => Ok(filter),
            (None, None) if kind == FilterType::Compression => Ok(Self::Compression(Compression::default())),
            (None, None) if kind == FilterType::Decompression => {
                Ok(Self::Decompression(Decompression::default()))
            }
            (None, None) if kind == FilterType::GrpcWeb => Ok(Self::GrpcWeb(GrpcWeb {})),
            _ => {
                let (kind, field) = kind.names();
                refuse(format!("a filter of type {kind} has the field {field}, and no other"))
            }
        }
    }
}

impl From<HttpFilter> for RawFilter {
    fn from(filter: HttpFilter) -> Self {
        let mut raw = Self { kind: filter.kind(), ..Self::default() };
        match filter {
            HttpFilter::RequestHeaderModifier(modifier) => raw.request_header_modifier = Some(modifier),
            HttpFilter::ResponseHeaderModifier(modifier) => raw.response_header_modifier = Some(modifier),
            HttpFilter::RequestRedirect(it) => raw.request_redirect = Some(it),
            HttpFilter::UrlRewrite(it) => raw.url_rewrite = Some(it),
            HttpFilter::RequestMirror(it) => raw.request_mirror = Some(it),
            HttpFilter::Cors(it) => raw.cors = Some(it),
            HttpFilter::ExternalAuth(it) => raw.external_auth = Some(it),
            HttpFilter::FixedResponse(it) => raw.fixed_response = Some(it),
            HttpFilter::Fault(it) => raw.fault = Some(it),
            HttpFilter::Compression(it) => raw.compression = Some(it),
            HttpFilter::Decompression(it) => raw.decompression = Some(it),
            HttpFilter::BodyLimit(it) => raw.body_limit = Some(it),
            HttpFilter::Buffer(it) => raw.buffer = Some(it),
            HttpFilter::GrpcWeb(it) => raw.grpc_web = Some(it),
        }
        raw
    }
}

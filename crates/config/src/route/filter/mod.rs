//! What a rule of a route changes, and what it answers itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BodyLimit, Buffer, Compression, Decompression, GrpcWeb};
use crate::scalar::{Refused, refuse};

mod headers;

pub use headers::{HeaderField, HeaderModifier};

/// What a rule changes on the way (Gateway API, `HTTPRouteFilter`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RawFilter", into = "RawFilter")]
pub enum HttpFilter {
    /// Changes the request's headers.
    RequestHeaderModifier(HeaderModifier),
    /// Changes the response's headers.
    ResponseHeaderModifier(HeaderModifier),
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
    const fn kind(&self) -> FilterType {
        match self {
            Self::RequestHeaderModifier(_) => FilterType::RequestHeaderModifier,
            Self::ResponseHeaderModifier(_) => FilterType::ResponseHeaderModifier,
            Self::Compression(_) => FilterType::Compression,
            Self::Decompression(_) => FilterType::Decompression,
            Self::BodyLimit(_) => FilterType::BodyLimit,
            Self::Buffer(_) => FilterType::Buffer,
            Self::GrpcWeb(_) => FilterType::GrpcWeb,
        }
    }
}

impl FilterType {
    /// The field that a filter of this type has.
    const fn field(self) -> &'static str {
        match self {
            Self::RequestHeaderModifier => "requestHeaderModifier",
            Self::ResponseHeaderModifier => "responseHeaderModifier",
            Self::Compression => "compression",
            Self::Decompression => "decompression",
            Self::BodyLimit => "bodyLimit",
            Self::Buffer => "buffer",
            Self::GrpcWeb => "grpcWeb",
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
            _ => refuse(format!("a filter of type {kind:?} has the field {}, and no other", kind.field())),
        }
    }
}

impl From<HttpFilter> for RawFilter {
    fn from(filter: HttpFilter) -> Self {
        let mut raw = Self { kind: filter.kind(), ..Self::default() };
        match filter {
            HttpFilter::RequestHeaderModifier(modifier) => raw.request_header_modifier = Some(modifier),
            HttpFilter::ResponseHeaderModifier(modifier) => raw.response_header_modifier = Some(modifier),
            HttpFilter::Compression(it) => raw.compression = Some(it),
            HttpFilter::Decompression(it) => raw.decompression = Some(it),
            HttpFilter::BodyLimit(it) => raw.body_limit = Some(it),
            HttpFilter::Buffer(it) => raw.buffer = Some(it),
            HttpFilter::GrpcWeb(it) => raw.grpc_web = Some(it),
        }
        raw
    }
}

//! What can go wrong on the way of a request, in one closed list, and what the caller is told.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// The field in which a proxy says what became of a request (RFC 9209).
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// How it begins where this proxy gives a reason.
const SAID: &str = "outrigger; error=";

/// Who caused a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Who sent the request.
    Caller,
    /// The application that was to answer it, or the way to it.
    Callee,
    /// This proxy, or its configuration.
    Proxy,
}

/// Why a request failed: the proxy error types of RFC 9209, section 2.3, that this proxy uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No route takes the request.
    DestinationNotFound,
    /// The backend is not known, or has no endpoint.
    DestinationUnavailable,
    /// The backend's name does not resolve.
    DnsError,
    /// No endpoint accepted a connection.
    ConnectionRefused,
    /// No connection was made within the connect timeout.
    ConnectionTimeout,
    /// The listener, or the backend, has as many connections as it may.
    ConnectionLimitReached,
    /// The listener, or the backend, has as many requests in flight as it may. Ours.
    HttpRequestLimitReached,
    /// Nothing came from the application for too long, nor did anything go to it.
    ConnectionReadTimeout,
    /// The caller did not take anything for too long.
    ConnectionWriteTimeout,
    /// The connection broke before the response.
    ConnectionTerminated,
    /// TLS with the endpoint failed.
    TlsProtocolError,
    /// The endpoint's certificate is not trusted, or not that of the identity expected there.
    TlsCertificateError,
    /// The response did not begin, or end, within a timeout of the route.
    HttpResponseTimeout,
    /// The response broke off, or was not HTTP.
    HttpResponseIncomplete,
    /// The response's body is larger than a filter of the route allows.
    HttpResponseBodySize,
    /// The request was not valid.
    HttpRequestError,
    /// The request's header has more bytes or fields than the listener allows.
    HttpRequestHeaderSectionSize,
    /// The request's target is longer than the listener allows a header to be.
    HttpRequestUriTooLong,
    /// The request, or its body, did not come in time. Ours.
    HttpRequestTimeout,
    /// The request is of a version of HTTP that is not spoken here. Ours.
    HttpVersionNotSupported,
    /// The request's body has a transfer coding that is not known here. Ours.
    HttpTransferCodingNotSupported,
    /// The request's body is larger than a filter of the route allows.
    HttpRequestBodySize,
    /// The caller may not.
    HttpRequestDenied,
    /// The response's header has more bytes or fields than the listener allows.
    HttpResponseHeaderSectionSize,
    /// The response's body has a transfer coding that is not known here.
    HttpResponseTransferCoding,
    /// The connection could not be upgraded.
    HttpUpgradeFailed,
    /// The route fails it on purpose.
    FaultInjected,
    /// The route cannot answer: it has no backend with a weight above 0.
    ProxyConfigurationError,
    /// A defect of the proxy, or it is out of file descriptors or memory.
    ProxyInternalError,
    /// The proxy holds as much for its callers as its memory limit allows. Ours.
    ProxyMemoryLimit,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 30] = [
        Self::DestinationNotFound,
        Self::DestinationUnavailable,
        Self::DnsError,
        Self::ConnectionRefused,
        Self::ConnectionTimeout,
        Self::ConnectionLimitReached,
        Self::HttpRequestLimitReached,
        Self::ConnectionReadTimeout,
        Self::ConnectionWriteTimeout,
        Self::ConnectionTerminated,
        Self::TlsProtocolError,
        Self::TlsCertificateError,
        Self::HttpResponseTimeout,
        Self::HttpResponseIncomplete,
        Self::HttpResponseBodySize,
        Self::HttpRequestError,
        Self::HttpRequestHeaderSectionSize,
        Self::HttpRequestUriTooLong,
        Self::HttpRequestTimeout,
        Self::HttpVersionNotSupported,
        Self::HttpTransferCodingNotSupported,
        Self::HttpRequestBodySize,
        Self::HttpRequestDenied,
        Self::HttpResponseHeaderSectionSize,
        Self::HttpResponseTransferCoding,
        Self::HttpUpgradeFailed,
        Self::FaultInjected,
        Self::ProxyConfigurationError,
        Self::ProxyInternalError,
        Self::ProxyMemoryLimit,
    ];

    /// The one mapping of failures: the type's name in `Proxy-Status`, logs and metrics, the status the caller gets,
    /// and who caused it.
    const fn describe(self) -> (&'static str, StatusCode, Source) {
        match self {
            Self::DestinationNotFound => ("destination_not_found", StatusCode::NOT_FOUND, Source::Caller),
            Self::DestinationUnavailable => {
                ("destination_unavailable", StatusCode::SERVICE_UNAVAILABLE, Source::Callee)
            }
            Self::DnsError => ("dns_error", StatusCode::SERVICE_UNAVAILABLE, Source::Callee),
            Self::ConnectionRefused => {
                ("connection_refused", StatusCode::SERVICE_UNAVAILABLE, Source::Callee)
            }
            Self::ConnectionTimeout => ("connection_timeout", StatusCode::GATEWAY_TIMEOUT, Source::Callee),
            Self::ConnectionLimitReached => {
                ("connection_limit_reached", StatusCode::SERVICE_UNAVAILABLE, Source::Proxy)
            }
            Self::HttpRequestLimitReached => {
                ("http_request_limit_reached", StatusCode::SERVICE_UNAVAILABLE, Source::Proxy)
            }
            Self::ConnectionReadTimeout => {
                ("connection_read_timeout", StatusCode::GATEWAY_TIMEOUT, Source::Callee)
            }
            Self::ConnectionWriteTimeout => {
                ("connection_write_timeout", StatusCode::GATEWAY_TIMEOUT, Source::Caller)
            }
            Self::ConnectionTerminated => ("connection_terminated", StatusCode::BAD_GATEWAY, Source::Callee),
            Self::TlsProtocolError => ("tls_protocol_error", StatusCode::SERVICE_UNAVAILABLE, Source::Callee),
            Self::TlsCertificateError => {
                ("tls_certificate_error", StatusCode::SERVICE_UNAVAILABLE, Source::Callee)
            }
            Self::HttpResponseTimeout => {
                ("http_response_timeout", StatusCode::GATEWAY_TIMEOUT, Source::Callee)
            }
            Self::HttpResponseIncomplete => {
                ("http_response_incomplete", StatusCode::BAD_GATEWAY, Source::Callee)
            }
            Self::HttpRequestError => ("http_request_error", StatusCode::BAD_REQUEST, Source::Caller),
            Self::HttpRequestHeaderSectionSize => (
                "http_request_header_section_size",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Source::Caller,
            ),
            Self::HttpRequestUriTooLong => {
                ("http_request_uri_too_long", StatusCode::URI_TOO_LONG, Source::Caller)
            }
            Self::HttpRequestTimeout => ("http_request_timeout", StatusCode::REQUEST_TIMEOUT, Source::Caller),
            Self::HttpVersionNotSupported => {
                ("http_version_not_supported", StatusCode::HTTP_VERSION_NOT_SUPPORTED, Source::Caller)
            }
            Self::HttpTransferCodingNotSupported => {
                ("http_transfer_coding_not_supported", StatusCode::NOT_IMPLEMENTED, Source::Caller)
            }
            Self::HttpResponseHeaderSectionSize => {
                ("http_response_header_section_size", StatusCode::BAD_GATEWAY, Source::Callee)
            }
            Self::HttpResponseTransferCoding => {
                ("http_response_transfer_coding", StatusCode::BAD_GATEWAY, Source::Callee)
            }
            Self::HttpResponseBodySize => {
                ("http_response_body_size", StatusCode::BAD_GATEWAY, Source::Callee)
            }
            Self::HttpRequestBodySize => {
                ("http_request_body_size", StatusCode::PAYLOAD_TOO_LARGE, Source::Caller)
            }
            Self::HttpRequestDenied => ("http_request_denied", StatusCode::FORBIDDEN, Source::Caller),
            Self::HttpUpgradeFailed => ("http_upgrade_failed", StatusCode::BAD_GATEWAY, Source::Callee),
            Self::FaultInjected => ("fault_injected", StatusCode::SERVICE_UNAVAILABLE, Source::Proxy),
            Self::ProxyConfigurationError => {
                ("proxy_configuration_error", StatusCode::INTERNAL_SERVER_ERROR, Source::Proxy)
            }
            Self::ProxyInternalError => {
                ("proxy_internal_error", StatusCode::INTERNAL_SERVER_ERROR, Source::Proxy)
            }
            Self::ProxyMemoryLimit => ("proxy_memory_limit", StatusCode::SERVICE_UNAVAILABLE, Source::Proxy),
        }
    }

    /// After how many seconds a caller may well try again (`Retry-After`), where it was refused only because much was under
    /// way: such a moment passes.
    pub const fn retry_after(self) -> Option<u32> {
        match self {
            Self::ConnectionLimitReached | Self::HttpRequestLimitReached | Self::ProxyMemoryLimit => Some(1),
            _ => None,
        }
    }

    /// The name of RFC 9209: `connection_refused`.
    pub const fn as_str(self) -> &'static str {
        self.describe().0
    }

    /// The status that the caller gets.
    pub const fn status(self) -> StatusCode {
        self.describe().1
    }

    /// The reason of that name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// The reason that a proxy like this one gives for an answer of its own: what [`Error::proxy_status`] has written.
    pub(crate) fn said(headers: &HeaderMap) -> Option<Self> {
        let said = headers.get(PROXY_STATUS)?.to_str().ok()?.strip_prefix(SAID)?;
        Self::find(said.split(';').next()?)
    }

    /// Who caused it.
    pub const fn source(self) -> Source {
        self.describe().2
    }
}

/// A failed request.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    /// Why, in one word.
    pub reason: Reason,
    /// Why, in a sentence that names the address, identity or object concerned.
    pub details: Cow<'static, str>,
    /// Whether the application can have seen the request. A request that is not idempotent is sent again only if not.
    pub reached: bool,
    /// What the caller gets in place of the reason's own status.
    status: Option<StatusCode>,
}

impl Error {
    /// A failure before the request was sent.
    pub fn unsent(reason: Reason, details: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, details: details.into(), reached: false, status: None }
    }

    /// A failure after the request, or a part of it, may have been seen by the application.
    pub fn sent(reason: Reason, details: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, details: details.into(), reached: true, status: None }
    }

    /// The same, with another status for the caller.
    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status: Some(status), ..self }
    }

    /// The same, with this said of whether the application can have seen the request.
    #[must_use]
    pub fn with_reached(self, reached: bool) -> Self {
        Self { reached, ..self }
    }

    /// The status that the caller gets.
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or(self.reason.status())
    }

    /// Whether it says something of the endpoint, as opposed to this proxy.
    pub const fn is_of_endpoint(&self) -> bool {
        matches!(self.reason.source(), Source::Callee)
    }

    /// The `Proxy-Status` field of the response that the caller gets (RFC 9209, section 2): the reason's name, and
    /// the details as a string of structured fields (RFC 8941), in which what is not printable ASCII is replaced.
    pub fn proxy_status(&self) -> HeaderValue {
        let mut text = format!("{SAID}{}", self.reason.as_str());
        if !self.details.is_empty() {
            text.push_str("; details=\"");
            for c in self.details.chars().take(512) {
                match c {
                    '"' | '\\' => text.extend(['\\', c]),
                    ' '..='~' => text.push(c),
                    _ => text.push('?'),
                }
            }
            text.push('"');
        }
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("outrigger"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_status_is_a_structured_field_whatever_the_details_hold() {
        let error = Error::unsent(Reason::ConnectionRefused, "127.0.0.1:3000 said \"no\"\r\nX: \\ é");
        assert_eq!(
            error.proxy_status(),
            r#"outrigger; error=connection_refused; details="127.0.0.1:3000 said \"no\"??X: \\ ?""#
        );
    }

    #[test]
    fn every_reason_is_an_error_status_and_has_its_own_name() {
        let names: std::collections::HashSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        assert!(Reason::ALL.iter().all(|r| r.status().as_u16() >= 400));
    }
}

//! gRPC over HTTP/2, as far as a proxy answers in it: which requests are calls, and how a failure is said to them
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::error::{Error, Reason};

/// The status of a call, in the trailers, or in the header of a response that is nothing else.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// What the status means, percent-encoded.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// After how many milliseconds a call may be tried again
/// (<https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback>).
pub const RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// A status of gRPC: the numbers that a proxy uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    const UNKNOWN: Self = Self(2);
    const DEADLINE_EXCEEDED: Self = Self(4);
    const PERMISSION_DENIED: Self = Self(7);
    const RESOURCE_EXHAUSTED: Self = Self(8);
    const UNIMPLEMENTED: Self = Self(12);
    const INTERNAL: Self = Self(13);
    const UNAVAILABLE: Self = Self(14);
    const UNAUTHENTICATED: Self = Self(16);

    /// What a failure is to a caller of gRPC: by its HTTP status, but for what gRPC has a better word for: a timeout, and a
    /// message that is too large.
    pub fn of(error: &Error) -> Self {
        match error.reason {
            Reason::HttpResponseTimeout | Reason::HttpRequestTimeout => Self::DEADLINE_EXCEEDED,
            Reason::HttpRequestBodySize | Reason::HttpResponseBodySize => Self::RESOURCE_EXHAUSTED,
            _ => Self::of_http(error.status().as_u16()),
        }
    }

    /// What an HTTP status is to a caller of gRPC, where there is none of gRPC
    /// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
    pub const fn of_http(status: u16) -> Self {
        match status {
            400 => Self::INTERNAL,
            401 => Self::UNAUTHENTICATED,
            403 => Self::PERMISSION_DENIED,
            404 => Self::UNIMPLEMENTED,
            429 | 502 | 503 | 504 => Self::UNAVAILABLE,
            _ => Self::UNKNOWN,
        }
    }
}

/// Whether a message is of a call: its media type is `application/grpc`, with or without the name of an encoding.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| {
        let rest = kind.as_bytes().strip_prefix(b"application/grpc");
        matches!(rest, Some([] | [b'+' | b';' | b' ', ..]))
    })
}

/// The status that a header or trailers say.
pub fn status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// The media type of a call.
pub const MEDIA_TYPE: &str = "application/grpc";

/// Says a failure in the header of a response that is nothing else; its HTTP status is 200. `media_type` is the call's, or
/// that of gRPC-Web. Gives the status.
pub fn say(error: &Error, media_type: &'static str, headers: &mut HeaderMap) -> u16 {
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    end(error, headers)
}

/// Says a failure in the trailers of a response that has begun. Gives the status.
pub fn end(error: &Error, headers: &mut HeaderMap) -> u16 {
    let status = u16::from(Status::of(error).0);
    headers.insert(GRPC_STATUS, HeaderValue::from(status));
    headers.insert(GRPC_MESSAGE, message(&error.to_string()));
    status
}

/// A text as the value of `grpc-message`: what is not printable ASCII, and `%`, percent-encoded.
pub fn message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => {
                use std::fmt::Write as _;
                // Writing to a String cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    HeaderValue::try_from(encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_by_its_media_type() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc; charset=x", true),
            ("application/grpc-web", false),
            ("application/grpc-web-text+proto", false),
            ("application/json", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(is_grpc(&headers), expected, "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_message_is_percent_encoded() {
        assert_eq!(message("50% of \"é\"\n"), "50%25 of \"%C3%A9\"%0A");
    }

    #[test]
    fn every_reason_has_a_status() {
        for (reason, status) in [
            (Reason::DestinationNotFound, 12),
            (Reason::HttpRequestDenied, 7),
            (Reason::HttpRequestError, 13),
            (Reason::ConnectionRefused, 14),
            (Reason::ConnectionTimeout, 14),
            (Reason::HttpResponseTimeout, 4),
            (Reason::HttpRequestTimeout, 4),
            (Reason::HttpRequestBodySize, 8),
            (Reason::ProxyInternalError, 2),
        ] {
            assert_eq!(Status::of(&Error::unsent(reason, "")), Status(status), "{reason:?}");
        }
    }
}

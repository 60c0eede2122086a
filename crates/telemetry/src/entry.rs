//! The lines of the access log: JSON, one object on a line, a key left out where there is nothing to say.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::json::Line;

/// A finished request, as it is logged. What came from the network as bytes is logged as text; bytes that are not
/// UTF-8 are replaced by U+FFFD.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// When the request's head came. Logged in RFC 3339, UTC, with milliseconds.
    pub time: SystemTime,
    /// `inbound`, `outbound` or `edge`.
    pub direction: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    /// The request's method.
    pub method: &'a str,
    /// `http` or `https`, as the caller used it.
    pub scheme: Option<&'a str>,
    /// The host that was asked for, with the port where one was given.
    pub host: &'a [u8],
    /// The path, with the query.
    pub path: &'a str,
    /// `HTTP/1.1`, `HTTP/2.0` …
    pub protocol: &'a str,
    /// The status that the caller got; 0 where it left before there was one.
    pub status: u16,
    /// The status of a call of gRPC, where there was one.
    pub grpc_status: Option<u16>,
    /// The Proxy-Status reason, where the proxy itself made the answer.
    pub reason: Option<&'a str>,
    /// More about the reason.
    pub details: Option<&'a str>,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// From the request's head to the end of the response's body; logged as `durationMs`, to the microsecond.
    pub duration: Duration,
    /// The route that took it.
    pub route: Option<&'a str>,
    /// The rule that took it.
    pub rule: Option<&'a str>,
    /// The backend that it went to.
    pub backend: Option<&'a str>,
    /// The endpoint that it went to last.
    pub endpoint: Option<SocketAddr>,
    /// The SPIFFE ID that the caller proved.
    pub caller: Option<&'a str>,
    /// Where the caller's connection came from.
    pub caller_address: SocketAddr,
    /// The SPIFFE ID that the callee proved.
    pub callee: Option<&'a str>,
    /// How often it was sent; 0 where it never left the proxy.
    pub attempts: u32,
    /// Why it was tried again, the last time that it was.
    pub retried: Option<&'a str>,
    /// Why it was not tried again once more, where the route would have.
    pub not_retried: Option<&'a str>,
    /// The caller's software, by its own account.
    pub user_agent: Option<&'a [u8]>,
}

impl Entry<'_> {
    pub(crate) fn write(&self, line: &mut Line<'_>) {
        line.time("time", self.time);
        line.text("direction", self.direction);
        line.text("listener", self.listener);
        line.text("method", self.method);
        line.optional("scheme", self.scheme);
        line.bytes("host", self.host);
        line.text("path", self.path);
        line.text("protocol", self.protocol);
        line.number("status", u64::from(self.status));
        if let Some(status) = self.grpc_status {
            line.number("grpcStatus", u64::from(status));
        }
        line.optional("reason", self.reason);
        line.optional("details", self.details);
        line.number("requestBytes", self.request_bytes);
        line.number("responseBytes", self.response_bytes);
        line.milliseconds("durationMs", self.duration);
        line.optional("route", self.route);
        line.optional("rule", self.rule);
        line.optional("backend", self.backend);
        if let Some(endpoint) = self.endpoint {
            line.address("endpoint", endpoint);
        }
        line.optional("caller", self.caller);
        line.address("callerAddress", self.caller_address);
        line.optional("callee", self.callee);
        line.number("attempts", u64::from(self.attempts));
        line.optional("retried", self.retried);
        line.optional("notRetried", self.not_retried);
        if let Some(user_agent) = self.user_agent {
            line.bytes("userAgent", user_agent);
        }
    }
}

/// A finished connection that is not HTTP, as it is logged.
#[derive(Debug, Clone, Copy)]
pub struct TcpEntry<'a> {
    /// When the connection was accepted. Logged in RFC 3339, UTC, with milliseconds.
    pub time: SystemTime,
    /// `inbound`, `outbound` or `edge`.
    pub direction: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    /// `TCP` or `TLS`.
    pub protocol: &'a str,
    /// The name that was asked for in the TLS handshake (RFC 6066, section 3).
    pub sni: Option<&'a str>,
    /// The Proxy-Status reason, where the proxy ended it.
    pub reason: Option<&'a str>,
    /// What went wrong, where something did.
    pub error: Option<&'a str>,
    /// Bytes sent to the backend.
    pub sent_bytes: u64,
    /// Bytes received from the backend.
    pub received_bytes: u64,
    /// How long it lasted; logged as `durationMs`, to the microsecond.
    pub duration: Duration,
    /// The route that took it.
    pub route: Option<&'a str>,
    /// The backend that it went to.
    pub backend: Option<&'a str>,
    /// The endpoint that it went to.
    pub endpoint: Option<SocketAddr>,
    /// The SPIFFE ID that the caller proved.
    pub caller: Option<&'a str>,
    /// Where the caller's connection came from.
    pub caller_address: SocketAddr,
    /// The SPIFFE ID that the callee proved.
    pub callee: Option<&'a str>,
}

impl TcpEntry<'_> {
    pub(crate) fn write(&self, line: &mut Line<'_>) {
        line.time("time", self.time);
        line.text("direction", self.direction);
        line.text("listener", self.listener);
        line.text("protocol", self.protocol);
        line.optional("sni", self.sni);
        line.optional("reason", self.reason);
        line.optional("error", self.error);
        line.number("sentBytes", self.sent_bytes);
        line.number("receivedBytes", self.received_bytes);
        line.milliseconds("durationMs", self.duration);
        line.optional("route", self.route);
        line.optional("backend", self.backend);
        if let Some(endpoint) = self.endpoint {
            line.address("endpoint", endpoint);
        }
        line.optional("caller", self.caller);
        line.address("callerAddress", self.caller_address);
        line.optional("callee", self.callee);
    }
}

#[cfg(test)]
mod tests;

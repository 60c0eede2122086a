//! What a backend is told of where a request came from: `x-forwarded-*`, `forwarded` (RFC 7239) and `via` (RFC 9110,
//! section 7.6.3).
//!
//! Whoever calls can write whatever it likes in these fields. So what they hold is kept, and added to, only of callers
//! that are trusted; of all others it is taken off, in each of them, also where this proxy writes only some.

use std::net::IpAddr;

use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Which fields are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// `x-forwarded-for`, `x-forwarded-proto`, `x-forwarded-host` and `x-forwarded-port`.
    pub x_forwarded: bool,
    /// `forwarded`.
    pub forwarded: bool,
}

impl Written {
    /// Whether there is anything to do.
    pub const fn any(self) -> bool {
        self.x_forwarded || self.forwarded
    }
}

/// Who sent a request.
#[derive(Debug, Clone)]
pub struct From<'a> {
    /// Its address, as text: made once for a connection.
    pub address: &'a HeaderValue,
    /// Whether it is of IPv6.
    pub ipv6: bool,
    /// Whether the connection is one of TLS.
    pub secure: bool,
    /// Whether what it says of others is believed.
    pub trusted: bool,
}

/// An address as a field's value: `192.0.2.7`, `2001:db8::7`. One of IPv4 in the guise of IPv6 is one of IPv4.
pub fn address(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_canonical().to_string())
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Writes in a request's header where it came from. Its host is still the one that the caller asked for.
pub fn write(headers: &mut HeaderMap, written: Written, from: &From<'_>) {
    // One look at each name is cheaper than a look-up for each of these.
    if !from.trusted && headers.keys().any(tells_where_from) {
        for name in [&FOR, &PROTO, &HOST, &PORT, &REAL_IP, &header::FORWARDED] {
            headers.remove(name);
        }
    }
    let host = headers.get(header::HOST).filter(|host| !host.is_empty()).cloned();
    if written.forwarded {
        let element = element(from, host.as_ref());
        add(headers, header::FORWARDED, element);
    }
    if !written.x_forwarded {
        return;
    }
    add(headers, FOR, from.address.clone());
    let proto = if from.secure { "https" } else { "http" };
    headers.entry(PROTO).or_insert(HeaderValue::from_static(proto));
    headers.entry(PORT).or_insert_with(|| port(host.as_ref(), from.secure));
    if let Some(host) = host {
        headers.entry(HOST).or_insert(host);
    }
}

/// Whether it is one of the fields that say where a request came from.
fn tells_where_from(name: &HeaderName) -> bool {
    let custom = name.as_str().starts_with("x-") && [FOR, PROTO, HOST, PORT, REAL_IP].contains(name);
    custom || *name == header::FORWARDED
}

/// Adds to a list: its lines, in their order, become one.
fn add(headers: &mut HeaderMap, name: HeaderName, last: HeaderValue) {
    let Some(first) = headers.get(&name) else {
        headers.insert(name, last);
        return;
    };
    let mut list = Vec::with_capacity(first.len() + last.len() + 2);
    for value in headers.get_all(&name).iter().filter(|value| !value.is_empty()) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(last.as_bytes());
    headers.insert(name, HeaderValue::try_from(list).unwrap_or(last));
}

/// The port that was asked for.
fn port(host: Option<&HeaderValue>, secure: bool) -> HeaderValue {
    let asked = host.filter(|host| host.as_bytes().contains(&b':'));
    let asked = asked.and_then(|host| Authority::try_from(host.as_bytes()).ok()?.port_u16());
    match (asked, secure) {
        (Some(port), _) => HeaderValue::from(port),
        (None, true) => HeaderValue::from_static("443"),
        (None, false) => HeaderValue::from_static("80"),
    }
}

/// One element of `Forwarded`. What is not a token is quoted: an address of IPv6, a host with a port (RFC 7239, section
/// 4).
fn element(from: &From<'_>, host: Option<&HeaderValue>) -> HeaderValue {
    let host = host.map_or(&b""[..], HeaderValue::as_bytes);
    let mut text = Vec::with_capacity(40 + from.address.len() + host.len());
    text.extend_from_slice(if from.ipv6 { b"for=\"[" } else { b"for=" });
    text.extend_from_slice(from.address.as_bytes());
    text.extend_from_slice(if from.ipv6 { b"]\"" } else { b"" });
    text.extend_from_slice(if from.secure { b";proto=https" } else { b";proto=http" });
    if !host.is_empty() {
        let token =
            host.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        text.extend_from_slice(if token { b";host=" } else { b";host=\"" });
        for &byte in host {
            if matches!(byte, b'"' | b'\\') {
                text.push(b'\\');
            }
            text.push(byte);
        }
        text.extend_from_slice(if token { b"" } else { b"\"" });
    }
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("for=unknown"))
}

/// What this proxy writes in `via`, by the version of the message that it received.
#[derive(Debug, Clone)]
pub struct Via {
    http10: HeaderValue,
    http11: HeaderValue,
    http2: HeaderValue,
}

impl Via {
    /// Under this name, which is a token (RFC 9110, section 5.6.2); `None` if it is not one that a field can hold.
    pub fn new(name: &str) -> Option<Self> {
        let value = |version: &str| HeaderValue::try_from(format!("{version} {name}")).ok();
        Some(Self { http10: value("1.0")?, http11: value("1.1")?, http2: value("2.0")? })
    }

    /// Adds this proxy to those that a message came through.
    pub fn write(&self, headers: &mut HeaderMap, version: Version) {
        let value = match version {
            Version::HTTP_10 => &self.http10,
            Version::HTTP_2 => &self.http2,
            _ => &self.http11,
        };
        headers.append(header::VIA, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    fn written(request: &HeaderMap, from: IpAddr, secure: bool, trusted: bool) -> HeaderMap {
        let mut request = request.clone();
        let (text, ipv6) = (address(from), from.to_canonical().is_ipv6());
        let both = Written { x_forwarded: true, forwarded: true };
        write(&mut request, both, &From { address: &text, ipv6, secure, trusted });
        request
    }

    const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
    const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7));

    #[test]
    fn whoever_is_not_trusted_is_not_believed() {
        let forged = headers(&[
            ("host", "shop.example"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "bank.example"),
            ("x-forwarded-port", "1"),
            ("x-real-ip", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
        ]);
        let expected = headers(&[
            ("host", "shop.example"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-port", "80"),
            ("forwarded", "for=192.0.2.7;proto=http;host=shop.example"),
        ]);
        assert_eq!(written(&forged, V4, false, false), expected);
    }

    #[test]
    fn what_is_not_written_is_not_believed_either() {
        let mut request = headers(&[("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.1")]);
        let text = address(V4);
        let from = From { address: &text, ipv6: false, secure: false, trusted: false };
        write(&mut request, Written { x_forwarded: false, forwarded: true }, &from);
        assert_eq!(request, headers(&[("forwarded", "for=192.0.2.7;proto=http")]));
    }

    #[test]
    fn what_a_trusted_proxy_says_is_kept_and_added_to() {
        let mut request = headers(&[
            ("host", "shop:8443"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-port", "443"),
            ("x-real-ip", "198.51.100.1"),
            ("forwarded", "for=198.51.100.1"),
        ]);
        for value in ["198.51.100.1", "203.0.113.2, 203.0.113.3"] {
            request.append(FOR, HeaderValue::from_static(value));
        }
        let told = written(&request, V6, false, true);
        assert_eq!(told["x-forwarded-for"], "198.51.100.1, 203.0.113.2, 203.0.113.3, 2001:db8::7");
        assert_eq!(
            told["forwarded"],
            "for=198.51.100.1, for=\"[2001:db8::7]\";proto=http;host=\"shop:8443\""
        );
        assert_eq!(told["x-forwarded-proto"], "https");
        assert_eq!(told["x-forwarded-port"], "443");
        assert_eq!(told["x-forwarded-host"], "shop.example");
        assert_eq!(told["x-real-ip"], "198.51.100.1");
    }

    #[test]
    fn the_port_is_the_one_asked_for() {
        for (host, secure, port) in [
            ("shop:8443", true, "8443"),
            ("shop", true, "443"),
            ("[::1]:8080", false, "8080"),
            ("[::1]", false, "80"),
        ] {
            let told = written(&headers(&[("host", host)]), V4, secure, false);
            assert_eq!(told["x-forwarded-port"], port, "{host}");
        }
    }

    #[test]
    fn a_host_cannot_break_out_of_its_quotes() {
        let told = written(&headers(&[("host", "a\";for=10.0.0.1;x=\"")]), V4, true, false);
        assert_eq!(told["forwarded"], r#"for=192.0.2.7;proto=https;host="a\";for=10.0.0.1;x=\"""#);
    }

    #[test]
    fn via_names_each_proxy_and_the_version_that_it_received() {
        let via = Via::new("outrigger").unwrap();
        let mut message = headers(&[("via", "1.0 fred")]);
        via.write(&mut message, Version::HTTP_11);
        via.write(&mut message, Version::HTTP_2);
        let lines: Vec<_> = message.get_all("via").iter().collect();
        assert_eq!(lines, ["1.0 fred", "1.1 outrigger", "2.0 outrigger"]);
    }
}

//! What is changed in a message's header on its way: what concerns one connection alone is taken off, what a route
//! asks for is changed, and what one version of HTTP says in its own way is said in the other's.

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Uri, Version};
use outrigger_config::route::HeaderModifier;
use smallvec::SmallVec;

use crate::forward::UNREACHED;
use crate::h1::Spelling;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Applies a route's filter: what is to go, then what is set, then what is added.
pub fn modify(modifier: &HeaderModifier, headers: &mut HeaderMap) {
    for name in &modifier.remove {
        headers.remove(&name.0);
    }
    for field in &modifier.set {
        headers.insert(field.name.0.clone(), field.value.0.clone());
    }
    for field in &modifier.add {
        headers.append(field.name.0.clone(), field.value.0.clone());
    }
}

/// Takes off what concerns one connection alone (RFC 9110, section 7.6.1), what `Connection` names included. With
/// `keep_upgrade`, `Upgrade` stays, and `Connection` says so.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, keep_upgrade: bool) {
    // One look at each name is cheaper than a look-up for each of these.
    if keep_upgrade || headers.keys().any(concerns_connection) {
        strip(headers, keep_upgrade);
    }
}

/// The same, where a message is passed on; what sidecars alone say to each other is taken off as well.
pub fn strip_passed_on(headers: &mut HeaderMap, keep_upgrade: bool) {
    if keep_upgrade || headers.keys().any(|name| concerns_connection(name) || *name == UNREACHED) {
        headers.remove(UNREACHED);
        strip(headers, keep_upgrade);
    }
}

fn strip(headers: &mut HeaderMap, keep_upgrade: bool) {
    if let Entry::Occupied(connection) = headers.entry(header::CONNECTION) {
        let lines: SmallVec<[HeaderValue; 2]> = connection.remove_entry_mult().1.collect();
        lines.iter().for_each(|line| strip_named(headers, line));
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
    if let Entry::Occupied(mut te) = headers.entry(header::TE) {
        // Codings are between two neighbours, and HTTP/2 knows nothing but this.
        if te.iter().any(|line| names(line, "trailers")) {
            te.insert(HeaderValue::from_static("trailers"));
        } else {
            te.remove();
        }
    }
    if keep_upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(header::UPGRADE);
    }
}

fn concerns_connection(name: &HeaderName) -> bool {
    [header::CONNECTION, header::TRANSFER_ENCODING, header::TE, header::UPGRADE, KEEP_ALIVE, PROXY_CONNECTION]
        .contains(name)
}

/// Takes off the fields that a `Connection` field names, but for `TE` and `Upgrade`, which have rules of their own, and
/// those without which a message cannot be understood.
fn strip_named(headers: &mut HeaderMap, connection: &HeaderValue) {
    for name in connection.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        let kept = ["close", "keep-alive", "te", "upgrade", "host", "content-length"];
        if !kept.iter().any(|k| name.eq_ignore_ascii_case(k.as_bytes()))
            && let Ok(name) = HeaderName::from_bytes(name)
        {
            headers.remove(name);
        }
    }
}

/// The protocol that a request asks to change to (RFC 9110, section 7.8). One of HTTP/2 can have the field only where
/// it stands for extended CONNECT. A change to HTTP/2 itself is not made: it is obsolete (RFC 9113, section 3.1), and
/// what is asked on such a connection would go past every route and policy.
pub fn upgrade(version: Version, headers: &HeaderMap) -> Option<&HeaderValue> {
    let upgrade = headers.get(header::UPGRADE)?;
    match version {
        Version::HTTP_2 => return Some(upgrade),
        // Whichever line names it: the application may choose among all of them.
        Version::HTTP_11 if !headers.get_all(header::UPGRADE).iter().any(|line| names(line, "h2c")) => {}
        _ => return None,
    }
    let named = headers.get_all(header::CONNECTION).iter().any(|value| names(value, "upgrade"));
    named.then_some(upgrade)
}

/// Whether a list has this element.
fn names(list: &HeaderValue, element: &str) -> bool {
    let mut members = list.as_bytes().split(|byte| *byte == b',');
    members.any(|one| one.trim_ascii().eq_ignore_ascii_case(element.as_bytes()))
}

/// Brings a request into the form of HTTP/1.1: a target that is a path, and the host in `Host`. Of an absolute target
/// the authority wins (RFC 9112, section 3.2.2; RFC 9113, section 8.3.1). The target of CONNECT stays an authority.
pub fn to_http1(uri: &mut Uri, version: &mut Version, headers: &mut HeaderMap) {
    if let (Some(authority), None) = (uri.authority(), uri.scheme()) {
        if let Entry::Vacant(host) = headers.entry(header::HOST)
            && let Ok(authority) = HeaderValue::from_str(authority.as_str())
        {
            host.insert(authority);
        }
    } else if let Some(authority) = uri.authority() {
        if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
            headers.insert(header::HOST, host);
        }
        let mut parts = http::uri::Parts::default();
        parts.path_and_query =
            Some(uri.path_and_query().cloned().unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")));
        *uri = Uri::from_parts(parts).unwrap_or_default();
    }
    match *version {
        Version::HTTP_2 => join_cookies(headers),
        // It need not name a host, and HTTP/1.1 must: an empty one where it is not known (RFC 9112, section 3.2).
        Version::HTTP_10 => drop(headers.entry(header::HOST).or_insert(HeaderValue::from_static(""))),
        _ => {}
    }
    *version = Version::HTTP_11;
}

/// Brings a request that another sidecar carried over HTTP/2 into the form that it had: cookies stay apart, and a host that
/// was not named is not.
pub fn uncarry<B>(request: &mut Request<B>, spelling: &Spelling) {
    *request.version_mut() = Version::HTTP_11;
    if !spelling.has(&header::HOST) {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        request.headers_mut().insert(header::HOST, HeaderValue::from_static(""));
    }
}

/// HTTP/2 may split `Cookie` in several fields, HTTP/1.1 may not (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Brings a request in the form of HTTP/1.1 into that of HTTP/2: an absolute target, and no `Host`.
pub fn to_http2(uri: &mut Uri, version: &mut Version, headers: &mut HeaderMap, scheme: &Scheme) {
    if uri.authority().is_none() {
        let host = headers.remove(header::HOST);
        let authority = host
            .and_then(|host| Authority::try_from(host.as_bytes()).ok())
            .unwrap_or_else(|| Authority::from_static("localhost"));
        let mut parts = std::mem::take(uri).into_parts();
        parts.scheme = Some(scheme.clone());
        parts.authority = Some(authority);
        parts.path_and_query.get_or_insert_with(|| http::uri::PathAndQuery::from_static("/"));
        *uri = Uri::from_parts(parts).unwrap_or_default();
    } else {
        headers.remove(header::HOST);
    }
    *version = Version::HTTP_2;
}

/// Whether a request can be sent twice with the effect of once (RFC 9110, section 9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn takes_off_what_connection_names_and_keeps_the_rest() {
        let mut map = headers(&[
            ("connection", "close, x-private, Host"),
            ("x-private", "1"),
            ("host", "shop"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("x-kept", "1"),
        ]);
        strip_hop_by_hop(&mut map, false);
        assert_eq!(map, headers(&[("host", "shop"), ("x-kept", "1")]));
    }

    #[test]
    fn an_upgrade_stays_an_upgrade() {
        let mut map =
            headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket"), ("te", "trailers")]);
        assert!(upgrade(Version::HTTP_11, &map).is_some());
        assert!(upgrade(Version::HTTP_10, &map).is_none());
        strip_hop_by_hop(&mut map, true);
        assert_eq!(map, headers(&[("upgrade", "websocket"), ("te", "trailers"), ("connection", "upgrade")]));
    }

    #[test]
    fn a_request_goes_to_http2_and_back() {
        let (mut uri, mut version) = (Uri::from_static("/a?b"), Version::HTTP_11);
        let mut map = headers(&[("host", "shop:8080"), ("x", "1")]);
        to_http2(&mut uri, &mut version, &mut map, &Scheme::HTTP);
        assert_eq!((uri.to_string(), map.len()), ("http://shop:8080/a?b".into(), 1));
        map.append(header::COOKIE, HeaderValue::from_static("a=1"));
        map.append(header::COOKIE, HeaderValue::from_static("b=2"));
        to_http1(&mut uri, &mut version, &mut map);
        assert_eq!(uri, "/a?b");
        assert_eq!(map.get("host").unwrap(), "shop:8080");
        assert_eq!(map.get("cookie").unwrap(), "a=1; b=2");
    }
}

//! Answers that a rule gives in place of a backend: a redirection, or always the same.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use outrigger_config::route::{FixedResponse, RequestRedirect};
use outrigger_config::scalar::Scheme;

use super::target::{NewPath, Prefix, with_query};
use crate::connection::Connection;
use crate::local::Local;
use crate::plan::authority;

/// An answer in place of a backend's.
#[derive(Debug)]
pub(super) enum Instead {
    Redirect(Redirect),
    Fixed(StatusCode, HeaderMap, Bytes),
}

/// Sends the caller elsewhere.
#[derive(Debug)]
pub(super) struct Redirect {
    scheme: Option<Scheme>,
    host: Option<Box<str>>,
    path: Option<NewPath>,
    port: Option<u16>,
    status: StatusCode,
}

impl Instead {
    pub(super) fn redirect(redirect: &RequestRedirect, prefix: Prefix<'_>) -> Self {
        Self::Redirect(Redirect {
            scheme: redirect.scheme,
            host: redirect.hostname.as_ref().map(|host| host.to_string().into()),
            path: redirect.path.as_ref().map(|path| NewPath::new(path, prefix)),
            port: redirect.port,
            status: StatusCode::from_u16(redirect.status_code).unwrap_or(StatusCode::FOUND),
        })
    }

    pub(super) fn fixed(fixed: &FixedResponse) -> Self {
        let body = Bytes::from(fixed.body.as_deref().unwrap_or_default().to_owned());
        let mut headers = HeaderMap::new();
        if let Some(kind) = &fixed.content_type {
            headers.insert(CONTENT_TYPE, kind.0.clone());
        } else if !body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        }
        for field in &fixed.headers {
            headers.append(field.name.0.clone(), field.value.0.clone());
        }
        Self::Fixed(StatusCode::from_u16(fixed.status).unwrap_or(StatusCode::OK), headers, body)
    }

    /// The answer to a request.
    pub(super) fn make<B>(
        &self,
        connection: &Connection,
        local: &Local,
        request: &Request<B>,
    ) -> (StatusCode, HeaderMap, Bytes) {
        match self {
            Self::Fixed(status, headers, body) => (*status, headers.clone(), body.clone()),
            Self::Redirect(redirect) => {
                let here = if connection.is_https() { Scheme::Https } else { Scheme::Http };
                let port = connection.port(local);
                let mut headers = HeaderMap::with_capacity(2);
                if let Ok(location) = HeaderValue::try_from(redirect.location(here, port, request)) {
                    headers.insert(LOCATION, location);
                }
                (redirect.status, headers, Bytes::new())
            }
        }
    }
}

impl Redirect {
    /// The new location of a request that came with scheme `here`, to a listener at `port`: the rules for what is not
    /// given are those of the Gateway API's `HTTPRequestRedirectFilter.port`.
    fn location<B>(&self, here: Scheme, port: Option<u16>, request: &Request<B>) -> String {
        let uri = request.uri();
        let path = match &self.path {
            Some(path) => path.of(uri.path()),
            None => Cow::Borrowed(uri.path()),
        };
        let target = with_query(path, uri.query());
        let host = self.host.as_deref().or_else(|| authority(request).map(without_port)).unwrap_or_default();
        if host.is_empty() {
            // Only HTTP/1.0 leaves it out. The caller knows where it asked; `//` would be another host.
            return format!("/{}", target.trim_start_matches('/'));
        }
        let scheme = self.scheme.unwrap_or(here);
        let port = self.port.or(if self.scheme.is_some() { Some(scheme.port()) } else { port });
        match port.filter(|port| *port != scheme.port()) {
            Some(port) => format!("{}://{host}:{port}{target}", scheme.as_str()),
            None => format!("{}://{host}{target}", scheme.as_str()),
        }
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_a_location_follows_the_gateway_api() {
        use Scheme::{Http, Https};
        // Here: the scheme and the port of the listener. Then what the filter says.
        for (here, listener, scheme, port, expected) in [
            (Http, 80, None, None, "http://shop/"),
            (Http, 8080, None, None, "http://shop:8080/"),
            (Https, 443, None, None, "https://shop/"),
            (Https, 8443, None, None, "https://shop:8443/"),
            (Http, 8080, Some(Https), None, "https://shop/"),
            (Https, 8443, Some(Http), None, "http://shop/"),
            (Http, 8080, Some(Http), None, "http://shop/"),
            (Http, 8080, None, Some(80), "http://shop/"),
            (Http, 80, None, Some(8083), "http://shop:8083/"),
            (Http, 80, Some(Https), Some(443), "https://shop/"),
            (Http, 80, Some(Https), Some(80), "https://shop:80/"),
            (Https, 443, None, Some(80), "https://shop:80/"),
        ] {
            let redirect = Redirect { scheme, host: None, path: None, port, status: StatusCode::FOUND };
            let request = Request::get("/").header("host", "shop:1234").body(()).unwrap();
            let got = redirect.location(here, Some(listener), &request);
            assert_eq!(got, expected, "{here:?} {listener} {scheme:?} {port:?}");
        }
    }
}

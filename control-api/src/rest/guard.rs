//! What a web page could make a browser send is refused: the API listens where the browser runs too.
//!
//! A page's own requests carry an `Origin` (Fetch standard, section 3.1); a page whose name was pointed at this address
//! (DNS rebinding) sends that name as `Host`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::error::ApiError;
use crate::Shared;

pub(super) async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let authority = request.uri().authority().cloned();
    match check(authority, request.headers(), &shared.names) {
        Ok(()) => next.run(request).await,
        Err(why) => ApiError::new(StatusCode::FORBIDDEN, why).into_response(),
    }
}

/// Whether the request names this server by an address, as `localhost`, or by one of its `names`, and comes from no
/// page, or from a page of this server.
fn check(authority: Option<Authority>, headers: &HeaderMap, names: &[String]) -> Result<(), String> {
    let host = authority.or_else(|| headers.get(HOST)?.to_str().ok()?.parse().ok());
    let Some(host) = host else {
        return Err("the request names no host: send a Host header".into());
    };
    let name = host.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let known = address.is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|known| name.eq_ignore_ascii_case(known));
    if !known {
        return Err(format!(
            "`{name}` is no name of this server: use its address, or start it with --name {name}"
        ));
    }
    match headers.get(ORIGIN) {
        Some(origin) if origin.as_bytes() != format!("http://{host}").as_bytes() => {
            Err("requests from web pages of another origin are refused".into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(host: &str, origin: Option<&str>) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        check(None, &headers, &["outrigger-control".into()])
    }

    #[test]
    fn addresses_and_own_names_are_let_in() {
        for host in ["127.0.0.1:15010", "[::1]:15010", "10.1.2.3", "LOCALHOST:1", "outrigger-control:15010"] {
            assert_eq!(verdict(host, None), Ok(()), "{host}");
        }
    }

    #[test]
    fn other_names_are_refused_whatever_they_resolve_to() {
        for host in ["evil.example:15010", "localhost.evil.example", "127.0.0.1.evil.example"] {
            assert!(verdict(host, None).is_err(), "{host}");
        }
        assert!(check(None, &HeaderMap::new(), &[]).is_err());
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        assert!(verdict("127.0.0.1:15010", Some("https://evil.example")).is_err());
        assert!(verdict("127.0.0.1:15010", Some("http://127.0.0.1:3000")).is_err());
        assert!(verdict("127.0.0.1:15010", Some("null")).is_err());
        assert_eq!(verdict("127.0.0.1:15010", Some("http://127.0.0.1:15010")), Ok(()));
    }
}

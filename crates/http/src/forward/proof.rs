//! Proof that a request did not reach the application, from where this proxy cannot see it: from the sidecar before that.
//!
//! Where a request of any method fails, it is sent again only with proof that not a byte of it has reached the application.
//! What this proxy sees itself is [`Error::reached`](crate::Error): no connection was made, nothing was written, HTTP/2 says
//! that the stream was not processed. What the endpoint's sidecar sees it says by a field of its own error responses, to
//! another sidecar alone; it is believed only where nobody else can have said it.

use http::{HeaderName, Response, StatusCode};

use crate::error::Reason;
use crate::pool::Pool;

/// By this field a sidecar says that not a byte of the request has reached its application. It is between sidecars alone: each
/// takes it off what its application, its caller or its endpoint says. Its value is the reason.
pub const UNREACHED: HeaderName = HeaderName::from_static("outrigger-unreached");

/// Why a request did not reach the application, if the endpoint's sidecar says that it has not, and can be believed.
pub(super) fn unreached<B>(pool: &Pool, response: &Response<B>) -> Option<Reason> {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || !pool.is_of_sidecars() {
        return None;
    }
    let name = response.headers().get(UNREACHED)?;
    // One that is younger than this may know more reasons.
    Some(name.to_str().ok().and_then(Reason::find).unwrap_or(Reason::DestinationUnavailable))
}

/// Why the connection to the application was lost before an answer, if the endpoint's sidecar says so, for all to read (RFC
/// 9209): [`Reason::ConnectionRefused`] where a kept one was lost, and no other could be made. Only what is idempotent may
/// rely on it, for an application can say this itself.
pub(super) fn lost<B>(pool: &Pool, response: &Response<B>) -> Option<Reason> {
    if !matches!(response.status(), StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE)
        || !pool.is_of_sidecars()
    {
        return None;
    }
    let reason = Reason::said(response.headers())?;
    matches!(reason, Reason::ConnectionTerminated | Reason::ConnectionRefused).then_some(reason)
}

//! What an answer, or the lack of one, says of the endpoint that gave it.

use std::time::Instant;

use http::{HeaderMap, Response, StatusCode};
use outrigger_balance::InFlight;

use crate::connect::Dialer;
use crate::endpoint::{Backend, Endpoint};
use crate::error::{Error, Reason};
use crate::forward::Progress;
use crate::grpc;

/// The head of a response has come: lets outlier detection know if it says that the endpoint is not well.
pub(crate) fn answered<B>(in_flight: &mut InFlight, response: &Response<B>, now: Instant) {
    in_flight.response(now);
    if !in_flight.is_watched() {
        return;
    }
    if response.status().is_server_error() || says_failure(response.headers()) {
        in_flight.refused(now);
    } else if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // What follows is not for this proxy to judge.
        in_flight.success();
    }
}

/// Trailers have come: lets outlier detection know if they say that the call failed.
pub(crate) fn ended(in_flight: &mut InFlight, trailers: &HeaderMap) {
    if in_flight.is_watched() && says_failure(trailers) {
        in_flight.refused(Instant::now());
    }
}

/// The time of a request is over: lets outlier detection know of the endpoint that has not answered by then.
pub(crate) fn too_late(backend: &Backend, progress: &Progress) {
    let load = progress.endpoint.and_then(|at| backend.loads.get(at));
    if let (Some(outliers), Some(load), Some(started)) = (&backend.outliers, load, progress.under_way) {
        outliers.failed(load, started, Instant::now());
    }
}

/// Whether a header or trailers have a status of gRPC that speaks against whoever answers, and not against the call:
/// UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS.
fn says_failure(fields: &HeaderMap) -> bool {
    matches!(grpc::status(fields), Some(2 | 4 | 13 | 14 | 15))
}

/// No connection to an endpoint could be made: it gets no requests for a while. Without an identity of our own, nothing
/// is known of those in the mesh.
pub fn unconnected(in_flight: &mut InFlight, endpoint: &Endpoint, dialer: &Dialer, error: &Error) {
    let mesh = endpoint.is_in_mesh();
    if !error.is_of_endpoint() || (mesh && dialer.identity.is_none()) {
        return;
    }
    let now = Instant::now();
    if mesh && error.reason == Reason::TlsCertificateError {
        endpoint.load.met_stranger(now);
    } else {
        endpoint.load.failed(now);
    }
    in_flight.unconnected(now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_grpc_may_speak_against_the_endpoint_or_against_the_call() {
        let says = |status: u16| {
            let headers = HeaderMap::from_iter([(grpc::GRPC_STATUS, status.into())]);
            says_failure(&headers)
        };
        let against: Vec<_> = (0..=17).filter(|status| says(*status)).collect();
        assert_eq!(against, [2, 4, 13, 14, 15]);
        assert!(!says_failure(&HeaderMap::new()));
    }
}

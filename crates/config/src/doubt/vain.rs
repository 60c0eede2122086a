//! Fields that change nothing as they stand, because of others of the same object.

use crate::backend::{Backend, BackendLimits, Endpoint, OutlierDetection};
use crate::resource::Spec;
use crate::route::{Retry, Timeouts};
use crate::scalar::{Duration, HostPort};

/// Looks through an object.
pub(super) fn vain(spec: &Spec, doubt: &mut impl FnMut(String, String)) {
    match spec {
        Spec::Backend(backend) => {
            let mut of_backend = |field: &str, reason: &str| doubt(field.to_owned(), reason.to_owned());
            waiting(&backend.limits, &mut of_backend);
            choosing(backend, &mut of_backend);
            if let Some(outliers) = &backend.outlier_detection {
                compared(backend, outliers, doubt);
            }
        }
        Spec::HttpRoute(route) => {
            for (index, rule) in route.rules.iter().enumerate() {
                let at = format!("rules[{index}].retry");
                again(&at, rule.retry.as_ref(), &rule.timeouts, doubt);
            }
        }
        Spec::GrpcRoute(route) => {
            for (index, rule) in route.rules.iter().enumerate() {
                let at = format!("rules[{index}].retry");
                again(&at, rule.retry.as_ref(), &rule.timeouts, doubt);
                if rule.retry.as_ref().is_some_and(|retry| retry.hedge_delay.is_some()) {
                    let reason = "has no effect: a call of gRPC is a POST, and is not sent twice";
                    doubt(format!("{at}.hedgeDelay"), reason.into());
                }
            }
        }
        _ => {}
    }
}

fn waiting(limits: &BackendLimits, doubt: &mut impl FnMut(&str, &str)) {
    let limited = limits.requests.is_some() || limits.connections.is_some() || limits.adaptive.is_some();
    let waits = limits.waiting.is_some_and(|waiting| waiting > 0);
    if waits && !limited {
        let reason = "has no effect: nothing is limited here that could be waited for; give `requests`, `connections` or `adaptive`";
        doubt("limits.waiting", reason);
    }
    if limits.wait_timeout.is_some() && !waits {
        doubt("limits.waitTimeout", "has no effect: nothing waits without `waiting`");
    }
}

fn choosing(backend: &Backend, doubt: &mut impl FnMut(&str, &str)) {
    if backend.balance.slow_start.is_some() && backend.balance.kind.is_by_hash() {
        doubt("balance.slowStart", "has no effect: a hash decides here");
    }
    let (whole, part) = (backend.connect_timeout(), backend.timeouts.tls_handshake);
    let meshed = backend.endpoints.iter().any(|endpoint| endpoint.identity.is_some());
    if part.is_some() && backend.tls.is_none() && !meshed && !backend.endpoints.is_empty() {
        doubt("timeouts.tlsHandshake", "has no effect: there is no TLS to this backend");
    } else if part.and_then(Duration::limit).is_some_and(|part| part >= whole) {
        doubt("timeouts.tlsHandshake", "has no effect: connectTimeout, of which it is a part, is no longer");
    }
}

/// Comparisons for which there are too few endpoints. A name may have any number of addresses.
fn compared(backend: &Backend, outliers: &OutlierDetection, doubt: &mut impl FnMut(String, String)) {
    let named = |endpoint: &Endpoint| !matches!(endpoint.address, HostPort::Socket(_));
    if backend.endpoints.is_empty() || backend.endpoints.iter().any(named) {
        return;
    }
    let count = backend.endpoints.len();
    if count == 1 {
        let reason = "has no effect: the only endpoint of a backend is never ejected";
        return doubt("outlierDetection".into(), reason.into());
    }
    let least = [
        ("successRate", outliers.success_rate.map(|it| it.min_endpoints)),
        ("latency", outliers.latency.map(|it| it.min_endpoints)),
    ];
    for (field, least) in least {
        if let Some(least) = least.filter(|least| *least as usize > count) {
            let reason = format!(
                "has no effect: `minEndpoints` is {least}, and there are {count}; say how many are enough to be compared"
            );
            doubt(format!("outlierDetection.{field}"), reason);
        }
    }
}

fn again(at: &str, retry: Option<&Retry>, timeouts: &Timeouts, doubt: &mut impl FnMut(String, String)) {
    let Some(retry) = retry else { return };
    if retry.attempts == 0 {
        let said = [
            ("codes", !retry.codes.is_empty()),
            ("grpcStatuses", !retry.grpc_statuses.is_empty()),
            ("hedgeDelay", retry.hedge_delay.is_some()),
        ];
        if let Some((field, _)) = said.into_iter().find(|(_, said)| *said) {
            doubt(format!("{at}.{field}"), "has no effect: with `attempts: 0` nothing is sent again".into());
        }
        return;
    }
    let limits = [("backendRequest", timeouts.backend_request), ("request", timeouts.request)];
    for (field, limit) in limits {
        if let (Some(delay), Some(limit)) = (retry.hedge_delay, limit.and_then(Duration::limit))
            && delay.get() >= limit
        {
            let reason = format!("has no effect: by then timeouts.{field} has ended the attempt");
            return doubt(format!("{at}.hedgeDelay"), reason);
        }
    }
}

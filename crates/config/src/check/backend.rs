//! Backends.

use super::{Check, length, positive, unique, unique_some, within, wrong};
use crate::backend::{
    AdaptiveConcurrency, Backend, BackendLimits, Balance, HashKind, HealthCheck, HealthCheckKind,
    OutlierDetection,
};
use crate::resource::Invalid;

impl Check for Backend {
    fn check(&self) -> Result<(), Invalid> {
        check_folder(self)?;
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            within(format!("endpoints[{index}].weight"), endpoint.weight, 1..=1000)?;
            within(format!("endpoints[{index}].priority"), endpoint.priority, 0..=15)?;
            if self.tls.is_some() && endpoint.identity.is_some() {
                let reason =
                    "not allowed in a backend with tls: an endpoint is either in the mesh or outside it";
                return wrong(format!("endpoints[{index}].identity"), reason);
            }
        }
        unique_some("endpoints", "address", self.endpoints.iter().map(|endpoint| Some(&endpoint.address)))?;
        check_balance(&self.balance)?;
        let constraint = &self.retry_constraint;
        within("retryConstraint.budget.percent", constraint.budget.percent, 0..=100)?;
        positive("retryConstraint.budget.interval", Some(constraint.budget.interval))?;
        positive("retryConstraint.minRetryRate.interval", Some(constraint.min_retry_rate.interval))?;
        if self.connect_timeout.is_some_and(|timeout| timeout.get().is_zero()) {
            return wrong("connectTimeout", "must be longer than 0s; leave it out for 5s");
        }
        check_limits(&self.limits)?;
        self.health_check.as_ref().map_or(Ok(()), check_health)?;
        self.outlier_detection.as_ref().map_or(Ok(()), check_outliers)
    }
}

fn check_balance(balance: &Balance) -> Result<(), Invalid> {
    length("balance.hash", &balance.hash, 0..=8)?;
    within("balance.panicThreshold", balance.panic_threshold, 0..=100)?;
    positive("balance.slowStart", balance.slow_start)?;
    match (balance.kind.is_by_hash(), balance.hash.is_empty()) {
        (true, true) => {
            return wrong(
                "balance.hash",
                "missing: say what of a request decides, such as `[{ type: Header, name: x-user }]`",
            );
        }
        (false, false) => {
            return wrong("balance.hash", "only `type: RingHash` and `type: Maglev` go by a hash");
        }
        _ => {}
    }
    for (index, key) in balance.hash.iter().enumerate() {
        let at = format!("balance.hash[{index}].name");
        match (key.kind, &key.name) {
            (HashKind::SourceAddress, Some(_)) => return wrong(at, "not allowed with `type: SourceAddress`"),
            (HashKind::SourceAddress, None) | (_, Some(_)) => {}
            (_, None) => return wrong(at, "missing: the name of the header, cookie or query parameter"),
        }
    }
    Ok(())
}

fn check_limits(limits: &BackendLimits) -> Result<(), Invalid> {
    within("limits.connections", limits.connections.unwrap_or(1), 1..=u32::MAX)?;
    within("limits.requests", limits.requests.unwrap_or(1), 1..=u32::MAX)?;
    positive("limits.waitTimeout", limits.wait_timeout)?;
    let Some(AdaptiveConcurrency { min, max, tolerance_percent }) = limits.adaptive else { return Ok(()) };
    within("limits.adaptive.min", min, 1..=u32::MAX)?;
    if max < min {
        let reason = format!("{max} is less than min, {min}: make it more, or equal");
        return wrong("limits.adaptive.max", reason);
    }
    within("limits.adaptive.tolerancePercent", tolerance_percent, 101..=1000)
}

fn check_health(check: &HealthCheck) -> Result<(), Invalid> {
    let only = |field: &str, given: bool, kind: HealthCheckKind, name: &str| {
        if given && check.kind != kind {
            return wrong(format!("healthCheck.{field}"), format!("only with `type: {name}`"));
        }
        Ok(())
    };
    only("path", check.path.is_some(), HealthCheckKind::Http, "HTTP")?;
    only("statuses", !check.statuses.is_empty(), HealthCheckKind::Http, "HTTP")?;
    only("service", check.service.is_some(), HealthCheckKind::Grpc, "GRPC")?;
    if check.host.is_some() && check.kind == HealthCheckKind::Tcp {
        return wrong("healthCheck.host", "not with `type: TCP`: nothing is said on the connection");
    }
    if let Some(path) = check.path.as_deref()
        && (!path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err())
    {
        return wrong("healthCheck.path", format!("`{path}` is not the path of a request: begin it with /"));
    }
    if let Some(host) = check.host.as_deref()
        && host.parse::<http::uri::Authority>().is_err()
    {
        return wrong("healthCheck.host", format!("`{host}` is not a host, with or without a port"));
    }
    for (index, status) in check.statuses.iter().enumerate() {
        within(format!("healthCheck.statuses[{index}]"), u32::from(*status), 100..=599)?;
    }
    unique("healthCheck.statuses", &check.statuses)?;
    within("healthCheck.port", u32::from(check.port.unwrap_or(1)), 1..=65_535)?;
    positive("healthCheck.interval", Some(check.interval))?;
    positive("healthCheck.timeout", Some(check.timeout))?;
    within("healthCheck.jitter", check.jitter, 0..=100)?;
    within("healthCheck.healthyThreshold", check.healthy_threshold, 1..=100)?;
    within("healthCheck.unhealthyThreshold", check.unhealthy_threshold, 1..=100)
}

fn check_outliers(outliers: &OutlierDetection) -> Result<(), Invalid> {
    positive("outlierDetection.interval", Some(outliers.interval))?;
    positive("outlierDetection.baseEjectionTime", Some(outliers.base_ejection_time))?;
    let (base, most) = (outliers.base_ejection_time, outliers.max_ejection_time);
    if most < base {
        let reason = format!("{most} is shorter than baseEjectionTime, {base}: make it longer, or equal");
        return wrong("outlierDetection.maxEjectionTime", reason);
    }
    within("outlierDetection.maxEjectionPercent", outliers.max_ejection_percent, 0..=100)?;
    let factor = outliers.latency.map_or(101, |latency| latency.factor_percent);
    within("outlierDetection.latency.factorPercent", factor, 101..=u32::MAX)
}

/// A folder is all that its backend is.
fn check_folder(backend: &Backend) -> Result<(), Invalid> {
    let Some(folder) = &backend.folder else { return Ok(()) };
    if folder.as_os_str().is_empty() {
        return wrong("folder", "is empty: name a folder; `.` is the configuration file's");
    }
    let beside = [
        ("endpoints", !backend.endpoints.is_empty()),
        ("tls", backend.tls.is_some()),
        ("protocol", backend.protocol.is_some()),
        ("waitingPage", backend.waiting_page),
    ];
    match beside.into_iter().find(|(_, given)| *given) {
        Some((field, _)) => {
            wrong(field, "not allowed beside folder: the files are served by the proxy itself")
        }
        None => Ok(()),
    }
}
